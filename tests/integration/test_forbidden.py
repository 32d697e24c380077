"""What a server forbids while everything runs: said at once, and nobody's message pays for it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.alarm import ALARMS
from runtime.ask import ask
from runtime.bus import Bus, Outgoing
from runtime.connection import Connection
from runtime.deployments import seed_deployments
from runtime.errors import Forbidden
from runtime.host import Host
from runtime.streams import ensure_streams
from runtime.system import kind_of
from schemas import subjects
from schemas.deployment import Deployment
from tests.integration.conftest import port_to_come_back_to
from tests.integration.counter import HERE, Add, Counter, Total

CONFIG = """
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{store}" }}
authorization {{ users: [
  {{ user: one, password: secret, permissions: {{ publish: {{ deny: [{denied}] }} }} }}
] }}
"""


class Server:
    """A server whose permissions change while it runs."""

    def __init__(self, folder: Path, binary: str) -> None:
        self.port = port_to_come_back_to()
        self._folder = folder
        self._binary = binary
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        self._write([])
        self._process = await asyncio.create_subprocess_exec(
            *(self._binary, "-c", str(self._folder / "nats.conf")),
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def stop(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def connect(self) -> Bus:
        link = Connection([f"nats://127.0.0.1:{self.port}"], user="one", password="secret")
        await link.open()
        return Bus(link)

    def deny(self, *denied: str) -> None:
        """Forbid to publish there from now on, and nowhere else."""
        self._write(list(denied))
        os.kill(self._process.pid, signal.SIGHUP)

    def _write(self, denied: list[str]) -> None:
        quoted = ", ".join(f'"{subject}"' for subject in denied) or '"nothing.at.all"'
        text = CONFIG.format(port=self.port, store=self._folder / "store", denied=quoted)
        (self._folder / "nats.conf").write_text(text)


@pytest.fixture
async def server(tmp_path: Path, nats_server_binary: str) -> AsyncIterator[Server]:
    server = Server(tmp_path, nats_server_binary)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def bus(server: Server) -> AsyncIterator[Bus]:
    bus = await server.connect()
    await ensure_streams(bus)
    yield bus
    await bus.link.close()


async def until_denied(bus: Bus, subject: str) -> Forbidden:
    """The server takes its new permissions a moment after it was told."""
    async with asyncio.timeout(10):
        while True:
            try:
                await bus.publish(subject, b"x")
            except Forbidden as fault:
                return fault
            await asyncio.sleep(0.01)


async def test_what_is_forbidden_is_a_definite_error_and_no_time_out(
    server: Server, bus: Bus
) -> None:
    await bus.publish("event.t.a", b"allowed")
    server.deny("event.t.*")
    fault = await until_denied(bus, "event.t.b")
    ack = await bus.publish("event.u.a", b"still allowed")

    assert str(fault) == "not allowed to publish to event.t.b (JetStream error 403)"
    assert ack.seq > 1


async def test_a_commit_with_a_forbidden_part_says_which(server: Server, bus: Bus) -> None:
    host = Host(bus)
    await host.start()
    server.deny("event.t.*")
    await until_denied(bus, "event.t.b")
    parts = [Outgoing(f"event.{kind}.a", b"x", {}) for kind in ("u", "t", "u")]
    with pytest.raises(Forbidden, match=r"not allowed to publish to event\.t\.a"):
        await host.system.committer.submit(parts, "lane")
    await host.stop()


async def test_messages_wait_while_their_turns_are_forbidden_and_are_not_buried(
    server: Server, bus: Bus
) -> None:
    deployment = Deployment(name="counter", type="tests:Counter", kind=kind_of(Counter))
    await seed_deployments(bus, [deployment])
    host = Host(await server.connect(), classes={"counter": Counter})
    await ensure_streams(host.bus)
    await host.start()
    await ask(bus, HERE, Add(n=1), timeout=10)
    server.deny("state.counter.*")
    await until_denied(bus, "state.counter.x")
    asked = asyncio.create_task(ask(bus, HERE, Add(n=2), timeout=30))
    async with asyncio.timeout(10):
        while not await bus.read(subjects.event(ALARMS), after=0):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    server.deny()
    total = await asked
    dead = await bus.read_all("dead.>", after=0)
    alarms = await bus.read_all(subjects.event(ALARMS), after=0)
    await host.stop()
    await host.bus.link.close()

    assert isinstance(total, Total)
    assert total.n == 3
    assert dead == []
    assert [b"forbidden_subject" in one.data for one in alarms] == [True]
