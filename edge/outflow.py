"""Answers that are sent piece by piece, to a peer that may leave or stop reading at any time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import structlog
from starlette.types import Receive, Scope, Send

from edge.problem import quote

log = structlog.get_logger("edge")

WRITE_WITHIN = 10.0
"""Seconds in which a peer must take what is sent. Then it is closed."""

Write: TypeAlias = Callable[[bytes], Awaitable[None]]
Produce: TypeAlias = Callable[[Write], Awaitable[None]]


class _Watch:
    """Ends a task that is writing for too long.

    `asyncio.timeout` makes a timer for each write; this one sets its timer again when it fires.
    """

    def __init__(self, within: float) -> None:
        self.stalled = False
        """The peer has not read for too long."""
        self._within = within
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, task: asyncio.Task[None]) -> None:
        """Say whom to end."""
        self._task = task

    async def over(self, writing: Awaitable[None]) -> None:
        """Wait for one write."""
        self._due = self._loop.time() + self._within
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._look)
        try:
            await writing
        finally:
            self._due = 0.0

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if not self._due:
            return
        if self._due > self._loop.time():
            self._timer = self._loop.call_at(self._due, self._look)
        elif self._task is not None:
            self.stalled = True
            self._task.cancel()


class _Answer:
    """Sends a head before the first word, and then what is written."""

    def __init__(self, send: Send, headers: Mapping[str, str], watch: _Watch) -> None:
        self._send = send
        self._headers = headers
        self._watch = watch
        self._begun = False

    async def give(self, produce: Produce) -> None:
        """Send all that `produce` writes."""
        await produce(self._write)
        await self._write(b"", more=False)

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        if not self._begun:
            self._begun = True
            raw = [(name.lower().encode(), value.encode()) for name, value in self._headers.items()]
            start = {"type": "http.response.start", "status": 200, "headers": raw}
            await self._watch.over(self._send(start))
        message = {"type": "http.response.body", "body": body, "more_body": more}
        await self._watch.over(self._send(message))


async def pour(
    scope: Scope,
    receive: Receive,
    send: Send,
    headers: Mapping[str, str],
    produce: Produce,
    *,
    within: float = WRITE_WITHIN,
) -> None:
    """Send a 200 whose body `produce` writes, until it is done or its peer is.

    `produce` is cancelled when the peer leaves. What it raises is raised here: the answer is
    then cut off, never completed. Nothing is sent before its first word, so that what is raised
    by then can be answered with a status; `headers` are read then.
    """
    watch = _Watch(within)
    answer = _Answer(send, headers, watch)
    tasks = [asyncio.create_task(answer.give(produce)), asyncio.create_task(until_left(receive))]
    watch.watch(tasks[0])
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watch.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if watch.stalled:
        log.info("peer_stalled", path=quote(scope["path"]), seconds=within)
    elif not tasks[0].cancelled():
        tasks[0].result()


async def until_left(receive: Receive) -> None:
    """Return when the peer has closed the connection; its request has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
