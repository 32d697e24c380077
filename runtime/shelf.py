"""How one instance obeys its operator: messages put aside, skipped, or buried with its state.

Nothing is held for a paused key: its messages are in the stream, and its record says up to where
they were put aside. So it holds up nobody, for however long.
"""

import weakref
from typing import TYPE_CHECKING

import msgspec
import structlog

from runtime.bus import Stored
from runtime.packet import Packet
from runtime.pull import Delivery
from runtime.recall import Recall
from runtime.turn import Effects
from schemas import subjects
from schemas.control import Control, Kill
from schemas.record import NOTHING, Record

if TYPE_CHECKING:
    from runtime.instance import Instance

log = structlog.get_logger()

PAGE = 64


class Recalled(Delivery):
    """A message that was put aside, read back from the stream: nobody waits for its ack."""

    __slots__ = ()

    def __init__(self, stored: Stored) -> None:
        self.packet = Packet(stored.subject, "", stored.data, b"")
        self.care, self.ended = None, 0
        self.seq = stored.seq
        self.number = 0
        self.tries = 1

    def _say(self, what: bytes) -> None:
        pass


class Shelf:
    """Decides whether the front of an instance's queue may be applied now."""

    def __init__(self, instance: "Instance", key: str) -> None:
        # A cycle would outlive the instance: hosts count references, and hardly search for more.
        self._one: Instance = weakref.proxy(instance)
        self._mail = subjects.stored_mail(instance.kind.name, key)
        self._recalls = Recall(instance.system, instance.kind.name, key)
        self.recalled = 0
        """How many of what waits, from the front, were read back from the stream."""
        self.called = False
        """There may be something to do though nothing waits."""

    async def opens(self, record: Record, control: Control | None) -> bool:
        """Do what was said about this key; True if the front of the queue may be applied."""
        if control is not None and control.kill and control.is_kill_due(record.killed):
            if self.recalled or await self._recall(record, control.kill.upto):
                return True
            await self._start_afresh(record, control.kill)
            return False
        if control is not None and control.paused:
            if await self._skips_first(record, control):
                return True
            await self._put_aside(record)
            self.called = False
            return False
        if self.recalled:
            return True
        self.called = bool(record.parked)
        if not record.parked:
            await self._recalls.end()
        elif not await self._recall(record, record.parked):
            # All of it is gone: its time was over.
            await self._store(record, done=max(record.done, record.parked), parked=0)
            return False
        return bool(self._one.waiting)

    async def _recall(self, record: Record, upto: int, limit: int = PAGE) -> bool:
        """Put what comes after `done` in the stream before all that waits; False if none."""
        bus = self._one.system.bus
        page = await bus.read(self._mail, after=record.done, limit=limit)
        if not page and (first := await bus.at(record.done + 1, self._mail)):
            page = [first]  # a replica may be behind; the leader is not
        found = [Recalled(stored) for stored in page if stored.seq <= upto]
        if found:
            await self._recalls.begin()
        for one in found:
            self._recalls.examine(one)
        self._one.waiting.extendleft(reversed(found))
        self.recalled = len(found)
        return bool(found)

    async def _skips_first(self, record: Record, control: Control) -> bool:
        """A pause does not keep the first message from being skipped."""
        last = max(control.skips, default=0)
        if last <= record.done:
            return False
        self._take_back()
        if await self._recall(record, last, limit=1):
            if self._one.waiting[0].seq in control.skips:
                return True
            self._take_back()
        return False

    def _take_back(self) -> None:
        for _ in range(self.recalled):
            self._one.waiting.popleft()
        self.recalled = 0

    async def _put_aside(self, record: Record) -> None:
        """Note up to where messages came; only then are they acknowledged."""
        self._one.calm()
        self._take_back()
        waiting = list(self._one.waiting)
        last = waiting[-1].seq if waiting else 0
        if last > max(record.done, record.parked):
            await self._store(record, parked=last)
        for delivery in waiting:
            delivery.ack()
            self._one.waiting.popleft()
            self._one.settled(delivery)
        if waiting:
            log.info("messages_put_aside", actor=str(self._one.address), count=len(waiting))

    async def _start_afresh(self, record: Record, kill: Kill) -> None:
        """End the instance: no state, no reminders. What it has answered is still known."""
        done = max(record.done, kill.upto)
        parked = record.parked if record.parked > done else 0
        effects = Effects(record.timers)
        effects.timers = {}
        fresh = msgspec.structs.replace(
            record, data=NOTHING, done=done, parked=parked, killed=kill.number, timers={}
        )
        await self._one.store(fresh, effects)
        log.warning("instance_killed", actor=str(self._one.address), by=kill.by)

    async def _store(self, record: Record, **changes: int) -> None:
        new = msgspec.structs.replace(record, **changes)
        await self._one.store(new, Effects(record.timers))
