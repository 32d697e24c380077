"""The upstreams of one deployment as one host sees them, and which of them is asked next."""

import asyncio
import contextlib
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from actors.models.breaker import Breaker
from actors.models.events import Upstream
from actors.models.faults import UpstreamFault
from schemas.upstream import UpstreamSeen

LONGEST_WAIT = 60.0
"""Seconds that a call waits for an upstream that asked for so long a rest, and not longer."""


class NobodyLeft(Exception):
    """Every upstream was tried."""


class Place:
    """One upstream: how many calls are under way, how many there were, how they went."""

    def __init__(
        self,
        upstream: Upstream,
        breaker: Breaker,
        *,
        weight: float = 1.0,
        paths: int = 0,
        registered: bool = False,
    ) -> None:
        self.upstream = upstream
        self.name = upstream.name
        self.breaker = breaker
        self.weight = weight
        self.paths = paths
        self.registered = registered
        self.current = 0
        self.dispatched = 0
        self.errors = 0

    @property
    def free(self) -> bool:
        """Whether another call may be under way."""
        return not self.paths or self.current < self.paths

    def seen(self) -> UpstreamSeen:
        """What is told of it."""
        wait, status = self.breaker.wait, self.breaker.status
        if status == "HEALTHY" and not self.free:
            status = "BUSY"
        return UpstreamSeen(
            name=self.name,
            url=self.upstream.url,
            status=status,
            weight=self.weight,
            paths=self.paths,
            current=self.current,
            dispatched=self.dispatched,
            errors=self.errors,
            reason="" if self.breaker.closed else self.breaker.explain(),
            until=datetime.now(UTC) + timedelta(seconds=wait) if wait else None,
            registered=self.registered,
        )


class Taken:
    """A path to an upstream for the length of one call."""

    def __init__(self, place: Place, fleet: "Fleet") -> None:
        self.place = place
        self._fleet = fleet
        self._judged = False

    def answers(self) -> None:
        """The first piece of an answer has come."""
        self.place.breaker.answers()
        self._fleet.stir()

    def succeed(self) -> None:
        """The answer is whole."""
        self._judged = True
        self.place.breaker.succeed()

    def fail(self, fault: UpstreamFault) -> None:
        """The call met a fault."""
        self._judged = True
        self.place.errors += 1
        self.place.breaker.fail(fault)

    def end(self) -> None:
        """Give the path back."""
        self.place.current -= 1
        if not self._judged:
            self.place.breaker.leave()
        self._fleet.stir()


class Fleet:
    """All upstreams of a deployment, and those who wait for one."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = {place.name: place for place in places}
        self._stirred = asyncio.Event()
        self.changed = asyncio.Event()
        """Set whenever the state of one may have changed; for whoever tells of them."""

    def stir(self) -> None:
        """Let those who wait look again."""
        self._stirred.set()
        self._stirred = asyncio.Event()
        self.changed.set()

    def seen(self) -> tuple[UpstreamSeen, ...]:
        """What is told of all of them, by name."""
        return tuple(self.places[name].seen() for name in sorted(self.places))

    async def take(
        self, conversation: str, slot: int, *, tried: set[str], later: set[str], until: float
    ) -> Taken:
        """A path to the upstream that is best for one slot of a conversation.

        None of those `tried`; those in `later` only if there is no other. Waits for a free path,
        and for one that rests because it asked to, until `until` (of the loop's clock). Raises
        NobodyLeft, or UpstreamFault if none may be asked in time.
        """
        while True:
            left = [place for place in self.places.values() if place.name not in tried]
            if not left:
                raise NobodyLeft
            able = [place for place in left if place.breaker.may_ask]
            fresh = [place for place in able if place.name not in later]
            for some in (fresh, able):
                for place in in_order(some, conversation, slot):
                    if place.free:
                        return self._give(place)
            await self._wait(left, until)

    def _give(self, place: Place) -> Taken:
        place.current += 1
        place.dispatched += 1
        place.breaker.begin()
        self.changed.set()
        return Taken(place, self)

    async def _wait(self, left: list[Place], until: float) -> None:
        """Wait until one of these may be asked; raises UpstreamFault if that takes too long."""
        loop = asyncio.get_running_loop()
        end, resting = until, [place for place in left if place.breaker.wait]
        if resting:
            soonest = min(resting, key=lambda place: place.breaker.wait)
            end = loop.time() + soonest.breaker.wait
            if len(resting) == len(left) and (end > until or not _is_short(resting)):
                raise _resting(soonest)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(end, until)):
                await self._stirred.wait()
                return
        if loop.time() >= until:
            raise UpstreamFault("overloaded", "no path was free in time", status=503)


def in_order(places: list[Place], conversation: str, slot: int) -> Iterator[Place]:
    """The upstreams for one slot of a conversation, the best first: the same ones every time.

    Rendezvous hashing: one that goes moves only what it had. Slots of one conversation differ,
    as long as there are upstreams enough.
    """
    taken: list[Place] = []
    for earlier in range(slot):
        rest = [place for place in places if place not in taken] or places
        taken.append(max(rest, key=lambda place: _score(place, conversation, earlier)))
    ranked = sorted(places, key=lambda place: _score(place, conversation, slot), reverse=True)
    yield from (place for place in ranked if place not in taken)
    yield from (place for place in ranked if place in taken)


def _score(place: Place, conversation: str, slot: int) -> float:
    """By chance, yet always the same; twice the weight wins twice as often."""
    digest = blake2b(f"{conversation}|{slot}|{place.name}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest) + 1) / (2**64 + 2)
    return -place.weight / math.log(share)


def _is_short(resting: list[Place]) -> bool:
    """Whether one of these has asked for a rest that calls wait for."""
    return any(one.breaker.limited and one.breaker.wait <= LONGEST_WAIT for one in resting)


def _resting(place: Place) -> UpstreamFault:
    """Why nobody can be asked: what the upstream that rests least met last."""
    fault = place.breaker.fault
    assert fault is not None
    wait = place.breaker.wait
    reason = f"{place.name} is left alone for {math.ceil(wait)} s: {place.breaker.explain()}"
    return UpstreamFault(fault.code, reason, status=fault.status, retry_after=wait)
