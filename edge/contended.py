"""One key that several edges change at the same time: each from what it saw last, or not at all."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol, TypeAlias

from runtime.errors import Conflict, Unavailable

TRIES = 50
PAUSE = 0.004
"""Seconds, at most, between tries: two who collide must not do so again and again."""

Decide: TypeAlias = Callable[[bytes | None], bytes | None]
"""Says what a value becomes, None if it stays as it is. It is asked anew after a conflict."""


class Values(Protocol):
    """What a bucket can do with the values of its keys (`runtime.kv.Bucket`)."""

    async def read(self, key: str) -> tuple[bytes | None, int]:
        """The value of a key, None if it is not there, and the revision to `swap` it at."""
        ...

    async def swap(self, key: str, value: bytes, revision: int, *, ttl: timedelta) -> int:
        """Set a key that is still at `revision`; returns its revision. Raises Conflict."""
        ...


class Contended:
    """A key of a bucket; every value of it goes after `ttl`."""

    def __init__(self, bucket: Values, key: str, ttl: timedelta) -> None:
        self._bucket = bucket
        self._key = key
        self._ttl = ttl
        self._seen: bytes | None = None
        self._revision: int | None = None

    async def change(self, decide: Decide) -> bool:
        """Change it as `decide` says; False if it says no to what is there now.

        Raises BusFault; whether it was changed is then not known.
        """
        for attempt in range(TRIES):
            fresh = self._revision is None
            if self._revision is None:
                self._seen, self._revision = await self._bucket.read(self._key)
            wanted = decide(self._seen)
            if wanted is None and fresh:
                return False
            if wanted is not None and await self._swap(wanted):
                return True
            self._revision = None
            if attempt:
                await asyncio.sleep(random.uniform(0, PAUSE * attempt))
        raise Unavailable(f"{self._key} is changed by too many at once")

    async def _swap(self, wanted: bytes) -> bool:
        revision, self._revision = self._revision or 0, None
        try:
            self._revision = await self._bucket.swap(self._key, wanted, revision, ttl=self._ttl)
        except Conflict:
            return False
        self._seen = wanted
        return True
