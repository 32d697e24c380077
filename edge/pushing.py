"""A remote child's tasks as a feed: no more of them at a time than the child has slots."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from edge.following import Event
from edge.leasing import Claim, lease
from edge.shapes import LeasedTask
from edge.shared import Shared
from edge.sse import block
from runtime.errors import AskTimeout, BusFault, Refused
from schemas.base import tag_of
from schemas.relay import TaskCompleted, TaskFailed, TaskReturned, task_topic

log = structlog.get_logger("edge")

AGAIN_AFTER = 1.0
OVER = frozenset(tag_of(each) for each in (TaskCompleted, TaskFailed, TaskReturned))


class TaskSource:
    """Leases tasks one by one, and watches each until it is over."""

    def __init__(self, shared: Shared, name: str, claim: Claim, slots: int) -> None:
        self.first = b""
        self._shared = shared
        self._name = name
        self._claim = claim
        self._free = asyncio.Semaphore(slots)
        self._blocks: asyncio.Queue[bytes | BaseException] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._start(self._fill())

    async def next(self) -> bytes:
        """Return the next task as an event. Raises what kept it from coming."""
        found = await self._blocks.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """Take no more tasks. Those that are out stay the child's until their leases end."""
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"tasks {self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._blocks.put_nowait(error)

    async def _fill(self) -> None:
        while True:
            await self._free.acquire()
            try:
                taken = await self._take()
            except (Refused, AskTimeout, BusFault) as fault:
                log.warning("task_not_leased", child=self._name, error=str(fault))
                self._free.release()
                await asyncio.sleep(AGAIN_AFTER)
                continue
            if taken is None:
                return
            task, cursor = taken
            self._blocks.put_nowait(block("task", task))
            self._start(self._watch(task, cursor))

    async def _take(self) -> tuple[LeasedTask, int] | None:
        """The next task, and the cursor of its job; None if no more come."""
        jobs = self._shared.jobs(self._name)
        while delivery := await jobs.next(None):
            if task := await lease(self._shared.bus, delivery, self._claim):
                return task, delivery.seq
        return None

    async def _watch(self, task: LeasedTask, cursor: int) -> None:
        """Wait until a task is over: what is said of it after its job was made tells."""
        try:
            following = await self._follow(task, cursor)
            try:
                async for item in following:
                    if not isinstance(item, Event) or item.name in OVER:
                        return
            finally:
                following.close()
        finally:
            self._free.release()

    async def _follow(self, task: LeasedTask, cursor: int) -> Any:
        while True:
            try:
                return await self._shared.hub.follow(task_topic(task.task_id), cursor)
            except BusFault:
                await asyncio.sleep(AGAIN_AFTER)
