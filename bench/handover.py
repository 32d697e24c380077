"""`python -m bench.handover`: how long messages wait while hosts are killed, or restarted in turn.

Three host processes on one server, a message to each of 64 keys in turn, 200 in a second; from a
message's publication to the event that its handler emits. A slow disk adds to it; TMPDIR chooses.
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec

from bench.ours import open_bus
from runtime import Actor, Turn, handler
from runtime.bus import Bus, expiry, new_id
from runtime.connection import Packet
from runtime.errors import BusFault
from runtime.log import configure
from runtime.store.server import EmbeddedServer
from runtime.terminal.overview import read_nodes
from schemas import subjects
from schemas.base import Address, Message, Topic
from schemas.envelope import decode_any, encode, seal

HOSTS = 3
KEYS = 64
EVERY = 0.005
SETTLED = 6.0
"""Seconds between two rounds: what one of them moves is at rest before the next."""
CONFIG = """
[log]
format = "json"
[[actor]]
name = "bell"
type = "bench.handover:Bell"
"""


class Ring(Message, tag="bell.ring"):
    """The `n`th message to all keys together."""

    n: int


class BellState(msgspec.Struct):
    """The last it heard."""

    n: int = 0


class Bell(Actor):
    """Says what it heard."""

    state: BellState

    @handler
    def ring(self, message: Ring, ctx: Turn) -> None:
        self.state.n = message.n
        ctx.emit(Topic("bell", ctx.key), message)


class Ringer:
    """Rings every key in turn, and knows how long each message took."""

    def __init__(self, bus: Bus) -> None:
        self.waits: list[tuple[float, float, int]] = []
        """When each was sent, how long it took, and its shard."""
        self.sent = 0
        self._bus = bus
        self._open: dict[int, tuple[float, int]] = {}
        bus.subscribe("live.event.bell.*", self._hear)

    async def hear_all(self) -> None:
        """Wait for what is still to be heard, as long as any comes."""
        before = -1
        while before != len(self._open) > 0:
            before = len(self._open)
            await asyncio.sleep(3)

    def __str__(self) -> str:
        return f"{self.sent} messages, {len(self._open)} of them never handled"

    def _hear(self, packet: Packet) -> None:
        heard = msgspec.json.decode(decode_any(packet.data).data, type=Ring)
        if found := self._open.pop(heard.n, None):
            began, shard = found
            self.waits.append((began, time.monotonic() - began, shard))

    async def run(self) -> None:
        """Ring until cancelled."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while True:
                due += EVERY
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.sent += 1
                group.create_task(self._ring(self.sent))

    async def _ring(self, n: int) -> None:
        to = Address("bell", f"k{n % KEYS}")
        self._open[n] = (time.monotonic(), subjects.shard_of(to.actor, to.key))
        data = encode(seal(Ring(n=n), id=new_id(), source="bench", subject=to.key))
        headers = {"Nats-Msg-Id": new_id(), **expiry(timedelta(hours=1))}
        while True:
            try:
                await self._bus.publish(subjects.mail(to), data, headers=headers)
                return
            except BusFault:
                await asyncio.sleep(0.1)


class Party:
    """The host processes."""

    def __init__(self, folder: Path, url: str, bus: Bus) -> None:
        self._folder, self._url, self._bus = folder, url, bus
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str) -> None:
        """Start a host, and return once it is heard of."""
        config = self._folder / f"{name}.toml"
        config.write_text(f'{CONFIG}\n[host]\nname = "{name}"\n')
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runtime", "host"),
                *("--config", str(config), "--nats", self._url),
                stdout=log,
                stderr=log,
            )
        pid = self._running[name].pid
        while all(node.pid != pid for node in await read_nodes(self._bus)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def owned(self, name: str) -> list[int]:
        """The shards that a host says it owns."""
        nodes = {node.name: node for node in await read_nodes(self._bus)}
        return nodes[name].owned.get("bell", []) if name in nodes else []

    async def end(self, name: str, number: int) -> None:
        """Send a host a signal, and wait for its end."""
        process = self._running.pop(name)
        process.send_signal(number)
        await process.wait()

    async def end_all(self) -> None:
        """Nobody stays behind."""
        for name in list(self._running):
            await self.end(name, signal.SIGKILL)


@asynccontextmanager
async def playing() -> AsyncIterator[tuple[Ringer, Party]]:
    """A server, three hosts at rest, and somebody who rings."""
    with tempfile.TemporaryDirectory(prefix="handover-") as folder:
        server = EmbeddedServer(Path(folder) / "nats")
        await server.start()
        bus = await open_bus(server.url)
        party, ringer = Party(Path(folder), server.url, bus), Ringer(bus)
        try:
            await asyncio.gather(*(party.start(f"h{n}") for n in range(HOSTS)))
            ringing = asyncio.create_task(ringer.run())
            await asyncio.sleep(SETTLED)
            ringer.waits.clear()
            await asyncio.sleep(SETTLED)
            yield ringer, party
            ringing.cancel()
            await asyncio.gather(ringing, return_exceptions=True)
            await ringer.hear_all()
        finally:
            await party.end_all()
            await bus.link.close()
            await server.stop()
            if keep := os.environ.get("KEEP_LOGS"):
                for log in Path(folder).glob("*.log"):
                    Path(keep, log.name).write_bytes(log.read_bytes())


async def kill(rounds: int) -> None:
    """Kill one host after another; print after how long its shards were served again."""
    gaps: list[float] = []
    async with playing() as (ringer, party):
        for number in range(rounds):
            name = f"h{number % HOSTS}"
            owned = await party.owned(name)
            ringer.waits.clear()
            began = time.monotonic()
            await party.end(name, signal.SIGKILL)
            await asyncio.sleep(SETTLED)
            gaps += _served_again(ringer, began, owned)
            await party.start(name)
            await asyncio.sleep(SETTLED)
    print(f"{rounds} kills, {len(gaps)} shards: served again after {_describe(gaps)}")
    print(ringer)


def _served_again(ringer: Ringer, began: float, owned: list[int]) -> list[float]:
    """Per shard, from the kill to the first event of a message that was sent after it."""
    first: dict[int, float] = {}
    for sent, took, shard in ringer.waits:
        if shard in owned and sent > began:
            first[shard] = min(first.get(shard, 1e9), sent + took - began)
    return list(first.values())


async def restart(rounds: int) -> None:
    """Restart every host in turn; print how long messages waited at most."""
    longest: list[float] = []
    async with playing() as (ringer, party):
        calm = max(took for _, took, _ in ringer.waits)
        for _ in range(rounds):
            ringer.waits.clear()
            for number in range(HOSTS):
                await party.end(f"h{number}", signal.SIGTERM)
                await party.start(f"h{number}")
            await asyncio.sleep(1)
            longest.append(max(took for _, took, _ in ringer.waits))
            print(f"  longest wait {longest[-1]:.2f} s", flush=True)
    print(f"{rounds} rolling restarts: longest wait {_describe(longest)}; at rest {calm:.2f} s")
    print(ringer)


def _describe(seconds: list[float]) -> str:
    seconds = sorted(seconds)
    median = statistics.median(seconds)
    return f"{median:.2f} s (median), {seconds[0]:.2f} to {seconds[-1]:.2f} s"


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.handover", description=__doc__)
    parser.add_argument("what", choices=("kill", "restart"))
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    configure(level="warning")
    asyncio.run(kill(given.rounds) if given.what == "kill" else restart(given.rounds))


if __name__ == "__main__":
    main()
