"""People who talk to customers: how soon the others see what they do."""

import argparse
import asyncio
import itertools
import re
import time
from typing import Any

from bench.talk import Hear
from bench.town import ESCALATE, QUEUE, SAY, STREAM, Row, Town, in_turn
from runtime.packet import Packet

AGENTS = 10
AT_ONCE = 10
SETTLE = 5.0
"""Seconds in which what was said last is heard by all."""
MARK = re.compile(r"\bm(\d+)m\b")
MODE = b'"mode":"manual_live"'
SESSION = re.compile(rb"join\d+")
SESSIONS = "/api/sessions"
TOLD = ("live.event.conversation.*", "live.event.desk.*")


class Moments:
    """When things happened, by their name: done by somebody, stored, heard by each."""

    def __init__(self) -> None:
        self.done: dict[str, float] = {}
        self.stored: dict[str, float] = {}
        self.heard: list[tuple[str, float]] = []

    def since_done(self) -> list[float]:
        """Seconds from the request to who hears of it."""
        return [at - self.done[name] for name, at in self.heard if name in self.done]

    def since_stored(self) -> list[float]:
        """Seconds from when it was stored; what is heard before we learn that took none."""
        known = ((at, self.stored.get(name)) for name, at in self.heard)
        return [max(at - stored, 0.0) for at, stored in known if stored is not None]

    def missing(self, each: int = 1) -> int:
        """How many of those who ought to have heard of something have not."""
        return each * len(self.done) - len(self.heard)

    async def all_heard(self, each: int = 1) -> None:
        """Wait until everybody has heard of everything, or will not."""
        until = time.monotonic() + SETTLE
        while self.missing(each) > 0 and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def messages(town: Town, given: argparse.Namespace) -> list[Row]:
    """Agents write in many sessions, whose customers follow them."""
    sessions, moments = [f"case{number}" for number in range(given.cases)], Moments()
    await in_turn(
        (town.hand_over(one, f"agent{n % AGENTS}") for n, one in enumerate(sessions)), AT_ONCE
    )

    def hear(event: dict[str, Any], now: float) -> None:
        if event["type"] == "manual_message":
            moments.heard += [(mark, now) for mark in MARK.findall(event["content"])]

    def store(packet: Packet) -> None:
        for mark in MARK.findall(packet.data.decode()):
            moments.stored.setdefault(mark, time.monotonic())

    for session in sessions:
        await town.follow(f"{STREAM}?session_name={session}", hear)
    handle = town.bus.subscribe("live.event.conversation.*", store)
    try:
        await _write(town, sessions, moments, given)
        await moments.all_heard()
    finally:
        town.bus.unsubscribe(handle)
    what = f"an agent's message, {given.cases} sessions, {given.rate:g}/s"
    sent, pushed = f"{what}: sent to received", f"{what}: stored to received"
    missing = moments.missing()
    return [
        Row(sent, "FD-85, FD-113", [("p99", 100.0)], moments.since_done(), missing),
        Row(pushed, "FD-82, FD-84", [("p99", 50.0)], moments.since_stored(), missing),
    ]


async def _write(
    town: Town, sessions: list[str], moments: Moments, given: argparse.Namespace
) -> None:
    writing, turns = [], itertools.cycle(sessions)
    for number in range(int(given.rate * given.seconds)):
        moments.done[str(number)] = time.monotonic()
        said = {"session_name": next(turns), "content": f"this is m{number}m"}
        writing.append(asyncio.create_task(town.site.tell(SAY, **said), name=f"say {number}"))
        await asyncio.sleep(1 / given.rate)
    await asyncio.gather(*writing)


class Joining:
    """Agents who take sessions in the same moment; their customers and all queues are told."""

    def __init__(self, town: Town) -> None:
        self.sessions = [f"join{number}" for number in range(AGENTS)]
        self.customers, self.queues = Moments(), Moments()
        self._town = town
        self._turn = 0

    async def follow(self) -> None:
        """Open a feed for each customer, and one of the queue for each agent."""
        for session in self.sessions:
            await self._town.follow(f"{STREAM}?session_name={session}", self._hearer(session))
        for _ in range(AGENTS):
            await self._town.follow(QUEUE, self._hear_queue)

    async def take_turns(self, times: int) -> None:
        """Have them all take their sessions, and give them back, so often."""
        for self._turn in range(times):
            await in_turn((self._call(one) for one in self.sessions), AT_ONCE)
            await asyncio.gather(*(self._take(n, one) for n, one in enumerate(self.sessions)))
            await self.customers.all_heard()
            await self.queues.all_heard(AGENTS)
            await in_turn((self._give_back(n) for n in range(AGENTS)), AT_ONCE)

    def store(self, packet: Packet) -> None:
        """Note when a change was stored."""
        if MODE not in packet.data or not (found := SESSION.search(packet.data)):
            return
        moments = self.queues if packet.subject.endswith(".support") else self.customers
        moments.stored.setdefault(self._name(found[0].decode()), time.monotonic())

    def _name(self, session: str) -> str:
        return f"{session} {self._turn}"

    def _hearer(self, session: str) -> Hear:
        def hear(event: dict[str, Any], now: float) -> None:
            if event["type"] == "status_change" and event["status"] == "manual_live":
                self.customers.heard.append((self._name(session), now))

        return hear

    def _hear_queue(self, event: dict[str, Any], now: float) -> None:
        if event["type"] == "session_update" and event["session"]["status"] == "manual_live":
            self.queues.heard.append((self._name(event["session"]["session_name"]), now))

    async def _call(self, session: str) -> None:
        await self._town.site.tell(ESCALATE, session_name=session)

    async def _take(self, number: int, session: str) -> None:
        now = time.monotonic()
        self.customers.done[self._name(session)] = self.queues.done[self._name(session)] = now
        await self._town.site.tell(f"{SESSIONS}/{session}/takeover", agent_id=f"agent{number}")

    async def _give_back(self, number: int) -> None:
        path = f"{SESSIONS}/{self.sessions[number]}/release"
        await self._town.site.tell(path, agent_id=f"agent{number}")


async def joins(town: Town, given: argparse.Namespace) -> list[Row]:
    """Ten agents join ten sessions at once, and all of them see the queue."""
    joining = Joining(town)
    await joining.follow()
    handles = [town.bus.subscribe(each, joining.store) for each in TOLD]
    try:
        await joining.take_turns(given.times)
    finally:
        for handle in handles:
            town.bus.unsubscribe(handle)
    customers, queues = joining.customers, joining.queues
    aim, who = [("p99", 50.0)], f"{AGENTS} takeovers at once"
    lost, unseen = customers.missing(), queues.missing(AGENTS)
    return [
        Row(f"{who}: asked for to customer", "", (), customers.since_done(), lost),
        Row(f"{who}: stored to customer", "FD-86, FD-112", aim, customers.since_stored(), lost),
        Row(f"{who}: stored to {AGENTS} queues", "FD-114", aim, queues.since_stored(), unseen),
    ]


async def history(town: Town, given: argparse.Namespace) -> list[Row]:
    """A session in which very much was said, as an agent opens it."""
    await town.hand_over("long", "agent0")
    said = (
        {"session_name": "long", "content": f"line {n} of {given.lines}" * 3}
        for n in range(given.lines)
    )
    await in_turn((town.site.tell(SAY, **one) for one in said), 20)
    rows = []
    for path, what in (
        (f"{SESSIONS}/long/messages?limit=50", "50 messages"),
        (f"{SESSIONS}/long", "all of its first screen"),
    ):
        for at_once in (1, AGENTS):
            asked = [town.site.ask("GET", path) for _ in range(10 * given.times)]
            found = await in_turn(asked, at_once)
            row = Row(
                f"{given.lines} messages: {what}, {at_once} at once", "FD-115", [("p99", 500.0)]
            )
            row.seconds = [one.seconds for one in found]
            row.failed = sum(one.status != 200 for one in found)
            rows.append(row)
    return rows


async def mixed(town: Town, given: argparse.Namespace) -> list[Row]:
    """Agents and customers at once, who read and write all kinds of things."""
    sessions = [f"mixed{number}" for number in range(given.chats)]
    await in_turn(
        (town.hand_over(one, f"agent{n % AGENTS}") for n, one in enumerate(sessions)), AT_ONCE
    )
    what = f"{given.chats} clients at once: "
    aims = [("p50", 200.0), ("p99", 1000.0)]
    every = Row(f"{what}API, all of it", "FD-101, FD-102", aims)
    kinds: dict[str, Row] = {}
    until = time.monotonic() + given.seconds

    async def use(number: int) -> None:
        work = itertools.cycle(_work(sessions[number]))
        while time.monotonic() < until:
            name, method, path, body = next(work)
            answered = await town.site.ask(method, path, body)
            row = kinds.setdefault(name, Row(what + name))
            row.seconds.append(answered.seconds)
            row.failed += answered.status != 200
            await asyncio.sleep(given.think)

    await asyncio.gather(*(use(number) for number in range(len(sessions))))
    for row in kinds.values():
        every.seconds += row.seconds
        every.failed += row.failed
    return [every, *kinds.values()]


def _work(session: str) -> list[tuple[str, str, str, Any]]:
    said = {"session_name": session, "content": "hello"}
    return [
        ("GET /api/health", "GET", "/api/health", None),
        ("GET /api/sessions", "GET", f"{SESSIONS}?limit=20", None),
        ("POST /api/manual/messages", "POST", SAY, said),
        ("GET /api/sessions/{name}", "GET", f"{SESSIONS}/{session}", None),
        ("GET /api/sessions/stats", "GET", f"{SESSIONS}/stats", None),
        (
            "POST …/note",
            "POST",
            f"{SESSIONS}/{session}/note",
            {"content": "a note", "agent_id": "agent0"},
        ),
        ("GET …/messages", "GET", f"{SESSIONS}/{session}/messages", None),
        ("GET /api/sessions/queue", "GET", f"{SESSIONS}/queue", None),
    ]
