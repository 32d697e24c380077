"""Runs servers, hosts and edges, and breaks them: by a seeded schedule, and at named points.

Everything that may be connected to is a free port of loopback; everything that is ended was
started here.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.errors import BusFault
from runtime.streams import ensure_streams
from tests.chaos.faults import HOST_POINTS, Faults, Kill
from tests.chaos.lines import Line
from tests.chaos.processes import Process, Setting
from tests.chaos.servers import Servers
from tests.cluster import free_ports
from tests.integration.waiting import until

STALLED = 5.0
"""Seconds of silence on a line: longer than a pin lives, and than a doubt takes."""
FROZEN = 3.0
"""Seconds for which a host stands still: longer than a pin lives."""
DEAD_AND_BACK = 33.0
"""Seconds after which a host that stood still finds that all it held was given to others."""
READY_WITHIN = 30.0

REFUSALS = (b'"err_code":10071', b'"err_code":10164')
"""What the server answers to a commit whose record or run somebody else has written."""
LOST_BY_CLIENTS = 0.01
LOST_BY_HOSTS = 0.0005
"""The share of the server's messages that never arrive, although the connection stays."""


@dataclass
class Site:
    """What stands on the servers: how many hosts and edges, and where they keep their logs."""

    servers: Servers
    folder: Path
    hosts: int = 2
    edges: int = 0
    ports: list[int] = field(default_factory=list)
    """Where the edges listen, however often they are started."""

    @property
    def urls(self) -> list[str]:
        """Where clients of the edges go."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    @property
    def setting(self) -> Setting:
        """How processes are configured."""
        return Setting(self.folder, self.servers.replicas, self.servers.environment)


class Conductor:
    """Servers, and a line to them for each host and edge, for the clients, and a bad one."""

    def __init__(self, site: Site, chance: random.Random, points: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self.burst: Callable[[], Coroutine[Any, Any, None]] | None = None
        """What brings much at once, for faults that are to find a host busy."""
        self.site = site
        self.hosts: list[Process] = []
        self.edges: list[Process] = []
        self.logs: list[Path] = []
        self.kills: list[Kill] = []
        self.wrong: list[str] = []
        self.points = [point for _ in range(points) for point in HOST_POINTS]
        """Where hosts are still to crash."""
        self._lines: list[Line] = []
        self._chance = chance
        self._losing = True
        self._broken = 0
        """How many things are broken besides hosts that were killed."""
        self._closing = False
        self._rolling = False
        self._stack = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._alone = asyncio.Lock()
        """Held while a server is broken: the next may only be when it is back."""
        chance.shuffle(self.points)

    @property
    def client_line(self) -> Line:
        """Where clients connect, so that their connections are cut too."""
        return self._lines[-3]

    @property
    def bad_line(self) -> Line:
        """A line that is cut all the time while things are broken."""
        return self._lines[-2]

    @property
    def quiet_line(self) -> Line:
        """A line that nobody touches, for whoever watches."""
        return self._lines[-1]

    @property
    def dealt(self) -> int:
        """How many faults so far, kills and crashes among them."""
        kinds = self.counts.keys() - {"refusals by the broker"}
        return sum(self.counts[kind] for kind in kinds)

    @property
    def lost(self) -> int:
        """Messages of servers that nobody got."""
        return sum(line.lost for line in self._lines)

    @property
    def accepted(self) -> int:
        """Connections so far."""
        return sum(line.accepted for line in self._lines)

    async def start(self) -> None:
        """Start the servers, the lines to them, the hosts and the edges."""
        site = self.site
        await site.servers.start()
        site.ports = site.ports or free_ports(site.edges)
        for _ in range(site.hosts + site.edges + 3):
            self._lines.append(await self._stack.enter_async_context(Line(site.servers.ports)))
        self._heal_all()
        for place in range(site.hosts):
            self.hosts.append(await self._start_host(place, crash=""))
        for place in range(site.edges):
            self.edges.append(await self._start_edge(place))

    async def stop(self) -> None:
        """End whatever is still there."""
        self._closing = True
        for process in (*self.hosts, *self.edges):
            await process.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()
        await self.site.servers.stop()

    async def open_bus(self, line: Line, user: str = "edge") -> Bus:
        """A connection of a client, once the streams are there."""
        link = Connection(line.url.split(","), **self.site.servers.login(user))
        await link.open()
        bus = Bus(link)
        while True:
            try:
                await ensure_streams(bus, replicas=self.site.servers.replicas)
                return bus
            except BusFault:
                await asyncio.sleep(0.2)

    # -- processes -------------------------------------------------------------------------

    @property
    def crashing(self) -> bool:
        """Whether a host is still to crash somewhere."""
        return bool(self.points) or any(process.crash for process in self.hosts)

    async def _start_host(self, place: int, crash: str) -> Process:
        name = f"host-{len(self.logs) + 1}"
        process = self.site.setting.host(name, self._lines[place].url, crash=crash)
        await self._start_process(process, self._watch(place, process))
        return process

    async def _start_edge(self, place: int) -> Process:
        name = f"edge-{len(self.logs) + 1}"
        url = self._lines[self.site.hosts + place].url
        process = self.site.setting.edge(name, url, self.site.ports[place])
        await self._start_process(process, self._watch_edge(place, process))
        return process

    async def _start_process(self, process: Process, watch: Coroutine[Any, Any, None]) -> None:
        await process.start()
        self.logs.append(process.log)
        self.do_later(watch)

    def _next_crash(self) -> str:
        if not self.points or self._rolling:
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
            self._note_kill(process)
        else:
            self.wrong.append(f"{process.name} ended by itself with code {code}")
        self.hosts[place] = await self._start_host(place, crash)

    async def _watch_edge(self, place: int, process: Process) -> None:
        code = await process.wait()
        if self._closing:
            return
        if not process.ended_by_us:
            self.wrong.append(f"{process.name} ended by itself with code {code}")
        self.edges[place] = await self._start_edge(place)

    async def finish_crashing(self) -> None:
        """Go on until hosts have crashed wherever they were to."""
        while self.crashing:
            if not any(process.crash for process in self.hosts):
                await self._kill()
            await asyncio.sleep(0.5)

    def do_later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside, until it ends or all is stopped; what it raises is wrong."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.wrong.append(f"the conductor itself failed: {error!r}")

    # -- faults ----------------------------------------------------------------------------

    async def break_things(self, faults: Faults, seconds: float) -> None:
        """Do everything on the schedule, spread over so many seconds."""
        self.do_later(self._keep_cutting(self.bad_line, seconds))
        schedule = faults.schedule(self._chance)
        loop = asyncio.get_running_loop()
        began = loop.time()
        done = []
        for place, fault in enumerate(schedule, 1):
            due = began + seconds * (place - self._chance.random() / 2) / len(schedule)
            await asyncio.sleep(due - loop.time())
            done.append(self.do_later(self._break(fault)))
        await asyncio.wait(done)

    async def _break(self, fault: str) -> None:
        of_servers = self.site.servers.faults
        if fault == "kill":
            await self._kill()
        elif fault in of_servers:
            async with self._alone:
                await self._break_for_a_while(of_servers[fault])
        else:
            await self._break_for_a_while(getattr(self, f"_{fault}"))
        self.counts[fault] += 1

    async def _break_for_a_while(self, fault: Callable[[], Awaitable[None]]) -> None:
        self._broken += 1
        try:
            await fault()
        finally:
            self._broken -= 1

    async def _kill(self) -> None:
        process = self._chance.choice(self.hosts)
        self._note_kill(process)
        await process.kill()

    def _note_kill(self, process: Process) -> None:
        self.kills.append(Kill(time.time(), process.name, alone=not self._broken))

    async def _edge_kill(self) -> None:
        await self._chance.choice(self.edges).kill()

    async def _keep_cutting(self, line: Line, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await asyncio.sleep(self._chance.uniform(0.5, 1.5))
                    line.cut()

    @property
    def _breakable(self) -> list[Line]:
        """Every line but the one that is cut all the time, and the quiet one."""
        return self._lines[:-2]

    async def _cut(self) -> None:
        lines = self._breakable
        for line in self._chance.sample(lines, self._chance.randint(1, len(lines))):
            line.cut()

    async def _stall(self) -> None:
        """Nothing gets through for a while, or only what the server is told."""
        await self._make_busy()
        line = self._chance.choice(self._breakable)
        self._chance.choice((line.hold, line.swallow, line.close))()
        await asyncio.sleep(STALLED)
        self._heal(line)

    def calm(self) -> None:
        """From now on nothing is lost on the way, so that what is under way can end."""
        self._losing = False
        self._heal_all()

    def _heal_all(self) -> None:
        for line in self._lines:
            self._heal(line)

    def _heal(self, line: Line) -> None:
        """Let everything through again, but for a message now and then."""
        line.heal()
        if line is self.quiet_line:
            return
        rate = LOST_BY_CLIENTS if line in (self.client_line, self.bad_line) else LOST_BY_HOSTS
        line.lose(lambda message: self._passes_by(message) and self._chance.random() < rate)

    def _passes_by(self, message: bytes) -> bool:
        """Look at what the server says; True if it may be lost."""
        if any(code in message for code in REFUSALS):
            self.counts["refusals by the broker"] += 1
        # A page that was read is brought whole by TCP, or the connection ends.
        return self._losing and b"Nats-Num-Pending" not in message

    async def _make_busy(self) -> None:
        """Return in the middle of a burst."""
        if self.burst is not None:
            self.do_later(self.burst())
            await asyncio.sleep(self._chance.uniform(0.01, 0.15))

    async def _freeze(self) -> None:
        await self._stand_still(FROZEN)

    async def _zombie(self) -> None:
        await self._stand_still(DEAD_AND_BACK)

    async def _stand_still(self, seconds: float) -> None:
        await self._make_busy()
        process = self._chance.choice(self.hosts)
        process.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        process.send(signal.SIGCONT)

    async def _blackout(self) -> None:
        await self.crash_everything()

    async def crash_everything(self) -> None:
        """Kill the servers and every host at once, and start them again."""
        async with self._alone:
            await self.site.servers.kill()
            for process in list(self.hosts):
                await process.kill()
            await self.site.servers.start()

    # -- leaving in order ------------------------------------------------------------------

    async def roll_hosts(self) -> None:
        """Ask one host after another to leave, the next once its successor is there."""
        self._rolling = True
        for place in range(len(self.hosts)):
            await self._replace(self.hosts, place, "host_ready")
        self._rolling = False

    async def roll_edges(self) -> None:
        """The same with the edges."""
        for place in range(len(self.edges)):
            await self._replace(self.edges, place, "edge_ready")

    async def _replace(self, processes: list[Process], place: int, ready: str) -> None:
        old = processes[place]
        if code := await old.terminate():
            self.wrong.append(f"{old.name} was asked to leave and ended with {code}")
        await until(lambda: processes[place] is not old, READY_WITHIN)
        await processes[place].say(ready, timeout=READY_WITHIN)

    async def leave(self) -> list[int]:
        """Ask every host and edge to leave, once it is there; returns their exit codes."""
        self._closing = True
        for process in self.hosts:
            await process.say("host_ready", timeout=READY_WITHIN)
        for process in self.edges:
            await process.say("edge_ready", timeout=READY_WITHIN)
        return [await process.terminate() for process in (*self.edges, *self.hosts)]
