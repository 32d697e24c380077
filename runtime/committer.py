"""Gathers commits that wait at the same moment into one atomic batch.

A commit on a one-node file stream costs about the same whatever its size, so grouping is
what makes durability cheap. Source of the figures: bench/README.md.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from runtime.bus import GROUP_MESSAGES, Bus, Outgoing, expiry
from runtime.codes import DUPLICATE, INCOMPLETE
from runtime.crash import crash_at
from runtime.errors import FORBIDDEN, BusFault, Conflict, Denied, Forbidden, NoRoom

log = structlog.get_logger()

GROUP_BYTES = 900 * 1024
FLIGHTS = 2
WORTH_A_FLIGHT = 300
"""Messages that must wait before a second group leaves while one is on its way.

The server takes one batch after the other, and each costs it a millisecond whatever is in it:
a second one is only to spare it the wait for us.
"""
FEW = 8
"""So many commits of one message each are sooner stored one by one than as a batch."""

NOTHING = Outgoing("run.nothing", b"", expiry(timedelta(minutes=1)))
"""A message that says nothing, and makes a batch of what is said with it."""


class Commit:
    """Messages that are stored together or not at all.

    `lanes` name what it touches; two commits that share a lane are never in one group, nor
    outstanding together.
    """

    __slots__ = ("done", "lanes", "messages", "size")

    def __init__(self, messages: Sequence[Outgoing], lanes: Sequence[str]) -> None:
        self.messages = messages
        self.lanes = lanes
        self.size = sum([message.size for message in messages])
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Committer:
    """Sends commits in groups, at most `FLIGHTS` at the same time.

    If it dies its host must die with it: `run` never returns.
    """

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.groups = 0
        self.committed = 0
        self._waiting: deque[Commit] = deque()
        self._messages = 0
        """How many messages wait."""
        self._taken: set[str] = set()
        """The lanes of what is on its way."""
        self._flying = 0
        self._wake = asyncio.Event()
        self.no_room: Callable[[NoRoom], None] = lambda fault: None
        """Called when the server refuses for want of room."""
        self.forbidden: Callable[[Forbidden], None] = lambda fault: None
        """Called when permissions do not let us store something."""

    def submit(self, messages: Sequence[Outgoing], *lanes: str) -> asyncio.Future[int]:
        """Queue a commit; the future ends with the sequence of its first message.

        Or it raises Conflict, NoRoom or Denied (nothing was stored), Unavailable or ValueError
        (nothing was sent) or Unknown.
        """
        commit = Commit(messages, lanes)
        self._waiting.append(commit)
        self._messages += len(messages)
        self._wake.set()
        return commit.done

    async def run(self) -> None:
        """Send groups until cancelled."""
        async with asyncio.TaskGroup() as flights:
            for _ in range(FLIGHTS):
                flights.create_task(self._fly())

    async def _fly(self) -> None:
        """Send one group after another."""
        while True:
            group = self._gather()
            if not group:
                self._wake.clear()
                await self._wake.wait()
                continue
            lanes = {lane for commit in group for lane in commit.lanes}
            self._taken |= lanes
            self._flying += 1
            await self._send(group)
            self._flying -= 1
            self._taken -= lanes
            # What waited for one of these lanes may be for another flight.
            self._wake.set()

    def _gather(self) -> list[Commit]:
        """Take what fits, in order; what shares a lane with something taken must wait."""
        group: list[Commit] = []
        if self._flying and self._messages < WORTH_A_FLIGHT:
            return group
        lanes = set(self._taken)
        skipped: list[Commit] = []
        messages = size = 0
        while self._waiting and len(skipped) < GROUP_MESSAGES:
            commit = self._waiting.popleft()
            if not lanes.isdisjoint(commit.lanes):
                skipped.append(commit)
                lanes.update(commit.lanes)
                continue
            fits = messages + len(commit.messages) <= GROUP_MESSAGES
            if group and not (fits and size + commit.size <= GROUP_BYTES):
                self._waiting.appendleft(commit)
                break
            group.append(commit)
            lanes.update(commit.lanes)
            messages += len(commit.messages)
            size += commit.size
        self._waiting.extendleft(reversed(skipped))
        self._messages -= messages
        return group

    async def _send(self, group: list[Commit]) -> None:
        if 1 < len(group) <= FEW and all(len(commit.messages) == 1 for commit in group):
            await asyncio.gather(*(self._store([commit]) for commit in group))
        else:
            await self._store(group)

    async def _store(self, group: list[Commit]) -> None:
        messages = [message for commit in group for message in commit.messages]
        try:
            crash_at("batch.before")
            first = await self.bus.commit(messages)
            crash_at("batch.after")
        except (Conflict, Denied, ValueError) as fault:
            await self._split(group, fault)
        except BusFault as fault:
            if isinstance(fault, NoRoom):
                self.no_room(fault)
            _settle(group, fault)
        else:
            self.groups += 1
            self.committed += len(group)
            for commit in group:
                if not commit.done.done():
                    commit.done.set_result(first)
                first += len(commit.messages)

    async def _split(self, group: list[Commit], fault: Exception) -> None:
        """One bad commit refuses its whole group: halve it until it stands alone."""
        if len(group) == 1:
            fault = await self._explain(fault, group[0].messages)
            if isinstance(fault, Denied) and fault.code == DUPLICATE:
                log.error("duplicate_id_in_commit", error=str(fault))
            _settle(group, fault)
            return
        half = len(group) // 2
        await self._send(group[:half])
        await self._send(group[half:])

    async def _explain(self, fault: Exception, messages: Sequence[Outgoing]) -> Exception:
        """A batch is called incomplete, too, if a part is forbidden, or if the disk is full."""
        if not isinstance(fault, Denied) or fault.code not in (INCOMPLETE, FORBIDDEN):
            return fault
        refused = [m.subject for m in messages if m.subject.lower() in self.bus.link.refused]
        if refused:
            fault = Forbidden(refused[0])
            self.forbidden(fault)
        elif fault.code == INCOMPLETE and not await self._takes_batches():
            fault = NoRoom("the server takes no batch at all; its disk may be full")
            self.no_room(fault)
        return fault

    async def _takes_batches(self) -> bool:
        """Whether one that means nothing goes through: else no message is at fault."""
        try:
            await self.bus.commit([NOTHING, NOTHING])
        except BusFault as fault:
            log.warning("no_batch_taken", error=str(fault))
            return False
        return True


def _settle(group: list[Commit], fault: Exception) -> None:
    for commit in group:
        if not commit.done.done():
            commit.done.set_exception(fault)
