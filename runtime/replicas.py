"""Reading from any replica what is as new as the leader had it: one may be behind for minutes.

What a replica gives is the log as it was a while ago, never with a hole in it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from runtime.errors import Unavailable

STALE_TRIES = 100
STALE_WAIT = 0.05


class Sequenced(Protocol):
    """Something that has a place in a stream."""

    @property
    def seq(self) -> int:
        """The place."""
        ...


Newest = Callable[[], Awaitable[Sequenced | None]]


class Goal:
    """How far the leader had got when reading began. Without `newest` any end is the end."""

    def __init__(self, newest: Newest | None) -> None:
        self._newest = newest
        self._wanted = -1
        self._reached = -1
        self._tries = 0

    async def is_reached(self, seq: int) -> bool:
        """Whether what ends at `seq` is all; False, after a moment, if it is to be read on.

        `newest` asks the leader for the last of the same subjects. Raises Unavailable if nobody
        gives more for seconds.
        """
        if self._newest is None:
            return True
        if self._wanted < 0:
            self._wanted = await self._ask(self._newest)
        if seq >= self._wanted:
            return True
        self._tries = 0 if seq > self._reached else self._tries + 1
        self._reached = max(seq, self._reached)
        if self._tries >= STALE_TRIES:
            raise Unavailable(f"the replicas are behind {self._wanted}, which their leader has")
        await asyncio.sleep(STALE_WAIT)
        # It may have been removed meanwhile: what nobody has is not waited for.
        self._wanted = min(self._wanted, await self._ask(self._newest))
        return seq >= self._wanted

    async def _ask(self, newest: Newest) -> int:
        found = await newest()
        return found.seq if found else 0
