"""`python -m bench.streams`: how late tokens are from a worker to who follows, and what they cost.

Each piece of what is said is the moment at which it was said. One machine, so one clock.
"""

import argparse
import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

from bench.answers import Found, ask_directly, ask_litellm, ask_us, find_litellm
from bench.ears import Heard, listen_to_bus, open_ear
from bench.machine import describe
from bench.ours import open_bus
from bench.role import run
from bench.stack import Meter, Spent, Stack, stacked, wait_until_served
from bench.table import percentile
from bench.tellers import start_runs
from runtime.heartbeat import EVERY
from runtime.log import configure
from runtime.terminal.overview import read_nodes
from schemas.base import Topic
from schemas.relay import LOG

SETTLE = 2.0
"""Seconds after the beginning that are not counted."""
AT_ONCE = 100
CONFIG = """
[[actor]]
name = "teller"
type = "bench.tellers:Teller"
concurrency = 1000
"""
FOLLOW = (
    "GET /api/relay/log/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "Accept: text/event-stream\r\n\r\n"
)
HEADING = (
    "| what | tokens/s | late p50 ms | p99 | first one late p50 | p99"
    " | asked for until heard p50 | p99 | cores | MB |"
)


class Row:
    """One measurement as a line of the table."""

    def __init__(self, what: str, heard: Heard, seconds: float, spent: dict[str, Spent]) -> None:
        self.what = what
        self.rate = len(heard.all) / seconds
        self.all = _halves(heard.all)
        self.first = _halves(heard.first)
        self.waits = _halves(heard.waits)
        self.spent = spent

    def __str__(self) -> str:
        cores = ", ".join(f"{name} {one.cpu:.2f}" for name, one in self.spent.items())
        held = ", ".join(f"{name} {one.megabytes:.0f}" for name, one in self.spent.items())
        cells = (f"{self.rate:,.0f}", *self.all, *self.first, *self.waits, cores, held)
        return f"| {self.what} | {' | '.join(cells)} |"


def _halves(late: Sequence[float]) -> tuple[str, str]:
    if not late:
        return "–", "–"
    return f"{1000 * percentile(late, 0.5):.1f}", f"{1000 * percentile(late, 0.99):.1f}"


async def start_host(stack: Stack, config: str) -> None:
    """Start a host, and return once it is heard of."""
    await stack.start_part("host", config)
    bus = await open_bus(stack.server.url)
    try:
        async with asyncio.timeout(30):
            while not await read_nodes(bus):  # noqa: ASYNC110
                await asyncio.sleep(EVERY / 10)
    finally:
        await bus.link.close()


async def count(stack: Stack, what: str, heard: Heard, seconds: float) -> Row:
    """Let what has begun go on for a while, and note how late it comes."""
    await asyncio.sleep(SETTLE)
    heard.all.clear()
    meter = Meter(stack)
    await asyncio.sleep(seconds)
    return Row(what, heard, seconds, meter.read())


async def measure_runs(given: argparse.Namespace, streams: int) -> Row:
    """From the worker's yield to a client of the bus: what the runtime takes."""
    async with stacked(data=given.data) as stack:
        await start_host(stack, CONFIG)
        bus, heard = await open_bus(stack.server.url), Heard()
        try:
            listen_to_bus(bus, "live.event.stream.*", heard)
            topics = [Topic("stream", f"s{n}") for n in range(streams)]
            pieces = int(given.rate * (given.seconds + SETTLE + 1))
            await start_runs(bus, topics, given.rate, pieces)
            what = f"{streams} runs at {given.rate:g}/s, heard on the bus"
            return await count(stack, what, heard, given.seconds)
        finally:
            await bus.link.close()


async def measure_followers(given: argparse.Namespace) -> Row:
    """One stream, and very many who follow it through an edge."""
    async with stacked(data=given.data) as stack:
        await start_host(stack, CONFIG)
        port = await stack.start_part("edge", "[edge]\nmax_connections = 20000\n")
        await wait_until_served(f"http://127.0.0.1:{port}/health")
        bus, heard = await open_bus(stack.server.url), Heard()
        try:
            request = FOLLOW.format(port=port).encode()
            few = asyncio.Semaphore(AT_ONCE)

            async def follow() -> None:
                async with few:
                    await open_ear(port, request, heard, every=False)

            await asyncio.gather(*(follow() for _ in range(given.followers)))
            pieces = int(given.rate * (given.seconds + SETTLE + 1))
            await start_runs(bus, [LOG], given.rate, pieces)
            what = f"{given.followers} followers of one stream at {given.rate:g}/s, by SSE"
            return await count(stack, what, heard, given.seconds)
        finally:
            await bus.link.close()


async def measure(given: argparse.Namespace) -> None:
    """Measure what was asked for, and print a line for each."""
    gc.freeze()
    print(HEADING, "|---" * 10 + "|", sep="\n", flush=True)
    if "runs" in given.only:
        for streams in given.streams:
            print(await measure_runs(given, streams), flush=True)
    if "followers" in given.only:
        print(await measure_followers(given), flush=True)
    for clients in given.streams if "answers" in given.only else []:
        async for row in compare(given, clients):
            print(row, flush=True)


async def compare(given: argparse.Namespace, clients: int) -> AsyncIterator[Row]:
    """The same answers directly, through us, and through LiteLLM if it is there."""
    how = (clients, given.rate, given.seconds, given.data)
    ways: list[tuple[str, Awaitable[Found]]] = [
        ("the fake itself", ask_directly(*how)),
        ("our edge", ask_us(*how)),
    ]
    if program := find_litellm(given.litellm):
        ways.append(("LiteLLM", ask_litellm(program, *how)))
    for who, asking in ways:
        found = await asking
        missing = f", {found.refused} refused" if found.refused else ""
        what = f"{clients} answers at {given.rate:g}/s from {who}{missing}"
        yield Row(what, found.heard, given.seconds, found.spent)


def main() -> int:
    """Read the arguments and run."""
    kinds = ("runs", "followers", "answers")
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--streams", nargs="+", type=int, default=[100, 500], help="at once")
    parser.add_argument("--rate", type=float, default=20.0, help="tokens per second of each")
    parser.add_argument("--followers", type=int, default=1000, help="of one stream")
    parser.add_argument("--seconds", type=float, default=10.0, help="that each lasts")
    parser.add_argument("--litellm", default="", metavar="FILE", help="its command; see README")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the stores go")
    given = parser.parse_args()
    configure(level="error")
    print("\n".join(describe(given.data)), "", sep="\n", flush=True)
    run(measure(given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
