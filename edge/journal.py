"""The relay's log: its newest lines, all of it as JSONL, and its lines as they come."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge import shapes
from edge.asking import answer, wait_for_bus
from edge.auth import READ, stream_owner
from edge.feeds import TopicFeed, open_feed
from edge.newest import read_newest
from edge.openapi import AFTER
from edge.operation import Operation, Parameter
from edge.outflow import Write, pour
from edge.parameters import HIGHEST_SEQUENCE, read_cursor, read_int
from edge.problem import Refusal
from edge.reach import find_reach
from edge.shared import Shared
from edge.sse import PER_KEY, EventStream
from runtime.bus import Bus, Stored
from runtime.errors import Unavailable
from schemas import subjects
from schemas.envelope import Envelope
from schemas.relay import LOG, Logged

TAG = "relay"
SUBJECT = subjects.event(LOG)
CLEAR = "clear"
GONE = "The log does not reach back to the cursor any more, or has been started anew"

DEFAULT = 100
MOST = 1000
PAGE = 64
MOST_BYTES = 8 * 1024 * 1024
"""What one answer holds of the log at most, as it is stored."""
READERS = 2
"""How many read the log at a time: what it holds has to pass through one connection."""
JSONL = "application/jsonl"
LATE_TRIES = 40
LATE_WAIT = 0.05

BOUNDED = (
    "Those since the log was last cleared, and no more than fit into "
    f"{MOST_BYTES // 2**20} MiB: `/api/relay/log.jsonl` has all of them."
)
ARCHIVED = (
    "Lines are kept for 30 days; older ones are in the archives that `callboard export` has made. "
    "Each line tells its cursor: ask again after the last one for what has come since."
)

LIMIT = Parameter(
    "limit",
    Annotated[int, msgspec.Meta(ge=1, le=MOST)],
    "How many lines at most.",
    default=DEFAULT,
)
LINES = Parameter(
    "limit",
    Annotated[int, msgspec.Meta(ge=1)],
    "How many lines at most; all of them if it is not given.",
)

_decode = msgspec.json.Decoder(Envelope[Logged]).decode


class LogEvent(Envelope[Logged], frozen=True, kw_only=True):
    """One line of the log as an event; a `reset` has a `reason` and a `snapshot` instead."""


class Journal:
    """The operations on the relay's log."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._reading = asyncio.Semaphore(READERS)

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        common: dict[str, Any] = {"scope": READ, "error": shapes.Failed, "tag": TAG}
        return (
            Operation(
                "GET",
                "/api/relay/logs",
                self.newest,
                "Read the newest lines of the log",
                name="logs",
                description=BOUNDED,
                answers={200: shapes.Log},
                query=(LIMIT,),
                **common,
            ),
            Operation(
                "GET",
                "/api/relay/log.jsonl",
                self.export,
                "Read the whole log, oldest first",
                name="export_log",
                description=ARCHIVED,
                answers={200: shapes.LogRecord, 410: GONE},
                media=JSONL,
                query=(AFTER, LINES),
                **common,
            ),
            Operation(
                "GET",
                "/api/relay/log/events",
                self.follow,
                "Follow the log, from now on or from a cursor",
                name="follow_log",
                answers={200: "Its lines, each with its sequence as the id"},
                stream_event=LogEvent,
                **common,
            ),
        )

    async def newest(self, request: Request) -> Response:
        """Answer the newest lines since the log was last cleared."""
        limit = read_int(request, "limit", default=DEFAULT, low=1, high=MOST)
        await wait_for_bus(self._shared.bus)
        return answer(shapes.Log("ok", await self._newest(limit)))

    async def export(self, request: Request) -> Response:
        """Answer every line after a cursor, as far as the log goes now."""
        after = read_cursor(request) or 0
        limit = read_int(request, "limit", default=HIGHEST_SEQUENCE, low=1, high=HIGHEST_SEQUENCE)
        bus = self._shared.bus
        await wait_for_bus(bus)
        reach = await find_reach(bus, SUBJECT, after, self._shared.hub.event_ttl)
        if reach.reason:
            detail = f"after={after}: {reach.reason}; read from the beginning, with after=0"
            raise Refusal(410, "cursor_gone", detail)
        newest = await bus.last(SUBJECT)
        return Export(bus, self._reading, after, newest.seq if newest else 0, limit)

    async def follow(self, request: Request) -> EventStream:
        """Answer a stream of the log's lines."""
        after = read_cursor(request)

        async def open_source() -> TopicFeed:
            await wait_for_bus(self._shared.bus)
            return await open_feed(self._shared.hub, LOG, after, self._snapshot)

        owner = stream_owner(request)
        return EventStream(self._shared.streams, owner, open_source, most=PER_KEY)

    async def _snapshot(self) -> Any:
        return await self._newest(DEFAULT)

    async def _newest(self, limit: int) -> list[shapes.LogRecord]:
        lines: list[shapes.LogRecord] = []
        async with self._reading:
            found = await read_log(self._shared.bus, limit + 1)
        for stored in found:
            line = read_line(stored)
            if line is not None and line.event == CLEAR:
                lines.clear()
            elif line is not None:
                lines.append(line)
        return lines[-limit:]


class Export(Response):
    """An answer that holds a page of the log at a time, however long the log is."""

    def __init__(
        self, bus: Bus, reading: asyncio.Semaphore, after: int, upto: int, limit: int
    ) -> None:
        self.status_code, self.background = 200, None
        self._bus = bus
        self._reading = reading
        self._after = after
        self._upto = upto
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it; cut off, not completed, if the log cannot be read on."""
        Request(scope).state.patient = True
        headers = {"Content-Type": f"{JSONL}; charset=utf-8"}
        await pour(scope, receive, send, headers, self._produce)

    async def _produce(self, write: Write) -> None:
        left = self._limit
        async for page in self._pages():
            lines = [line for stored in page if (line := read_line(stored, cursor=True))]
            await write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines[:left]))
            left -= len(lines)
            if left <= 0:
                return

    async def _pages(self) -> AsyncIterator[list[Stored]]:
        while self._after < self._upto:
            page = await self._page()
            self._after = page[-1].seq
            yield [stored for stored in page if stored.seq <= self._upto]

    async def _page(self) -> list[Stored]:
        """The next lines, of which there are some: a replica may only be late."""
        for _ in range(LATE_TRIES):
            async with self._reading:
                page = await self._bus.read(SUBJECT, after=self._after, limit=PAGE)
            if page:
                return page
            await asyncio.sleep(LATE_WAIT)
        raise Unavailable(f"the log cannot be read beyond {self._after}")


async def read_log(bus: Bus, count: int) -> list[Stored]:
    """Return the newest events of the log. Raises Unavailable if a replica stays behind."""
    for _ in range(LATE_TRIES):
        newest = await bus.last(SUBJECT)
        found = await read_newest(bus, SUBJECT, count, MOST_BYTES)
        if newest is None or (found and found[-1].seq >= newest.seq):
            return found
        await asyncio.sleep(LATE_WAIT)
    raise Unavailable("the log cannot be read as far as it goes")


def read_line(stored: Stored, *, cursor: bool = False) -> shapes.LogRecord | None:
    """Return a stored event as a line of the log, None if it is something else."""
    try:
        said = _decode(stored.data).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return shapes.LogRecord(
        cursor=stored.seq if cursor else 0,
        event=said.event,
        task_id=said.task_id,
        ts=f"{said.at:%Y-%m-%d %H:%M:%S}",
        **_fields(said),
    )


def _fields(said: Logged) -> Mapping[str, Any]:
    """What a line has besides, by what it tells of."""
    if said.order is not None:
        return shapes.order_fields(said.order)
    if said.event == "callback":
        fields = {"child_id": said.child_id, "status": said.status, "result": said.result}
        return fields | ({"reason": said.reason} if said.reason else {})
    return {"by" if said.event == CLEAR else "ack_by": said.by}
