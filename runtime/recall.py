"""Finds the message that ends its host among those put aside, which no consumer delivers again.

One note in the bucket for each key that catches up: who is at it, and at which message. Used by
runtime/shelf.py; what a consumer delivers is watched by runtime/careful.py.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from runtime.careful import STRIKES
from runtime.kv import Bucket
from runtime.marker import BUCKET, FORGET, KEEP
from runtime.pull import Delivery
from runtime.system import System
from schemas.envelope import UNREADABLE, encode
from schemas.suspects import RECALL, Recalling

log = structlog.get_logger()

_decode = msgspec.json.Decoder(Recalling).decode


class Recall:
    """How one key catches up: at first as any, and with care once a host did not get through."""

    def __init__(self, system: System, actor: str, key: str) -> None:
        self._me = system.incarnation
        self._bus = system.bus
        self._nodes = Bucket(system.bus, BUCKET)
        self._key = f"{RECALL}{actor}.{key}"
        self._known: Recalling | None = None
        self._careful = False

    async def begin(self) -> None:
        """Say that this host is at it, and learn whether another was. Raises BusFault."""
        if self._known is not None:
            return
        found = await self._read()
        self._careful = found is not None and found.owner != self._me
        hosts = found.hosts if found else []
        await self._note(Recalling(self._bus.created, self._me, found.seq if found else 0, hosts))

    def examine(self, delivery: Delivery) -> None:
        """Say of a message whether it is handled as any, with care, or not any more."""
        known = self._known
        if known is not None and known.seq == delivery.seq and len(known.hosts) >= STRIKES:
            delivery.ended = len(known.hosts)
        elif self._careful:
            delivery.care = self

    @asynccontextmanager
    async def handling(self, seq: int) -> AsyncIterator[None]:
        """Be known to handle it for as long as the block lasts; raises BusFault."""
        known = self._known
        hosts = known.hosts if known is not None and known.seq == seq else []
        await self._note(Recalling(self._bus.created, self._me, seq, [*hosts, self._me]))
        yield
        await self._note(Recalling(self._bus.created, self._me))

    async def end(self) -> None:
        """All is caught up with. Raises BusFault."""
        if self._known is not None:
            await self._nodes.delete(self._key, forget=FORGET)
            self._known, self._careful = None, False

    async def _note(self, wanted: Recalling) -> None:
        await self._nodes.put(self._key, encode(wanted), ttl=KEEP)
        self._known = wanted

    async def _read(self) -> Recalling | None:
        stored = await self._nodes.get(self._key)
        try:
            found = _decode(stored.data) if stored else None
        except UNREADABLE as error:
            log.warning("recall_unreadable", key=self._key, error=str(error))
            return None
        return found if found is not None and found.stream == self._bus.created else None
