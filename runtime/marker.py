"""Says which message this host is at, before it is begun, so that others know if it ends there.

Only of messages that a lost host had in hand, one at a time. Read by runtime/careful.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import structlog

from runtime.bus import Bus
from runtime.errors import BusFault
from runtime.kv import Bucket
from schemas.base import token
from schemas.envelope import UNREADABLE, encode
from schemas.suspects import MARK, Mark

log = structlog.get_logger()

BUCKET = "nodes"
KEEP = timedelta(days=7)
FORGET = timedelta(minutes=1)
PAUSE = 0.1

_decode = msgspec.json.Decoder(Mark).decode


class Marker:
    """This host's mark: at one message at most, for as long as its handler runs."""

    def __init__(self, bus: Bus, incarnation: str) -> None:
        self._bus = bus
        self._nodes = Bucket(bus, BUCKET)
        self._key = MARK + token(incarnation)
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._stored = False
        """Or perhaps stored."""
        self._clearing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def at(self, consumer: str, seq: int) -> AsyncIterator[None]:
        """Be marked for as long as the block lasts, in which nothing may be waited for.

        Raises BusFault if the mark cannot be stored. An error in the block leaves the mark: it
        may be what ends this host.
        """
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            mark = encode(Mark(consumer=consumer, seq=seq))
            self._stored = True
            try:
                await self._nodes.put(self._key, mark, ttl=KEEP)
            except BaseException:
                self.clear()
                raise
            yield
        finally:
            self._turn.release()
        # Whoever comes next writes over it.
        if not self._waiting:
            self.clear()

    async def read(self, incarnation: str) -> Mark | None:
        """What a host is at, or was when it ended. Raises BusFault."""
        stored = await self._nodes.get(MARK + token(incarnation))
        try:
            return _decode(stored.data) if stored else None
        except UNREADABLE as error:
            log.warning("mark_unreadable", host=incarnation, error=str(error))
            return None

    def clear(self) -> None:
        """Take the mark away, as soon as that can be done."""
        if self._stored and self._clearing is None:
            self._clearing = asyncio.create_task(self._clear(), name="clear mark")
            self._clearing.add_done_callback(self._cleared)

    async def _clear(self) -> None:
        while not self._waiting:
            try:
                async with self._turn:
                    await self._nodes.delete(self._key, forget=FORGET)
                    self._stored = False
                return
            except BusFault as fault:
                log.debug("mark_not_cleared", error=str(fault))
            await asyncio.sleep(PAUSE)
            await self._bus.link.connected.wait()

    def _cleared(self, task: asyncio.Task[None]) -> None:
        self._clearing = None
        if not task.cancelled() and (error := task.exception()):
            log.error("mark_not_cleared", exc_info=error)
