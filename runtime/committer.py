"""Gathers commits that wait at the same moment into one atomic batch.

A commit on a one-node file stream costs about the same whatever its size, so grouping is
what makes durability cheap. Source of the figures: bench/README.md.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from runtime.bus import DUPLICATE, GROUP_MESSAGES, Bus, Outgoing
from runtime.crash import crash_at
from runtime.errors import BusFault, Conflict, Denied

log = structlog.get_logger()

GROUP_BYTES = 900 * 1024


class Commit:
    """Messages that are stored together or not at all.

    `lanes` name what it touches; two commits that share a lane are never in one group, nor
    outstanding together.
    """

    __slots__ = ("done", "lanes", "messages", "size")

    def __init__(self, messages: Sequence[Outgoing], lanes: frozenset[str]) -> None:
        self.messages = messages
        self.lanes = lanes
        self.size = sum(message.size for message in messages)
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Committer:
    """Sends commits in groups, one group in flight.

    If it dies its host must die with it: `run` never returns.
    """

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.groups = 0
        self.committed = 0
        self._waiting: deque[Commit] = deque()
        self._wake = asyncio.Event()

    def submit(self, messages: Sequence[Outgoing], *lanes: str) -> asyncio.Future[int]:
        """Queue a commit; the future ends with the sequence of its first message.

        Or it raises Conflict, NoRoom or Denied (nothing was stored), Unavailable or ValueError
        (nothing was sent) or Unknown.
        """
        commit = Commit(messages, frozenset(lanes))
        self._waiting.append(commit)
        self._wake.set()
        return commit.done

    async def run(self) -> None:
        """Send groups until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while group := self._gather():
                await self._send(group)

    def _gather(self) -> list[Commit]:
        """Take what fits, in order; what shares a lane with something taken must wait."""
        group: list[Commit] = []
        lanes: set[str] = set()
        skipped: list[Commit] = []
        messages = size = 0
        while self._waiting and len(skipped) < GROUP_MESSAGES:
            commit = self._waiting.popleft()
            if lanes & commit.lanes:
                skipped.append(commit)
                lanes |= commit.lanes
                continue
            fits = messages + len(commit.messages) <= GROUP_MESSAGES
            if group and not (fits and size + commit.size <= GROUP_BYTES):
                self._waiting.appendleft(commit)
                break
            group.append(commit)
            lanes |= commit.lanes
            messages += len(commit.messages)
            size += commit.size
        self._waiting.extendleft(reversed(skipped))
        return group

    async def _send(self, group: list[Commit]) -> None:
        messages = [message for commit in group for message in commit.messages]
        try:
            crash_at("batch.before")
            first = await self.bus.commit(messages)
            crash_at("batch.after")
        except (Conflict, Denied, ValueError) as fault:
            await self._split(group, fault)
        except BusFault as fault:
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
            if isinstance(fault, Denied) and fault.code == DUPLICATE:
                log.error("duplicate_id_in_commit", error=str(fault))
            _settle(group, fault)
            return
        half = len(group) // 2
        await self._send(group[:half])
        await self._send(group[half:])


def _settle(group: list[Commit], fault: Exception) -> None:
    for commit in group:
        if not commit.done.done():
            commit.done.set_exception(fault)
