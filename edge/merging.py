"""Several topics as one feed, in the order of the log: a cursor in it is one in all of them.

Nothing is told before it is known that no other topic has said something earlier.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from edge.following import Event, Following, Hub, Reset
from runtime.bus import Bus
from runtime.errors import BusFault
from schemas.base import Topic

log = structlog.get_logger("edge")

MOST_HELD = 100
"""Events of one topic that wait to be told; beyond that its log is read later."""
PATIENCE = 5.0
"""Seconds for which a topic that is behind is waited for."""
AGAIN_AFTER = 0.1

Told = tuple[int, Event]
"""The number of the topic, in the order they were given, and what was said there."""


class _Lane:
    """One of the topics, and what of it waits to be told."""

    def __init__(self, number: int, following: Following) -> None:
        self.number = number
        self.following = following
        self.events: deque[Event] = deque()
        self.moved = asyncio.Event()
        self.taken = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return len(self.events) >= MOST_HELD

    def reached(self, bound: int) -> int:
        """Up to where all is here: `bound`, or less if no more has room."""
        return min(bound, self.events[-1].seq) if self.is_full else bound

    def take(self, bound: int) -> list[Told]:
        """What was said up to a place."""
        told: list[Told] = []
        while self.events and self.events[0].seq <= bound:
            told.append((self.number, self.events.popleft()))
        self.taken.set()
        return told


class Merged:
    """One follower's way through several topics. Must be closed."""

    def __init__(self, bus: Bus, followings: Sequence[Following]) -> None:
        self._bus = bus
        self._lanes = [_Lane(number, each) for number, each in enumerate(followings)]
        self._reset: Reset | None = None
        self._wake = asyncio.Event()
        self._pumps = [asyncio.create_task(self._pump(lane)) for lane in self._lanes]

    async def next(self) -> list[Told] | Reset:
        """Return what comes next, in order. Waiting may be cancelled and begun again."""
        while True:
            if self._reset is not None:
                reset, self._reset = self._reset, None
                return reset
            waiting = [lane.events[-1].seq for lane in self._lanes if lane.events]
            if not waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            bound = await self._complete(max(waiting))
            told = [one for lane in self._lanes for one in lane.take(bound)]
            if told and self._reset is None:
                return sorted(told, key=lambda one: one[1].seq)

    def skip(self, cursor: int) -> None:
        """Leave out what comes up to `cursor`: it is known already."""
        for lane in self._lanes:
            lane.take(cursor)
            lane.following.skip(cursor)

    def close(self) -> None:
        """Follow no more."""
        for pump in self._pumps:
            pump.cancel()
        for lane in self._lanes:
            lane.following.close()

    async def _pump(self, lane: _Lane) -> None:
        async for item in lane.following:
            if isinstance(item, Reset):
                if self._reset is None or self._reset.cursor < item.cursor:
                    self._reset = item
            else:
                lane.events.append(item)
            lane.moved.set()
            self._wake.set()
            while lane.is_full:
                lane.taken.clear()
                await lane.taken.wait()

    async def _complete(self, bound: int) -> int:
        """Wait until all that was said up to `bound` is here; returns up to where it is."""
        if len(self._lanes) > 1:
            newest = await self._newest()
            try:
                async with asyncio.timeout(PATIENCE):
                    for lane, last in zip(self._lanes, newest, strict=True):
                        await self._wait_for(lane, min(last, bound), last)
            except TimeoutError:
                log.warning("topics_not_merged", topics=len(self._lanes), after=bound)
        return min(lane.reached(bound) for lane in self._lanes)

    async def _wait_for(self, lane: _Lane, goal: int, newest: int) -> None:
        while lane.following.cursor < goal and not lane.is_full and self._reset is None:
            lane.moved.clear()
            lane.following.notice(newest)
            await lane.moved.wait()

    async def _newest(self) -> list[int]:
        """Where each topic said something last."""
        names = [lane.following.subject for lane in self._lanes]
        while True:
            try:
                found = await self._bus.last_of(names)
            except BusFault as fault:
                log.debug("topics_not_looked_at", error=str(fault))
                await asyncio.sleep(AGAIN_AFTER)
                await self._bus.link.connected.wait()
                continue
            return [found[name].seq if name in found else 0 for name in names]


async def follow_all(hub: Hub, topics: Sequence[Topic], after: int | None) -> Merged:
    """Follow topics past a cursor, from now on if there is none. Raises BusFault."""
    followings: list[Following] = []
    try:
        for topic in topics:
            followings.append(await hub.follow(topic, after))
    except BaseException:
        for each in followings:
            each.close()
        raise
    return Merged(hub.bus, followings)
