"""How many streams a user, and all users together, may have open over all edges at once.

Who holds how many stands in the bucket `limits`, by edge; the seats of an edge that says no more
that it lives count for nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any, Protocol

import msgspec
import structlog

from edge.contended import Contended, Values
from edge.problem import Refusal
from runtime.bus import new_id
from runtime.errors import BusFault
from schemas.base import token

log = structlog.get_logger("edge")

ALIVE = timedelta(seconds=6)
"""How long an edge that says nothing more is taken for alive."""
SAY_EVERY = 2.0
KEPT = timedelta(hours=1)
KEEP_EVERY = 600
"""Beats between which what is held for long is written again, so that it does not go."""
TAKE_WITHIN = 3.0
"""Seconds that the store has to give a seat. Then this edge counts for itself."""
AGAIN_AFTER = 1.0
RESERVE = 64
"""Seats of the total, at most, that an edge holds for those who are about to come."""
SHARE = 8
"""Of what is left in total, an edge takes the eighth part beforehand."""
TOTAL = "seats"
RETRY = {"Retry-After": "5"}

_decode = msgspec.json.Decoder(dict[str, int]).decode
_encode = msgspec.json.Encoder().encode


class LivingValues(Values, Protocol):
    """What a bucket can do besides (`runtime.kv.Bucket`)."""

    async def put(self, key: str, value: bytes, *, ttl: timedelta, timeout: float) -> int:
        """Set a key; returns its revision."""
        ...

    async def delete(self, key: str, *, forget: timedelta) -> None:
        """Take a key away."""
        ...


class _Place:
    """Seats under one key: how many of them are taken here."""

    def __init__(self, bucket: Values, key: str) -> None:
        self.stored = Contended(bucket, key, KEPT)
        self.held = 0
        self.told = 0
        """How many the store was last told of."""
        self.lock = asyncio.Lock()


class Seats:
    """The seats that this edge has given out. Without a `name` it makes itself one."""

    def __init__(
        self, bucket: LivingValues, *, per_user: int, in_total: int, name: str = ""
    ) -> None:
        self._bucket = bucket
        self._name = name or new_id()
        self._per_user = per_user
        self._in_total = in_total
        self._users: dict[str, _Place] = {}
        self._total = _Place(self._bucket, TOTAL)
        self._ahead = min(RESERVE, in_total // SHARE**2)
        self._trimming = False
        self._alive: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def taken(self) -> int:
        """How many are taken here."""
        return self._total.held

    @contextlib.asynccontextmanager
    async def held(self, user: str | None) -> AsyncIterator[None]:
        """Hold a seat; who has no name (None) counts in the total only.

        Raises Refusal 429 `too_many_streams` for one too many of a user, 503 for one too many
        of all.
        """
        await self._take_total()
        try:
            if user is not None:
                await self._take(user)
        except BaseException:
            self._release_total()
            raise
        try:
            yield
        finally:
            self._release_total()
            if user is not None:
                self._release(user)

    async def close(self) -> None:
        """Let everything go, for every edge at once."""
        tasks = [*self._tasks, *([self._alive] if self._alive else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._alive is not None:
            with contextlib.suppress(BusFault, TimeoutError):
                async with asyncio.timeout(TAKE_WITHIN):
                    await self._bucket.delete(self._alive_key(self._name), forget=ALIVE)

    # -- of one user -----------------------------------------------------------------------

    async def _take(self, user: str) -> None:
        place = self._users.get(user)
        if place is None:
            place = self._users[user] = _Place(self._bucket, f"seats.{token(user)}")
        place.held += 1
        try:
            async with place.lock:
                if place.held > self._per_user or not await self._tell(place, self._per_user):
                    detail = f"Too many concurrent connections: {self._per_user} are open"
                    raise Refusal(429, "too_many_streams", detail, headers=RETRY)
        except BaseException:
            self._release(user)
            raise
        if place.told != place.held:
            self._later(self._settle(user, place))

    def _release(self, user: str) -> None:
        place = self._users[user]
        place.held -= 1
        self._later(self._settle(user, place))

    async def _settle(self, user: str, place: _Place) -> None:
        """Tell the store how many are held, until it knows."""
        while place.held != place.told:
            async with place.lock:
                if place.held != place.told and not await self._write(place):
                    await asyncio.sleep(AGAIN_AFTER)
        if not place.held and self._users.get(user) is place:
            del self._users[user]

    async def _write(self, place: _Place) -> bool:
        held = place.held
        try:
            await place.stored.change(lambda stored: _encode(self._mine(_read(stored), held)))
        except BusFault as fault:
            log.debug("seats_not_told", error=str(fault))
            return False
        place.told = held
        return True

    # -- of all ----------------------------------------------------------------------------

    async def _take_total(self) -> None:
        self._total.held += 1
        try:
            if self._total.held > self._total.told:
                async with self._total.lock:
                    if self._total.held > self._total.told and not await self._reserve():
                        detail = "no more streams are opened at the moment; try again soon"
                        raise Refusal(503, "too_many_streams", detail, headers=RETRY)
        except BaseException:
            self._release_total()
            raise

    def _release_total(self) -> None:
        self._total.held -= 1
        if self._total.told > self._total.held + 2 * self._ahead and not self._trimming:
            self._trimming = True
            self._later(self._trim())

    async def _reserve(self) -> bool:
        return await self._tell(self._total, self._in_total, ahead=True)

    async def _trim(self) -> None:
        """Give back what was reserved for those who did not come, or have left."""
        total = self._total
        try:
            async with total.lock:
                if total.told > total.held + self._ahead or (total.told and not total.held):
                    await self._write(total)
        finally:
            self._trimming = False

    # -- telling the store -----------------------------------------------------------------

    async def _tell(self, place: _Place, most: int, *, ahead: bool = False) -> bool:
        """Note what is held in a place; False if that would be too many with all others.

        `ahead` notes some more, for those who come next. A store that does not answer is told
        later.
        """
        await self._begin()
        try:
            async with asyncio.timeout(TAKE_WITHIN):
                return await self._try(place, most, ahead, set()) or await self._try(
                    place, most, ahead, await self._find_dead(place)
                )
        except (BusFault, TimeoutError) as fault:
            log.warning("seats_counted_alone", error=str(fault) or f"{TAKE_WITHIN:g} s are over")
            return place.held <= most

    async def _try(self, place: _Place, most: int, ahead: bool, dead: set[str]) -> bool:
        noted = 0

        def decide(stored: bytes | None) -> bytes | None:
            nonlocal noted
            holders = {name: n for name, n in _read(stored).items() if name not in dead}
            others = sum(n for name, n in holders.items() if name != self._name)
            left = most - others - place.held
            if left < 0:
                return None
            noted = place.held + (min(left // SHARE, self._ahead) if ahead else 0)
            return _encode(self._mine(holders, noted))

        if not await place.stored.change(decide):
            return False
        place.told = noted
        return True

    def _mine(self, holders: dict[str, int], count: int) -> dict[str, int]:
        holders = {name: n for name, n in holders.items() if name != self._name}
        return {**holders, self._name: count} if count else holders

    async def _find_dead(self, place: _Place) -> set[str]:
        """Which of those who hold something in a place live no more."""
        found: dict[str, int] = {}

        def look(stored: bytes | None) -> None:
            found.update(_read(stored))

        await place.stored.change(look)
        others = [name for name in found if name != self._name]
        alive = await asyncio.gather(*(self._bucket.read(self._alive_key(n)) for n in others))
        return {name for name, (said, _) in zip(others, alive, strict=True) if said is None}

    # -- being alive -----------------------------------------------------------------------

    async def _begin(self) -> None:
        """Say for the first time that this edge lives: what it holds counts from then on."""
        async with self._beginning:
            if self._alive is None:
                with contextlib.suppress(BusFault):
                    await self._say()
                self._alive = asyncio.create_task(self._live(), name="seats")

    async def _live(self) -> None:
        beat = 0
        while True:
            await asyncio.sleep(SAY_EVERY)
            beat += 1
            try:
                await self._say()
                await self._trim()
                if beat % KEEP_EVERY == 0:
                    await self._keep()
            except BusFault as fault:
                log.debug("seats_not_kept", error=str(fault))

    async def _say(self) -> None:
        said = _encode({"streams": self._total.held})
        await self._bucket.put(self._alive_key(self._name), said, ttl=ALIVE, timeout=SAY_EVERY)

    async def _keep(self) -> None:
        for place in [self._total, *self._users.values()]:
            if place.held:
                async with place.lock:
                    await self._write(place)

    @staticmethod
    def _alive_key(name: str) -> str:
        return f"edge.{name}"

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="seats")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _read(stored: bytes | None) -> dict[str, int]:
    try:
        return _decode(stored) if stored else {}
    except msgspec.MsgspecError:
        return {}
