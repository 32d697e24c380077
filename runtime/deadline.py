"""Ends what takes too long, with one timer for all that run: `asyncio.timeout` has one for each."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Deadline:
    """So many seconds that each of any number of tasks may take."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[asyncio.Task[Any], float] = {}
        """When each must be done: as all have the same time, the first is the next."""
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def keep(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await it in the current task; raises TimeoutError if it takes too long."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._ends[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        try:
            return await work
        except asyncio.CancelledError:
            # Somebody else may have cancelled it as well; that goes before.
            if task in self._late and task.cancelling() == 1:
                raise TimeoutError from None
            raise
        finally:
            self._ends.pop(task, None)
            if task in self._late:
                self._late.remove(task)
                task.uncancel()

    def _look(self) -> None:
        """Cancel those whose time is over; wait for the next, if there is one."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, end in list(self._ends.items()):
            if end > loop.time():
                self._timer = loop.call_at(end, self._look)
                return
            del self._ends[task]
            self._late.add(task)
            task.cancel()
