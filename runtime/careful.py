"""Finds the message that ends its host, and spares the others.

What a lost owner had in hand is handled under a mark (runtime/marker.py). A message that two
owners were lost over, marked, becomes a dead letter. Used by runtime/shard.py.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import structlog

from runtime.errors import BusFault, Conflict
from runtime.kv import Bucket
from runtime.marker import BUCKET, PAUSE
from runtime.pull import Delivery
from runtime.system import System
from schemas.envelope import UNREADABLE, encode
from schemas.suspects import SUSPECTS, Suspects

log = structlog.get_logger()

STRIKES = 2
"""Marked losses that make a dead letter. One came before them, or nothing had been marked."""
PATIENCE = 1.0
"""Seconds that a takeover waits for the bucket: it is not held up by it, only not counted."""

_decode = msgspec.json.Decoder(Suspects).decode
_replace = msgspec.structs.replace


class Careful:
    """What a shard's owners are told of each other, by a record in the bucket.

    Nothing here decides what is applied: what was committed is never buried.
    """

    def __init__(self, system: System, consumer: str) -> None:
        self._system = system
        self._me = system.incarnation
        self._consumer = consumer
        self._nodes = Bucket(system.bus, BUCKET)
        self._known = Suspects(stream="")
        self._writing = asyncio.Lock()
        self._was_marked = False
        self._acquitting: asyncio.Task[None] | None = None

    # -- taking over and leaving -----------------------------------------------------------

    async def take_over(self, floor: int, upto: int) -> None:
        """Note that this host has the shard now; others had been given messages up to `upto`.

        Who had it before and did not leave in good order was lost, whatever the reason.
        """

        async def inherit(known: Suspects) -> Suspects:
            return await self._inherit(known, floor, upto)

        self._was_marked = False
        if not await self._note(inherit):
            self._known = Suspects(stream=self._system.bus.created)

    async def note_orphans(self, upto: int) -> None:
        """Note how far a lost owner had got, before everybody forgets it by a reset."""

        async def note(known: Suspects) -> Suspects:
            lost = self._has_other_owner(known)
            return _replace(known, upto=max(known.upto, upto)) if lost else known

        await self._note(note)

    async def leave(self) -> None:
        """Note that the shard is given away in good order: what is left did nobody any harm."""

        async def go(known: Suspects) -> Suspects:
            return _replace(self._acquitted(known), owner="") if known.owner == self._me else known

        if self._acquitting is not None:
            self._acquitting.cancel()
        if self._known.owner == self._me and not self._system.broken:
            self._system.marker.clear()
            await self._note(go)

    def drop(self) -> None:
        """All is forgotten, but this host lives: none of it was at fault."""
        if self._was_marked and self._acquitting is None and not self._system.broken:
            self._acquitting = asyncio.create_task(self._acquit(), name="acquit")
            self._acquitting.add_done_callback(self._acquit_ended)

    # -- handling --------------------------------------------------------------------------

    def examine(self, delivery: Delivery) -> None:
        """Say of a message whether it is handled as any, with care, or not any more."""
        strikes = self._known.strikes.get(delivery.seq, [])
        if len(strikes) >= STRIKES:
            delivery.ended = len(strikes)
        elif delivery.seq <= self._known.upto:
            delivery.care = self

    @asynccontextmanager
    async def handling(self, seq: int) -> AsyncIterator[None]:
        """Be marked for as long as the block lasts; see `Marker.at`."""
        self._was_marked = True
        async with self._system.marker.at(self._consumer, seq):
            yield

    async def _acquit(self) -> None:
        """Whoever took this host for lost was mistaken."""

        async def acquit(known: Suspects) -> Suspects:
            return self._acquitted(known)

        while True:
            await self._system.bus.link.connected.wait()
            try:
                await self._change(acquit)
                return
            except BusFault as fault:
                log.debug("not_acquitted", consumer=self._consumer, error=str(fault))
            await asyncio.sleep(PAUSE)

    def _acquit_ended(self, task: asyncio.Task[None]) -> None:
        self._acquitting = None
        if not task.cancelled() and (error := task.exception()):
            log.error("acquit_failed", consumer=self._consumer, exc_info=error)

    # -- the record ------------------------------------------------------------------------

    def _has_other_owner(self, known: Suspects) -> bool:
        return known.stream == self._system.bus.created and known.owner not in ("", self._me)

    async def _inherit(self, known: Suspects, floor: int, upto: int) -> Suspects:
        """The record under this host's name, with what its last owner was lost over, if it was."""
        if known.stream != self._system.bus.created:
            return Suspects(stream=self._system.bus.created, owner=self._me)
        known = self._acquitted(known)
        strikes = {seq: owners for seq, owners in known.strikes.items() if seq > floor}
        if not self._has_other_owner(known):
            return _replace(known, owner=self._me, strikes=strikes)
        mark = await self._system.marker.read(known.owner)
        if mark is not None and mark.consumer == self._consumer and mark.seq > floor:
            strikes[mark.seq] = [*strikes.get(mark.seq, []), known.owner]
            log.warning("owner_lost_over", consumer=self._consumer, seq=mark.seq)
        upto = max(upto, known.upto)
        log.info("owner_lost", consumer=self._consumer, owner=known.owner, upto=upto)
        return _replace(known, owner=self._me, upto=upto, strikes=strikes)

    def _acquitted(self, known: Suspects) -> Suspects:
        """The record without what was laid at this host's door."""
        left = {
            seq: [one for one in owners if one != self._me] for seq, owners in known.strikes.items()
        }
        return _replace(known, strikes={seq: owners for seq, owners in left.items() if owners})

    async def _note(self, change: Callable[[Suspects], Awaitable[Suspects]]) -> bool:
        """Change the record if that can be done at once; returns whether it could."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._change(change)
        except (BusFault, TimeoutError) as fault:
            log.warning("suspects_not_noted", consumer=self._consumer, error=str(fault))
            return False
        return True

    async def _change(self, change: Callable[[Suspects], Awaitable[Suspects]]) -> None:
        """Read the record and change it if need be, by compare-and-set. Raises BusFault."""
        async with self._writing:
            while True:
                known, revision = await self._read()
                wanted = await change(known)
                with suppress(Conflict):
                    if wanted != known:
                        key = SUSPECTS + self._consumer
                        await self._nodes.replace(key, encode(wanted), revision)
                    self._known = wanted
                    return

    async def _read(self) -> tuple[Suspects, int]:
        stored = await self._nodes.get(SUSPECTS + self._consumer)
        if stored is None:
            return Suspects(stream=""), 0
        try:
            return _decode(stored.data), stored.seq
        except UNREADABLE as error:
            log.warning("suspects_unreadable", consumer=self._consumer, error=str(error))
            return Suspects(stream=""), stored.seq
