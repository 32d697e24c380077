"""The bucket `identities` as this process knows it: what was read a moment ago, and no longer.

What anybody takes away there counts everywhere within `FRESH` seconds, also if it was not heard.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from runtime.accounts import BUCKET
from runtime.bus import Bus, Stored
from runtime.kv import HINTS_AGAIN, Bucket

FRESH = 2.0
"""Seconds for which what was read is believed."""
MOST_HELD = 10_000


class Identities:
    """Reads values, and forgets them as soon as they may have changed."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.monotonic) -> None:
        self.bucket = Bucket(bus, BUCKET)
        self.stirred = asyncio.Event()
        """Set whenever something may have changed; whoever waits for it clears it."""
        self._bus = bus
        self._clock = clock
        self._held: OrderedDict[str, tuple[float, Stored | None]] = OrderedDict()
        self._handle = self.bucket.follow(self._hear)

    async def get(self, key: str) -> Stored | None:
        """Return a value as it was a moment ago, None if there is none. Raises BusFault."""
        held = self._held.get(key)
        now = self._clock()
        if held is not None and now < held[0] + FRESH:
            return held[1]
        found = await self.bucket.get(key)
        self._held[key] = (now, found)
        self._held.move_to_end(key)
        while len(self._held) > MOST_HELD:
            self._held.popitem(last=False)
        return found

    def forget(self, key: str) -> None:
        """Believe no more what was read of a key."""
        self._held.pop(key, None)
        self.stirred.set()

    def close(self) -> None:
        """Listen no more."""
        self._bus.unsubscribe(self._handle)

    def _hear(self, key: str, value: bytes | None) -> None:
        # It is said before it is stored: what is read in between is still the old.
        self.forget(key)
        for delay in HINTS_AGAIN:
            asyncio.get_running_loop().call_later(delay, self.forget, key)
