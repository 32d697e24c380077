"""One run of the chaos test, from an empty store to a verdict."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from runtime.bus import Bus
from runtime.connection import Packet
from runtime.errors import BusFault
from tests.chaos.conductor import ASKER_POINTS, HOST_POINTS, Conductor, Faults, Site
from tests.chaos.delays import describe, read_waits, time_to_serve
from tests.chaos.follower import Follower
from tests.chaos.history import History, Journal
from tests.chaos.load import Amount, Load
from tests.chaos.processes import Process, count_events, unexpected
from tests.chaos.relay import Relayed
from tests.chaos.servers import Servers
from tests.chaos.verdict import Log, judge, read_log

PINNED = "$JS.EVENT.ADVISORY.CONSUMER.PINNED.>"
EXTRA = 40.0
"""Seconds beyond the plan for crash points that were not reached."""
QUIET_WITHIN = 90.0
SURE_AFTER = 3
BROKEN = 0.8
"""The share of the load under which things are broken. Then it must come to its end."""


@dataclass(frozen=True)
class Plan:
    """How much of everything; `asked` are requests whose answers are checked.

    `sent` are tasks that are sent through edges, if there are any.
    """

    seconds: float
    entries: int
    asked: int
    faults: Faults
    hosts: int = 2
    edges: int = 0
    sent: int = 0

    def times(self, factor: float) -> "Plan":
        """The same, for longer, with half as many faults in the same time.

        A server takes seconds to read its store again when it has grown.
        """
        return replace(
            self,
            seconds=self.seconds * factor,
            entries=round(self.entries * factor),
            asked=round(self.asked * factor),
            sent=round(self.sent * factor),
            faults=self.faults.times(factor / 2),
        )


@dataclass
class Outcome:
    """What was done, and what was wrong."""

    counts: dict[str, int | float | str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Ordeal:
    """Load, faults, quiet, another crash, and the verdict."""

    def __init__(self, plan: Plan, seed: int, folder: Path, servers: Servers) -> None:
        self.outcome = Outcome()
        self._plan = plan
        self._seed = seed
        self._history = History()
        self._journal = Journal(folder / "asker.jsonl")
        site = Site(servers, folder, plan.hosts, plan.edges)
        self._conductor = Conductor(site, random.Random(seed), plan.faults.points)
        self._takeovers = 0
        self._quiet_after = 0.0
        self._relayed: Relayed | None = None

    async def run(self) -> Outcome:
        """Do it all; what is wrong is in the outcome, never raised."""
        try:
            async with self._started() as (clients, observer, reader):
                followers = [Follower(bus, "event.ledger.*") for bus in (clients, reader)]
                async with asyncio.timeout(self._plan.seconds + EXTRA + QUIET_WITHIN):
                    await self._break_under_load(clients)
                await self._be_quiet(observer, "the load")
                await self._crash_once_more(observer)
                await self._end(observer, followers)
        except TimeoutError as late:
            self.outcome.wrong.append(str(late) or self._what_did_not_end())
        self.outcome.wrong = self._conductor.wrong + self.outcome.wrong
        return self.outcome

    async def _end(self, observer: Bus, followers: list[Follower]) -> None:
        for follower in followers:
            await follower.stop()
        if self._relayed:
            await self._relayed.stop(observer)
        codes = await self._conductor.leave()
        if any(codes):
            self.outcome.wrong.append(f"processes that were asked to leave ended with {codes}")
        await self._judge(await read_log(observer), followers)

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[tuple[Bus, Bus, Bus]]:
        conductor = self._conductor
        try:
            await conductor.start()
            async with (
                _closing(await conductor.open_bus(conductor.client_line)) as clients,
                _closing(await conductor.open_bus(conductor.quiet_line, "admin")) as observer,
                _closing(await conductor.open_bus(conductor.bad_line)) as reader,
            ):
                observer.subscribe(PINNED, self._count_takeover)
                yield clients, observer, reader
        finally:
            await conductor.stop()

    def _count_takeover(self, packet: Packet) -> None:
        self._takeovers += 1

    def _what_did_not_end(self) -> str:
        known = self._history.operations.values()
        waiting = [one.id for one in known if one.how == "tell" and one.unknowns and not one.ended]
        answered = sum(line["what"] == "ok" for line in self._journal.read())
        sent = len(self._relayed.sender.accepted) if self._relayed else 0
        return (
            f"the load did not end: {sum(one.outcome == 'ok' for one in known)} entries of"
            f" {self._plan.entries} are acknowledged, {len(waiting)} are in doubt,"
            f" {answered} answers came of {self._plan.asked}, {sent} tasks of {self._plan.sent}"
        )

    # -- the load --------------------------------------------------------------------------

    async def _break_under_load(self, clients: Bus) -> None:
        plan, conductor = self._plan, self._conductor
        chance = random.Random(f"{self._seed} load")
        load = Load(clients, self._history, chance, Amount(plan.entries, plan.seconds))
        conductor.burst = load.burst
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            group.create_task(self._ask())
            if plan.edges:
                self._relayed = Relayed(conductor.site.urls, chance)
                group.create_task(self._relayed.sender.run(plan.sent, plan.seconds))
            await conductor.break_things(plan.faults, plan.seconds * BROKEN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXTRA):
                    await conductor.finish_crashing()
            conductor.calm()
            load.enough.set()

    async def _ask(self) -> None:
        """Run the asker until it is through; it crashes once on the way."""
        crash = f"{ASKER_POINTS[0]}:{self._plan.asked // 4}"
        while True:
            asker = self._asker(crash)
            await asker.start()
            try:
                code = await asker.wait()
            except asyncio.CancelledError:
                await asker.kill()
                raise
            if not asker.crashed:
                break
            self._conductor.counts[f"crash at {ASKER_POINTS[0]}"] += 1
            crash = ""
        if code:
            self._conductor.wrong.append(f"the asker ended with code {code}")

    def _asker(self, crash: str) -> Process:
        site = self._conductor.site
        arguments = [
            "tests.chaos.asker",
            self._conductor.client_line.url,
            str(site.folder / "asker.jsonl"),
            str(self._seed),
            str(self._plan.asked),
            str(self._plan.seconds),
            str(site.servers.replicas),
        ]
        log, environment = site.folder / "asker.log", site.servers.environment
        return Process("asker", log, arguments, crash=crash, environment=environment)

    # -- quiet -----------------------------------------------------------------------------

    async def _be_quiet(self, observer: Bus, after: str) -> None:
        """Wait until nothing waits, nothing is under way, and nothing is to come."""
        began = time.monotonic()
        try:
            await until_quiet(observer, QUIET_WITHIN)
        except TimeoutError as late:
            raise TimeoutError(f"after {after}: {late}") from None
        self._quiet_after = max(self._quiet_after, round(time.monotonic() - began, 1))

    async def _crash_once_more(self, observer: Bus) -> None:
        """All that was acknowledged may come again now, and nothing may come of it."""
        before = await _last_sequence(observer)
        await self._conductor.crash_everything()
        await self._be_quiet(observer, "the last crash")
        if (after := await _last_sequence(observer)) != before:
            self.outcome.wrong.append(f"{after - before} messages came of a crash at rest")

    # -- the verdict -----------------------------------------------------------------------

    async def _judge(self, log: Log, followers: list[Follower]) -> None:
        wrong = self._journal.replay(self._history)
        logged = count_events(self._conductor.logs)
        self._count(log, followers, logged)
        wrong += judge(log, self._history, followers)
        wrong += self._relayed.check() if self._relayed else []
        wrong += unexpected(logged)
        self.outcome.wrong += wrong + self._check_plan()

    def _count(self, log: Log, followers: list[Follower], logged: Counter[str]) -> None:
        kinds = Counter(mail.body["data"]["type"] for mail in log.mail)
        known = self._history.count()
        self.outcome.counts = {
            "entries acknowledged": known["tell ok"],
            "entries left unknown": known["tell unknown"],
            "requests answered": known["ask ok"],
            "tries of unknown outcome": known["unknown tries"],
            "messages applied": sum(len(told) for told in log.events.values()),
            "transfers": kinds["ledger.transfer"],
            "reminders": kinds["ledger.tick"] + kinds["ledger.tock"],
            "reminders dropped": logged["message reminder_dropped"],
            "jobs": len(log.jobs),
            "attempts superseded": sum(b["type"] == "run.superseded" for _, b in log.songs),
            "dead letters": len(log.dead),
            "seen again": logged["message seen"],
            "conflicts": logged["record_conflict"],
            "takeovers": self._takeovers,
            **dict(sorted(self._conductor.counts.items())),
            "server's messages lost": self._conductor.lost,
            "connections made": self._conductor.accepted,
            "events heard live": sum(follower.live for follower in followers),
            "events read from the log": sum(follower.read for follower in followers),
            **(self._relayed.count() if self._relayed else {}),
            "a killed host's keys served again after": describe(self._times_to_serve(log)),
            "messages waited": describe([wait.seconds for wait in read_waits(log)]),
            "longest gap in seconds": _longest_gap(log),
            "seconds until quiet": self._quiet_after,
        }

    def _times_to_serve(self, log: Log) -> list[float]:
        return time_to_serve(log, self._conductor.kills, self._conductor.logs)

    def _check_plan(self) -> list[str]:
        """What was done less often than planned makes the run worth nothing."""
        plan, counts = self._plan, self.outcome.counts
        planned: dict[str, int] = {
            "entries acknowledged": plan.entries,
            "requests answered": plan.asked,
            **plan.faults.kinds,
            **{f"crash at {point}": plan.faults.points for point in HOST_POINTS},
            **{f"crash at {point}": 1 for point in ASKER_POINTS},
            "events heard live": 1,
            "events read from the log": 1,
            "seen again": 1,
            # Who holds a run and dies is followed by another attempt, unless the run is stopped
            # before that; of several, one is not.
            "attempts superseded": plan.faults.points // SURE_AFTER,
        }
        return [
            f"{name}: {counts.get(name, 0)}, planned were {least}"
            for name, least in planned.items()
            if int(counts.get(name, 0)) < least
        ]


@asynccontextmanager
async def _closing(bus: Bus) -> AsyncIterator[Bus]:
    try:
        yield bus
    finally:
        await bus.link.close()


async def until_quiet(bus: Bus, timeout: float) -> None:
    """Wait until nothing is left to be done; raises TimeoutError with what is."""
    left = "nothing was heard"
    try:
        async with asyncio.timeout(timeout):
            while True:
                left = await what_is_left(bus)
                if not left:
                    return
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise TimeoutError(f"not quiet within {timeout:g} s: {left}") from None


async def what_is_left(bus: Bus) -> str:
    """What is still to be done, in words; nothing if all is quiet."""
    try:
        before = await _last_sequence(bus)
        timers = await bus.lasts("timer.>")
        answer = await bus.api(f"CONSUMER.LIST.{bus.stream}", {"offset": 0})
        after = await _last_sequence(bus)
    except BusFault as fault:
        return f"the server does not answer: {fault}"
    waiting = [
        f"{one['name']}: {one['num_pending']} wait, {one['num_ack_pending']} are under way"
        for one in answer["consumers"]
        if one["num_pending"] or one["num_ack_pending"]
    ]
    waiting += [f"{timer.subject} is to come" for timer in timers]
    # One of them may have become another while they were looked at.
    waiting += [f"message {after} has just come"] if after != before else []
    return "; ".join(waiting)


async def _last_sequence(bus: Bus) -> int:
    info = await bus.api(f"STREAM.INFO.{bus.stream}")
    return int(info["state"]["last_seq"])


def _longest_gap(log: Log) -> float:
    """The longest time under load in which nothing was applied anywhere."""
    told = [row for rows in log.events.values() for row in rows]
    end = max(stored.time for stored, body in told if body["data"]["kind"] == "enter")
    times = sorted(stored.time for stored, _ in told if stored.time <= end)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    return round(max(gaps, default=0), 1)
