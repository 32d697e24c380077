"""One run of the chaos test, from an empty store to a verdict."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

from runtime.bus import Bus
from runtime.connection import Packet
from tests.chaos.conductor import Conductor, Site
from tests.chaos.delays import read_waits, time_to_serve
from tests.chaos.faults import ASKER_POINTS
from tests.chaos.follower import Follower
from tests.chaos.growth import Growth
from tests.chaos.history import History, Journal
from tests.chaos.load import Amount, Load
from tests.chaos.plan import Outcome, Plan
from tests.chaos.processes import Process, count_events, unexpected
from tests.chaos.quiet import last_sequence, until_quiet
from tests.chaos.relay import Relayed
from tests.chaos.servers import Servers
from tests.chaos.verdict import Log, judge, read_log

PINNED = "$JS.EVENT.ADVISORY.CONSUMER.PINNED.>"
EXTRA = 40.0
"""Seconds beyond the plan for crash points that were not reached."""
QUIET_WITHIN = 150.0
STEADY = 6.0
AFTERMATH = 3.0
"""Seconds for which what a restart did to messages is looked for after it."""
BROKEN = 0.8
"""The share of the load under which things are broken. Then it must come to its end."""


class Ordeal:
    """Load, faults, quiet, another crash, and the verdict."""

    def __init__(self, plan: Plan, seed: int, folder: Path, servers: Servers) -> None:
        self.outcome = Outcome()
        self._plan = plan
        self._seed = seed
        self._history = History(forgetful=servers.replicas > 1)
        self._journal = Journal(folder / "asker.jsonl")
        site = Site(servers, folder, plan.hosts, plan.edges)
        self._conductor = Conductor(site, random.Random(seed), plan.faults.points)
        self._takeovers = 0
        self._quiet_after = 0.0
        self._relayed: Relayed | None = None
        self._growth: Growth | None = None
        self._spans: dict[str, tuple[float, float]] = {}
        """What was done from when until when, in seconds since the epoch."""

    async def run(self) -> Outcome:
        """Do it all; what is wrong is in the outcome, never raised."""
        try:
            async with self._started() as (clients, observer, reader):
                self._watch_growth()
                followers = [Follower(bus, "event.ledger.*") for bus in (clients, reader)]
                async with asyncio.timeout(self._plan.seconds + EXTRA + QUIET_WITHIN):
                    await self._break_under_load(clients)
                await self._be_quiet(observer, "the load")
                if not self._plan.rolled:
                    await self._crash_once_more(observer)
                await self._end(observer, followers)
        except* TimeoutError as late:
            told = [str(one) for one in _leaves(late)]
            self.outcome.wrong += told if all(told) else [self._what_did_not_end()]
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

    def _watch_growth(self) -> None:
        conductor = self._conductor
        self._growth = Growth(lambda: (*conductor.hosts, *conductor.edges))
        conductor.do_later(self._growth.run())

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
        amount = Amount(plan.entries, plan.seconds)
        load = Load(clients, self._history, chance, amount, failing=not plan.rolled)
        conductor.burst = load.burst
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            group.create_task(self._ask())
            if plan.edges:
                self._relayed = Relayed(conductor.site.urls, chance)
                group.create_task(self._relayed.sender.run(plan.sent, plan.seconds))
            await (self._roll() if plan.rolled else self._break())
            conductor.calm()
            load.enough.set()

    async def _break(self) -> None:
        await self._conductor.break_things(self._plan.faults, self._plan.seconds * BROKEN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXTRA):
                await self._conductor.finish_crashing()

    async def _roll(self) -> None:
        """Restart all processes one after another, kind by kind; each kind in a span of its own."""
        conductor = self._conductor
        conductor.calm()
        for name, roll in (
            ("nothing was restarted", partial(asyncio.sleep, STEADY)),
            ("hosts were restarted", conductor.roll_hosts),
            ("edges were restarted", conductor.roll_edges),
            ("servers were restarted", conductor.site.servers.roll),
        ):
            began = time.time()
            await roll()
            await asyncio.sleep(AFTERMATH)
            self._spans[f"messages waited while {name}"] = (began, time.time())

    async def _ask(self) -> None:
        """Run the asker until it is through; it crashes once on the way."""
        crash = "" if self._plan.rolled else f"{ASKER_POINTS[0]}:{self._plan.asked // 4}"
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
        before = await last_sequence(observer)
        await self._conductor.crash_everything()
        await self._be_quiet(observer, "the last crash")
        if (after := await last_sequence(observer)) != before:
            self.outcome.wrong.append(f"{after - before} messages came of a crash at rest")

    # -- the verdict -----------------------------------------------------------------------

    async def _judge(self, log: Log, followers: list[Follower]) -> None:
        wrong = self._journal.replay(self._history)
        logged = count_events(self._conductor.logs)
        wrong += judge(log, self._history, followers)
        self._count(log, followers, logged)
        self._time(log)
        wrong += self._relayed.check() if self._relayed else []
        wrong += unexpected(logged)
        self.outcome.wrong += wrong + self._plan.check(self.outcome.counts)

    def _count(self, log: Log, followers: list[Follower], logged: Counter[str]) -> None:
        kinds = Counter(mail.body["data"]["type"] for mail in log.mail)
        known = self._history.count()
        self.outcome.counts = Counter(
            {
                "entries acknowledged": known["tell ok"],
                "entries left unknown": known["tell unknown"],
                "requests answered": known["ask ok"],
                "tries of unknown outcome": known["unknown tries"],
                "requests forgotten by the broker": self._history.forgotten,
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
                "nodes restarted for their health": self._conductor.site.servers.healed,
                "server's messages lost": self._conductor.lost,
                "connections made": self._conductor.accepted,
                "events heard live": sum(follower.live for follower in followers),
                "events read from the log": sum(follower.read for follower in followers),
                **(self._relayed.count() if self._relayed else {}),
            }
        )
        self.outcome.rounds = self._conductor.dealt

    def _time(self, log: Log) -> None:
        waits = read_waits(log)
        kills, logs = self._conductor.kills, self._conductor.logs
        alone = [kill for kill in kills if kill.alone]
        self.outcome.seconds = {
            "a killed host's keys served again after": time_to_serve(waits, log, kills, logs),
            "the same where nothing else was broken": time_to_serve(waits, log, alone, logs),
            "messages waited": [wait.seconds for wait in waits],
            "longest time in which nothing was applied": [_longest_gap(log)],
            "quiet after": [self._quiet_after],
        }
        for name, (began, ended) in self._spans.items():
            within = [wait.seconds for wait in waits if began <= wait.mail.at <= ended]
            self.outcome.seconds[name] = within
        self.outcome.notes = self._growth.describe() if self._growth else {}


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one


@asynccontextmanager
async def _closing(bus: Bus) -> AsyncIterator[Bus]:
    try:
        yield bus
    finally:
        await bus.link.close()


def _longest_gap(log: Log) -> float:
    """The longest time under load in which nothing was applied anywhere."""
    told = [row for rows in log.events.values() for row in rows]
    end = max(stored.time for stored, body in told if body["data"]["kind"] == "enter")
    times = sorted(stored.time for stored, _ in told if stored.time <= end)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    return round(max(gaps, default=0), 1)
