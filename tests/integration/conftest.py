"""Servers and connections to them. Most tests share one server, and each starts it empty."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.store.server import EmbeddedServer
from runtime.streams import ensure_streams
from tests.integration.waiting import until
from tests.proxy import Proxy

Connect = Callable[[str], Awaitable[Bus]]
KEPT = ".kept"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_server(
    nats_server_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbeddedServer]:
    """One server for all tests that do it no harm."""
    server = EmbeddedServer(tmp_path_factory.mktemp("nats"), binary=Path(nats_server_binary))
    await server.start()
    # It removes this folder behind the last stream, if it is empty, perhaps under the next one.
    (streams_of(server) / KEPT).mkdir(parents=True, exist_ok=True)
    yield server
    await server.stop()


def streams_of(server: EmbeddedServer) -> Path:
    """Where a server keeps its streams: a folder each, which is hidden while it is removed."""
    return server.data / "jetstream" / "jetstream" / "$G" / "streams"


def port_to_come_back_to() -> int:
    """A free port below those that outgoing connections get, which might take it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as attempt, contextlib.suppress(OSError):
            attempt.bind(("127.0.0.1", port))
            return port


@pytest.fixture
async def own_server(nats_server_binary: str, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that may be killed and frozen."""
    server = EmbeddedServer(
        tmp_path / "nats", port=port_to_come_back_to(), binary=Path(nats_server_binary)
    )
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens connections as processes would, each with its bus; they end with the test."""
    opened: list[Connection] = []

    async def connect(url: str) -> Bus:
        link = Connection([url])
        opened.append(link)
        await link.open(patient=False)
        return Bus(link)

    yield connect
    await asyncio.gather(*(link.close() for link in opened))


@pytest.fixture
async def bus(shared_server: EmbeddedServer, connect: Connect) -> Bus:
    """The shared server's bus, with nothing in it."""
    bus = await connect(shared_server.url)
    for name in (await bus.api("STREAM.NAMES"))["streams"] or []:
        await bus.api(f"STREAM.DELETE.{name}")
    # One that is removed again before it is gone comes back with all its messages.
    await until(lambda: [one.name for one in streams_of(shared_server).iterdir()] == [KEPT])
    await ensure_streams(bus)
    return bus


@pytest.fixture
async def own_bus(own_server: EmbeddedServer, connect: Connect) -> Bus:
    """The bus of a server that may be killed and frozen."""
    bus = await connect(own_server.url)
    await ensure_streams(bus)
    return bus


@pytest.fixture
async def proxy(shared_server: EmbeddedServer) -> AsyncIterator[Proxy]:
    """A man in the middle of connections to the shared server."""
    async with Proxy(shared_server.port) as proxy:
        yield proxy
