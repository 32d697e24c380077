"""Server-sent events: how a feed is written, kept alive, counted and ended.

What is in a feed comes from a `Source`; for topics that is `edge/feeds.py`.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge.outflow import WRITE_WITHIN, Write, pour
from edge.problem import Refusal, quote

MEDIA = "text/event-stream"
HEADERS = {
    "Content-Type": f"{MEDIA}; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}

HEARTBEAT_EVERY = 15.0
HEARTBEAT = b":\n\n"
BYE = b"event: bye\ndata: {}\n\n"

PER_PRINCIPAL = 3
PER_KEY = 100
"""A key of the relay is shared: by pages, programs, children."""
IN_TOTAL = 1000


class Source(Protocol):
    """What a feed says. Waiting for the next piece may be cancelled and begun again."""

    first: bytes
    """What is to be said at once."""

    async def next(self) -> bytes:
        """Return the next event, or several, written as blocks. Raises to end the feed."""
        ...

    def close(self) -> None:
        """Say no more."""
        ...


class Ending(Protocol):
    """What may be told that the process is about to stop."""

    def end(self) -> None:
        """Come to an end."""
        ...


def block(name: str, data: Any, *, cursor: int | None = None) -> bytes:
    """Return one event as it is written; `cursor` is where a client resumes after it."""
    place = b"" if cursor is None else b"id: %d\n" % cursor
    return b"%bevent: %b\ndata: %b\n\n" % (place, name.encode(), msgspec.json.encode(data))


class Streams:
    """The feeds that this process has open: how many there may be, and how they end."""

    def __init__(self, *, in_total: int = IN_TOTAL) -> None:
        self.heartbeat = HEARTBEAT_EVERY
        self.write_within = WRITE_WITHIN
        self._in_total = in_total
        self._open: set[Ending] = set()
        self._by_principal: Counter[str] = Counter()
        self._by_login: dict[str, set[Ending]] = {}
        self._ending = False

    @property
    def count(self) -> int:
        """How many feeds are open."""
        return len(self._open)

    @property
    def logins(self) -> list[str]:
        """The logins by which somebody follows something."""
        return list(self._by_login)

    def end_login(self, login: str) -> None:
        """Say goodbye on every feed that was opened by a login, which counts no more."""
        for stream in list(self._by_login.get(login, ())):
            stream.end()

    def end(self) -> None:
        """Say goodbye on every feed, and open no more."""
        self._ending = True
        for stream in list(self._open):
            stream.end()

    @contextlib.contextmanager
    def by_login(self, stream: Ending, login: str) -> Iterator[None]:
        """Note by which login a feed is open, if by any, for as long as it is."""
        if not login:
            yield
            return
        self._by_login.setdefault(login, set()).add(stream)
        try:
            yield
        finally:
            self._by_login[login].discard(stream)
            if not self._by_login[login]:
                del self._by_login[login]

    @contextlib.contextmanager
    def seat(self, stream: Ending, principal: str | None, most: int) -> Iterator[None]:
        """Count a feed for as long as it is open.

        Raises Refusal 429 for more than `most` of a principal, 503 for one too many of all. Who
        has no name (None) is somebody else on each connection.
        """
        if self._ending or len(self._open) >= self._in_total:
            detail = "no more streams are opened here at the moment; try again soon"
            retry = {"Retry-After": str(random.randint(1, 5))}
            raise Refusal(503, "too_many_streams", detail, headers=retry)
        if principal is not None and self._by_principal[principal] >= most:
            detail = f"Too many concurrent connections: {most} streams are open"
            raise Refusal(429, "too_many_streams", detail, headers={"Retry-After": "5"})
        self._open.add(stream)
        if principal is not None:
            self._by_principal[principal] += 1
        try:
            yield
        finally:
            self._open.discard(stream)
            if principal is not None:
                self._by_principal[principal] -= 1
                if not self._by_principal[principal]:
                    del self._by_principal[principal]


class EventStream(Response):
    """An answer that is a feed. It is counted, and its source opened, once it is served.

    Everything is released however it ends.
    """

    def __init__(
        self,
        streams: Streams,
        principal: str | None,
        open_source: Callable[[], Awaitable[Source]],
        *,
        most: int = PER_PRINCIPAL,
    ) -> None:
        # As its siblings in Starlette do, which send their headers themselves.
        self.status_code, self.background = 200, None
        self._streams = streams
        self._principal = principal
        self._most = most
        self._open_source = open_source
        self._waiting: asyncio.Timeout | None = None
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the feed. Raises Refusal before anything is sent."""
        request = Request(scope)
        request.state.patient = True
        if not accepts(request, MEDIA):
            accept = quote(request.headers.get("accept", ""))
            raise Refusal(406, "not_acceptable", f"Accept is {accept}, this is {MEDIA}")
        login = str(scope["state"].get("login", ""))
        with (
            self._streams.seat(self, self._principal, self._most),
            self._streams.by_login(self, login),
        ):
            source = await self._open_source()
            try:
                within = self._streams.write_within
                await pour(
                    scope, receive, send, HEADERS, lambda w: self._say(source, w), within=within
                )
            finally:
                source.close()

    def end(self) -> None:
        """Say goodbye as soon as what is being said is said."""
        self._ended = True
        if self._waiting is not None:
            # It may be expiring at this very moment, which does as well.
            with contextlib.suppress(RuntimeError):
                self._waiting.reschedule(asyncio.get_running_loop().time())

    async def _say(self, source: Source, write: Write) -> None:
        # Each client its own pause, or all would come back in the same moment.
        await write(b":\nretry: %d\n\n" % random.randint(1000, 4000) + source.first)
        while not self._ended:
            await write(await self._next(source))
        await write(BYE)

    async def _next(self, source: Source) -> bytes:
        try:
            async with asyncio.timeout(self._streams.heartbeat) as self._waiting:
                return await source.next()
        except TimeoutError:
            return HEARTBEAT
        finally:
            self._waiting = None


def accepts(request: Request, media: str) -> bool:
    """Return whether a client takes an answer of this type (RFC 9110 12.5.1).

    The most precise of its ranges decides. It takes anything if it says nothing.
    """
    header = ",".join(request.headers.getlist("accept"))
    if not header.strip():
        return True
    ranges = ["*/*", f"{media.partition('/')[0]}/*", media]
    best, quality = -1, 0.0
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name in ranges and ranges.index(name) >= best:
            best, quality = ranges.index(name), _quality(parameters)
    return quality > 0


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
