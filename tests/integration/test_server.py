"""The embedded server: ready when it says so, alone on its store, back when it dies."""

import asyncio
import os
from pathlib import Path

import pytest

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.errors import ConfigError
from runtime.server import EmbeddedServer, ServerFailed, find_binary
from runtime.streams import ensure_streams


async def connect(server: EmbeddedServer) -> Bus:
    link = Connection([server.url])
    await link.open()
    bus = Bus(link)
    await ensure_streams(bus)
    return bus


async def test_it_takes_clients_as_soon_as_it_has_started(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    bus = await connect(server)
    version = bus.link.server_version
    await bus.link.close()
    await server.stop()

    assert version == "2.15.1"
    assert server.pid == 0


async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    bus = await connect(server)
    acks = [await bus.publish("event.t.a", b"%d" % n) for n in range(100)]
    await server.kill()
    await server.start()
    await bus.link.close()
    bus = await connect(server)
    found = await bus.read_all("event.t.a", after=0)
    await bus.link.close()
    await server.stop()

    assert [one.seq for one in found] == [ack.seq for ack in acks]


async def test_a_second_server_on_the_same_store_is_refused(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    with pytest.raises(ConfigError, match="runs on .* already"):
        await EmbeddedServer(tmp_path).start()
    await server.stop()


async def test_a_port_that_is_taken_is_said_in_the_servers_own_words(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "one")
    await server.start()
    with pytest.raises(ServerFailed, match="address already in use"):
        await EmbeddedServer(tmp_path / "two", port=server.port).start()
    await server.stop()


async def test_it_is_started_again_on_the_same_port_when_it_dies(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    port, watch = server.port, asyncio.create_task(server.run_supervised())
    bus = await connect(server)
    rebuilt = asyncio.Event()
    bus.link.on_rebuilt.append(rebuilt.set)
    os.kill(server.pid, 9)
    async with asyncio.timeout(10):
        await rebuilt.wait()
    info = await bus.api("INFO")
    watch.cancel()
    await bus.link.close()
    await server.stop()

    assert server.port == port
    assert info["streams"] == 6


def test_the_binary_is_the_pinned_package_s_own() -> None:
    assert find_binary().name.startswith("nats-server")
