"""Customers and agents around one edge: what the measurements of customer service share."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.ours import open_bus
from bench.relay import find_free_port
from bench.stack import Stack, stacked, wait_until_served
from bench.table import percentile
from bench.talk import Site, Stream
from runtime.bus import Bus

PATIENCE = 60.0
CHAT = "/api/chat"
STREAM = "/api/chat/stream"
ESCALATE = "/api/manual/escalate"
SAY = "/api/manual/messages"
QUEUE = "/api/agent/events"
LIMITS = """
[edge]
max_connections = 20000
[edge.support]
models = ["bot"]
user_rate = 1000000
vip_rate = 1000000
streams_per_user = 1000
streams = 20000
"""
ACTORS = """
[[actor]]
name = "session"
type = "actors.session:Session"
[[actor]]
name = "batch"
type = "actors.batch:Batch"
[[actor]]
name = "desk"
type = "actors.desk:Desk"
[[actor]]
name = "human_agent"
type = "actors.human_agent:HumanAgent"
[[actor]]
name = "bot"
type = "actors.model:Model"
concurrency = 1000
options = {{ provider = "openai", model = "{asked}", upstreams = [{{ url = "{upstream}" }}] }}
"""
ERROR = re.compile(r"^.*\[(?:error|critical) *\].*$", re.M)


@dataclass
class Row:
    """Seconds of one kind, and what they ought to be; `failed` counts what came to nothing."""

    what: str
    promises: str = ""
    aims: Sequence[tuple[str, float]] = ()
    """`average`, `p50` or `p99`, and below how many milliseconds it is to be."""
    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    load: str = ""

    def figures(self) -> dict[str, float]:
        """Milliseconds, by what they are."""
        if not self.seconds:
            return {}
        return {
            "average": 1000 * sum(self.seconds) / len(self.seconds),
            "p50": 1000 * percentile(self.seconds, 0.5),
            "p99": 1000 * percentile(self.seconds, 0.99),
        }

    def verdict(self) -> str:
        """Whether it is as it ought to be."""
        if not self.aims and not self.promises:
            return "–"
        found = self.figures()
        held = bool(found) and all(found[name] < most for name, most in self.aims)
        return "held" if held and not self.failed else "MISSED"

    def __str__(self) -> str:
        figures = [f"{value:.1f}" for value in self.figures().values()] or ["–"] * 3
        none = "none failed" if self.promises else "–"
        aims = ", ".join(f"{name} < {most:g}" for name, most in self.aims) or none
        counts = (str(len(self.seconds)), str(self.failed))
        cells = (self.what, self.promises, *counts, *figures, aims, self.verdict(), self.load)
        return f"| {' | '.join(cells)} |"


class Town:
    """A stack with one host, one edge and a fake upstream, and who talks to it."""

    def __init__(self, stack: Stack, site: Site, bus: Bus) -> None:
        self.stack = stack
        self.site = site
        self.bus = bus
        self.streams: list[Stream] = []

    async def follow(self, path: str, hear: Any, body: Any = None) -> Stream:
        """Open a stream that lasts as long as the town. Raises RuntimeError if it is refused."""
        stream = await self.site.follow(path, hear, body)
        self.streams.append(stream)
        if stream.status != 200:
            raise RuntimeError(f"{path}: {stream.status}")
        return stream

    async def hand_over(self, session: str, agent: str) -> None:
        """Have a person take a session."""
        await self.site.tell(ESCALATE, session_name=session)
        await self.site.tell(f"/api/sessions/{session}/takeover", agent_id=agent, agent_name=agent)

    def errors(self) -> list[str]:
        """What host and edge have logged as errors, which is all that they log."""
        logs = (Path(self.stack.folder, f"{part}.log") for part in ("host", "edge"))
        return [line for log in logs for line in ERROR.findall(log.read_text(errors="replace"))]

    async def close(self) -> None:
        """Send everybody away."""
        for stream in self.streams:
            stream.close()
        self.site.close()
        await self.bus.link.close()


@asynccontextmanager
async def open_town(data: Path | None, asked: str) -> AsyncIterator[Town]:
    """A town whose upstream is asked for a model like this (docs/fakes.md)."""
    async with stacked(data=data) as stack:
        upstream = find_free_port()
        await stack.start("fake", "-m", "runtime", "fake", "openai", "--port", str(upstream))
        await wait_until_served(f"http://127.0.0.1:{upstream}/v1/models")
        url = f"http://127.0.0.1:{upstream}/v1"
        config = LIMITS + ACTORS.format(asked=asked, upstream=url)
        await stack.start_part("host", config)
        port = await stack.start_part("edge", config)
        # This process takes its share of the processor as well.
        stack.pids["driver"] = os.getpid()
        await wait_until_served(f"http://127.0.0.1:{port}/health")
        town = Town(stack, Site(port), await open_bus(stack.server.url))
        try:
            await _wait_for_bot(town.site)
            yield town
        finally:
            await town.close()


async def _wait_for_bot(site: Site) -> None:
    """Wait until a message is answered; raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answered = await site.ask("POST", CHAT, {"message": "hello", "user_id": "first"})
            if answered.status == 200:
                return
            await asyncio.sleep(0.2)


async def in_turn(work: Iterable[Coroutine[Any, Any, Any]], at_once: int) -> list[Any]:
    """Do all of it, so many at once; returns what came of each, in order."""
    few = asyncio.Semaphore(at_once)

    async def do(one: Coroutine[Any, Any, Any]) -> Any:
        async with few:
            return await one

    return await asyncio.gather(*(do(one) for one in work))
