"""Runs a server and hosts, and breaks them: by a seeded schedule, and at named points.

Everything that may be connected to is a free port of loopback; everything that is ended was
started here.
"""

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.crash import POINTS
from runtime.errors import BusFault
from runtime.server import EmbeddedServer
from runtime.streams import ensure_streams
from tests.chaos.processes import Process, host
from tests.proxy import Proxy

HOSTS = 2
ASKER_POINTS = ("edge.published",)
HOST_POINTS = tuple(point for point in POINTS if point not in ASKER_POINTS)
STALLED = 5.0
"""Seconds of silence on a line: longer than a pin lives, and than a doubt takes."""
FROZEN = 3.0
"""Seconds for which a host stands still: longer than a pin lives."""

REFUSALS = (b'"err_code":10071', b'"err_code":10164')
"""What the server answers to a commit whose record or run somebody else has written."""
LOST_BY_CLIENTS = 0.01
LOST_BY_HOSTS = 0.0005
"""The share of the server's messages that never arrive, although the connection stays."""


@dataclass(frozen=True)
class Faults:
    """How many of each kind, besides `rounds` crashes at every point."""

    kills: int
    cuts: int
    server_kills: int
    stalls: int
    freezes: int
    blackouts: int
    rounds: int

    def schedule(self, chance: random.Random) -> list[str]:
        """What happens, one after another."""
        kinds = {
            "kill": self.kills,
            "cut": self.cuts,
            "server_kill": self.server_kills,
            "stall": self.stalls,
            "freeze": self.freezes,
            "blackout": self.blackouts,
        }
        schedule = [kind for kind, count in kinds.items() for _ in range(count)]
        chance.shuffle(schedule)
        return schedule


class Conductor:
    """One server, and lines to it: one for each host, one for the clients, and a bad one."""

    def __init__(self, folder: Path, chance: random.Random, rounds: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self.burst: Callable[[], Coroutine[Any, Any, None]] | None = None
        """What brings much at once, for faults that are to find a host busy."""
        self.folder = folder
        self.server = EmbeddedServer(folder / "store")
        self.hosts: list[Process] = []
        self.lines: list[Proxy] = []
        self.logs: list[Path] = []
        self.wrong: list[str] = []
        self.points = [point for _ in range(rounds) for point in HOST_POINTS]
        """Where hosts are still to crash."""
        self._chance = chance
        self._armed = 0
        self._closing = False
        self._stack = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        chance.shuffle(self.points)

    @property
    def client_line(self) -> Proxy:
        """Where clients connect, so that their connections are cut too."""
        return self.lines[HOSTS]

    @property
    def bad_line(self) -> Proxy:
        """A line that is cut all the time while things are broken."""
        return self.lines[HOSTS + 1]

    async def start(self) -> None:
        """Start the server, the lines to it, and the hosts."""
        await self.server.start()
        for _ in range(HOSTS + 2):
            line = Proxy(self.server.port)
            self.lines.append(await self._stack.enter_async_context(line))
            self._heal(line)
        for place in range(HOSTS):
            self.hosts.append(await self._start_host(place, crash=""))

    async def stop(self) -> None:
        """End whatever is still there."""
        self._closing = True
        for process in self.hosts:
            await process.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()
        await self.server.stop()

    async def open_bus(self, url: str) -> Bus:
        """A connection of a client."""
        link = Connection([url])
        await link.open()
        bus = Bus(link)
        while True:
            try:
                await ensure_streams(bus)
                return bus
            except BusFault:
                await asyncio.sleep(0.2)

    # -- hosts -----------------------------------------------------------------------------

    @property
    def crashing(self) -> bool:
        """Whether a host is still to crash somewhere."""
        return bool(self.points) or any(process.crash for process in self.hosts)

    async def _start_host(self, place: int, crash: str) -> Process:
        name = f"host-{len(self.logs) + 1}"
        process = host(name, self.folder, self.lines[place].url, crash=crash)
        await process.start()
        self.logs.append(process.log)
        self._do_later(self._watch(place, process))
        return process

    def _next_crash(self) -> str:
        if not self.points:
            return ""
        point = self.points.pop(0)
        most = 3 if point.startswith("job") else 40
        return f"{point}:{self._chance.randint(1, most)}"

    async def _watch(self, place: int, process: Process) -> None:
        """Start another host where one has ended; only we or a crash point may end it.

        One that we killed is followed by one that will crash, so that kills and crashes take
        turns and leave time between them.
        """
        code = await process.wait()
        if self._closing:
            return
        point = process.crash.partition(":")[0]
        crash = ""
        if process.ended_by_us:
            self.points += [point] if point else []
            crash = self._next_crash()
        elif process.crashed:
            self.counts[f"crash at {point}"] += 1
        else:
            self.wrong.append(f"{process.name} ended by itself with code {code}")
        self.hosts[place] = await self._start_host(place, crash)

    async def finish_crashing(self) -> None:
        """Go on until hosts have crashed wherever they were to."""
        while self.crashing:
            if not any(process.crash for process in self.hosts):
                await self._kill()
            await asyncio.sleep(0.5)

    def _do_later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.wrong.append(f"the conductor itself failed: {error!r}")

    # -- faults ----------------------------------------------------------------------------

    async def break_things(self, faults: Faults, seconds: float) -> None:
        """Do everything on the schedule, spread over so many seconds."""
        self._do_later(self._keep_cutting(self.bad_line, seconds))
        schedule = faults.schedule(self._chance)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for place, fault in enumerate(schedule, 1):
            due = began + seconds * (place - self._chance.random() / 2) / len(schedule)
            await asyncio.sleep(due - loop.time())
            await getattr(self, f"_{fault}")()
            self.counts[fault] += 1

    async def _kill(self) -> None:
        await self._chance.choice(self.hosts).kill()

    async def _keep_cutting(self, line: Proxy, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await asyncio.sleep(self._chance.uniform(0.5, 1.5))
                    line.cut()

    async def _cut(self) -> None:
        lines = self.lines[: HOSTS + 1]
        for line in self._chance.sample(lines, self._chance.randint(1, len(lines))):
            line.cut()

    async def _server_kill(self) -> None:
        await self.server.kill()
        await asyncio.sleep(self._chance.uniform(0.05, 0.8))
        await self.server.start()

    async def _stall(self) -> None:
        """Nothing gets through for a while, or only what the server is told."""
        await self._make_busy()
        line = self._chance.choice(self.lines[: HOSTS + 1])
        self._chance.choice((line.hold, line.swallow))()
        self._do_later(_after(STALLED, lambda: self._heal(line)))

    def _heal(self, line: Proxy) -> None:
        """Let everything through again, but for a message now and then."""
        rate = LOST_BY_HOSTS if self.lines.index(line) < HOSTS else LOST_BY_CLIENTS
        line.heal()
        line.lose(lambda message: self._passes_by(message) and self._chance.random() < rate)

    def _passes_by(self, message: bytes) -> bool:
        """Look at what the server says; True if it may be lost."""
        if any(code in message for code in REFUSALS):
            self.counts["refusals by the broker"] += 1
        # A page that was read is brought whole by TCP, or the connection ends.
        return b"Nats-Num-Pending" not in message

    async def _make_busy(self) -> None:
        """Return in the middle of a burst."""
        if self.burst is not None:
            self._do_later(self.burst())
            await asyncio.sleep(self._chance.uniform(0.01, 0.15))

    async def _freeze(self) -> None:
        await self._make_busy()
        process = self._chance.choice(self.hosts)
        process.send(signal.SIGSTOP)
        self._do_later(_after(FROZEN, lambda: process.send(signal.SIGCONT)))

    async def _blackout(self) -> None:
        await self.crash_everything()

    async def crash_everything(self) -> None:
        """Kill the server and every host at once, and start them again."""
        await self.server.kill()
        for process in list(self.hosts):
            await process.kill()
        await self.server.start()

    async def leave(self) -> list[int]:
        """Ask every host to leave; returns their exit codes."""
        self._closing = True
        return [await process.terminate() for process in self.hosts]


async def _after(seconds: float, do: Any) -> None:
    await asyncio.sleep(seconds)
    do()
