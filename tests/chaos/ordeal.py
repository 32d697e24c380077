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
from tests.chaos.conductor import ASKER_POINTS, HOST_POINTS, Conductor, Faults
from tests.chaos.follower import Follower
from tests.chaos.history import History, Journal
from tests.chaos.load import Amount, Load
from tests.chaos.processes import Process, count_events, unexpected
from tests.chaos.verdict import Log, judge, read_log

PINNED = "$JS.EVENT.ADVISORY.CONSUMER.PINNED.>"
EXTRA = 40.0
"""Seconds beyond the plan for crash points that were not reached."""
QUIET_WITHIN = 90.0


@dataclass(frozen=True)
class Plan:
    """How much of everything; `asked` are requests whose answers are checked."""

    seconds: float
    entries: int
    asked: int
    faults: Faults

    def times(self, factor: float) -> "Plan":
        """The same, for longer, with half as many faults in the same time.

        A server takes seconds to read its store again when it has grown.
        """
        faults = {
            name: max(1, round(getattr(self.faults, name) * factor / 2))
            for name in Faults.__dataclass_fields__
        }
        return replace(
            self,
            seconds=self.seconds * factor,
            entries=round(self.entries * factor),
            asked=round(self.asked * factor),
            faults=Faults(**faults),
        )


@dataclass
class Outcome:
    """What was done, and what was wrong."""

    counts: dict[str, int | float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Ordeal:
    """Load, faults, quiet, another crash, and the verdict."""

    def __init__(self, plan: Plan, seed: int, folder: Path) -> None:
        self.outcome = Outcome()
        self._plan = plan
        self._seed = seed
        self._history = History()
        self._journal = Journal(folder / "asker.jsonl")
        self._conductor = Conductor(folder, random.Random(seed), plan.faults.rounds)
        self._takeovers = 0
        self._quiet_after = 0.0

    async def run(self) -> Outcome:
        """Do it all; what is wrong is in the outcome, never raised."""
        try:
            async with self._started() as (clients, observer, reader):
                followers = [Follower(bus, "event.ledger.*") for bus in (clients, reader)]
                async with asyncio.timeout(self._plan.seconds + EXTRA + QUIET_WITHIN):
                    await self._break_under_load(clients)
                await self._be_quiet(observer, "the load")
                await self._crash_once_more(observer)
                for follower in followers:
                    await follower.stop()
                await self._end_hosts()
                await self._judge(await read_log(observer), followers)
        except TimeoutError as late:
            self.outcome.wrong.append(str(late) or "the load did not end")
        self.outcome.wrong = self._conductor.wrong + self.outcome.wrong
        return self.outcome

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[tuple[Bus, Bus, Bus]]:
        conductor = self._conductor
        try:
            await conductor.start()
            async with (
                _closing(await conductor.open_bus(conductor.client_line.url)) as clients,
                _closing(await conductor.open_bus(conductor.server.url)) as observer,
                _closing(await conductor.open_bus(conductor.bad_line.url)) as reader,
            ):
                observer.subscribe(PINNED, self._count_takeover)
                yield clients, observer, reader
        finally:
            await conductor.stop()

    def _count_takeover(self, packet: Packet) -> None:
        self._takeovers += 1

    # -- the load --------------------------------------------------------------------------

    async def _break_under_load(self, clients: Bus) -> None:
        plan, conductor = self._plan, self._conductor
        chance = random.Random(f"{self._seed} load")
        load = Load(clients, self._history, chance, Amount(plan.entries, plan.seconds))
        conductor.burst = load.burst
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            group.create_task(self._ask())
            await conductor.break_things(plan.faults, plan.seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXTRA):
                    await conductor.finish_crashing()
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
        folder = self._conductor.folder
        arguments = [
            "tests.chaos.asker",
            self._conductor.client_line.url,
            str(folder / "asker.jsonl"),
            str(self._seed),
            str(self._plan.asked),
            str(self._plan.seconds),
        ]
        return Process("asker", folder / "asker.log", arguments, crash=crash)

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

    async def _end_hosts(self) -> None:
        codes = await self._conductor.leave()
        if any(codes):
            self.outcome.wrong.append(f"hosts that were asked to leave ended with {codes}")

    # -- the verdict -----------------------------------------------------------------------

    async def _judge(self, log: Log, followers: list[Follower]) -> None:
        wrong = self._journal.replay(self._history)
        logged = count_events(self._conductor.logs)
        self._count(log, followers, logged)
        wrong += judge(log, self._history, followers)
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
            "server's messages lost": sum(line.lost for line in self._conductor.lines),
            "connections made": sum(line.accepted for line in self._conductor.lines),
            "events heard live": sum(follower.live for follower in followers),
            "events read from the log": sum(follower.read for follower in followers),
            "longest gap in seconds": _longest_gap(log),
            "seconds until quiet": self._quiet_after,
        }

    def _check_plan(self) -> list[str]:
        """What was done less often than planned makes the run worth nothing."""
        plan, counts = self._plan, self.outcome.counts
        planned = {
            "entries acknowledged": plan.entries,
            "requests answered": plan.asked,
            "kill": plan.faults.kills,
            "cut": plan.faults.cuts,
            "server_kill": plan.faults.server_kills,
            "stall": plan.faults.stalls,
            "freeze": plan.faults.freezes,
            "blackout": plan.faults.blackouts,
            **{f"crash at {point}": plan.faults.rounds for point in HOST_POINTS},
            **{f"crash at {point}": 1 for point in ASKER_POINTS},
            "events heard live": 1,
            "events read from the log": 1,
            "attempts superseded": 1,
            "seen again": 1,
        }
        return [
            f"{name}: {counts.get(name, 0)}, planned were {least}"
            for name, least in planned.items()
            if counts.get(name, 0) < least
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
