"""`python -m bench.memory`: what a host keeps in memory of the keys that it was written to.

One host process as it comes, on a server of its own; a message to each key, with some state to it.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import msgspec

from bench.ours import open_bus
from bench.role import send_many
from runtime import Actor, Turn, handler
from runtime.bus import Bus, Outgoing, expiry, new_id
from runtime.committer import Committer
from runtime.loads import list_consumers
from runtime.log import configure
from runtime.store.server import EmbeddedServer
from schemas import subjects
from schemas.base import Address, Message
from schemas.envelope import encode, seal

CONFIG = """
[log]
level = "warning"
[[actor]]
name = "jotter"
type = "bench.memory:Jotter"
"""
STEPS = 10


class Jot(Message, tag="jotter.jot"):
    """Something to be remembered."""

    text: str


class JotterState(msgspec.Struct):
    """The last that was said."""

    text: str = ""


class Jotter(Actor):
    """Remembers what it is told."""

    state: JotterState

    @handler
    def jot(self, message: Jot, ctx: Turn) -> None:
        self.state.text = message.text


async def send(bus: Bus, keys: range, size: int) -> None:
    """Write to each key once."""
    committer = Committer(bus)
    running = asyncio.create_task(committer.run())
    text = "x" * size

    async def send_one(number: int) -> "asyncio.Future[int]":
        to = Address("jotter", f"k{keys.start + number}")
        data = encode(seal(Jot(text=text), id=new_id(), source="bench", subject=to.key))
        message = Outgoing(subjects.mail(to), data, expiry(timedelta(hours=1)))
        return committer.submit([message], message.subject)

    await send_many(len(keys), send_one)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def settle(bus: Bus) -> None:
    """Wait until the host has handled all of it."""
    while True:
        consumers = await list_consumers(bus)
        if consumers and not any(c["num_pending"] + c["num_ack_pending"] for c in consumers):
            return
        await asyncio.sleep(0.05)


def read_memory(pid: int) -> float:
    """What a process has in memory, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the host (process {pid}) is gone")


async def measure(keys: int, size: int) -> None:
    """Write to ever more keys, and print what the host has in memory."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        server = EmbeddedServer(Path(folder) / "nats", sync="2m")
        await server.start()
        bus = await open_bus(server.url)
        config = Path(folder) / "host.toml"
        config.write_text(CONFIG)
        arguments = ("runtime", "host", "--config", str(config), "--nats", server.url)
        host = await asyncio.create_subprocess_exec(sys.executable, "-m", *arguments)
        try:
            step = max(1, keys // STEPS)
            for first in range(0, keys, step):
                began = time.monotonic()
                await send(bus, range(first, first + step), size)
                await settle(bus)
                rate = step / (time.monotonic() - began)
                memory = read_memory(host.pid)
                print(f"{first + step:8} keys {memory:7.1f} MB {rate:7.0f} keys/s", flush=True)
        finally:
            host.send_signal(signal.SIGTERM)
            await host.wait()
            await bus.link.close()
            await server.stop()


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--state", type=int, default=300, metavar="BYTES", help="kept for each key")
    given = parser.parse_args()
    configure(level="warning")
    asyncio.run(measure(given.keys, given.state))


if __name__ == "__main__":
    main()
