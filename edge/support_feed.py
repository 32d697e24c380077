"""A session as its customer follows it: what the bot and people say, and who may speak.

For EventSource, which can only GET. It goes on where it was lost, by the id of the last event.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge.auth import Principal, principal_of
from edge.company import accompany, customer_of, typed
from edge.feeds import AGAIN_AFTER, AT_ONCE
from edge.following import Following, Reset
from edge.outflow import Write, pour
from edge.ownfeed import Foreign, OwnFeed
from edge.parameters import read_cursor
from edge.problem import Refusal, quote
from edge.remembered import NO_CONVERSATION, Remembered, may_read
from edge.seats import Seats
from edge.shared import Shared
from edge.sse import HEADERS, HEARTBEAT, IN_TOTAL, MEDIA, Source, accepts
from edge.standing import Standing
from edge.support_asking import user_of
from edge.support_events import Retelling, agent_info, stamp, write_event
from edge.support_shapes import NAMED
from runtime.bus import new_id
from runtime.errors import BusFault
from runtime.tables import SupportTable
from schemas.model import conversation_topic

log = structlog.get_logger("edge")

NAMES = ("session_name", "user_id", "session_id")
JOINED = ""


@dataclass(frozen=True)
class Feeds:
    """What the feeds of sessions are made from."""

    shared: Shared
    remembered: Remembered
    standing: Standing
    seats: Seats
    limits: SupportTable

    async def follow(self, request: Request) -> Response:
        """Answer a stream of what happens in a session. Raises Refusal 400."""
        named, after = _read_session(request), read_cursor(request)
        principal = principal_of(request)
        session = named or new_id()

        async def open_source() -> Source:
            owner = await self._check(session, principal) if named else ""
            following = await self.shared.hub.follow(conversation_topic(session), after)
            feed = SessionFeed(session, following, self.standing, joins=after is None)
            colleague = principal.kind == "agent"
            me = None if colleague else customer_of(principal, session)
            presence = self.shared.presence
            source = accompany(
                feed, presence, session, principal, colleague=colleague, me=me, write=typed
            )
            find = self.remembered.find_conversation
            return OwnFeed(source, session, principal, find, owner)

        # Who names no session is somebody else on each connection.
        user = user_of(principal, named) if named else None
        return SessionStream(self.shared, self.seats, self.limits, user, open_source)

    async def _check(self, session: str, principal: Principal) -> str:
        """Return whose a session is, nothing if nobody's yet. Raises Refusal 404."""
        state = await self.remembered.find_conversation(session)
        if state is not None and not may_read(principal, session, state):
            raise Refusal(404, "conversation_not_found", NO_CONVERSATION)
        return state.owner if state else ""


class SessionFeed:
    """The events of a session, as its customer is told them."""

    def __init__(
        self, session: str, following: Following, standing: Standing, *, joins: bool
    ) -> None:
        self.first = b""
        self._session = session
        self._following = following
        self._standing = standing
        self._retelling = Retelling()
        self._hole: Reset | None = None
        if joins:
            following.restart(Reset(following.cursor, JOINED))
        elif following.cursor and not following.has_hole:
            self.first = b"id: %d\n\n" % following.cursor

    async def next(self) -> bytes:
        """Return what comes next, together with what is there already."""
        while True:
            if self._hole is None:
                item = await anext(self._following)
                if isinstance(item, Reset):
                    self._hole = item
                    continue
                told, event = [self._retelling.hear(item)], self._following.ready()
                while event is not None and sum(map(len, told)) < AT_ONCE:
                    told.append(self._retelling.hear(event))
                    event = self._following.ready()
                if event is not None:
                    told.append(self._retelling.hear(event))
                if said := b"".join(told):
                    return said
                continue
            said, cursor = await self._join(self._hole)
            self._following.skip(cursor)
            self._hole = None
            return said

    def close(self) -> None:
        """Follow no more."""
        self._following.close()

    async def _join(self, hole: Reset) -> tuple[bytes, int]:
        """How the session stands where the feed begins, or goes on behind a hole; and where."""
        while True:
            try:
                now = await self._standing.now(self._session)
                break
            except BusFault as fault:
                log.debug("session_not_read", error=str(fault))
                await asyncio.sleep(AGAIN_AFTER)
        self._retelling = Retelling()
        cursor = max(hole.cursor, now.cursor)
        hold = now.state.hold
        said = [write_event("reset", reason=hole.reason)] if hole.reason else []
        for one in now.running:
            self._retelling.seed(one.task_id, one.run, one.attempt, one.n, one.text)
            if one.text:
                said.append(write_event("answer", content=one.text, message_id=one.run))
        connected = write_event(
            "connected",
            session_name=self._session,
            status=hold.mode,
            conversation_id=now.state.thread or None,
            agent_info=agent_info(hold.assignee),
            timestamp=stamp(datetime.now(UTC)),
            cursor=cursor,
        )
        return b"".join([*said, connected]), cursor


class SessionStream(Response):
    """An answer that is such a feed; it ends when nothing was said for long."""

    def __init__(
        self,
        shared: Shared,
        seats: Seats,
        limits: SupportTable,
        user: str | None,
        open_source: Callable[[], Awaitable[Source]],
    ) -> None:
        # As Starlette's own streams do, which send their headers themselves.
        self.status_code, self.background = 200, None
        self._streams = shared.streams
        self._seats = seats
        self._limits = limits
        self._user = user
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
        with self._streams.seat(self, None, IN_TOTAL), self._streams.by_login(self, login):
            async with self._seats.held(self._user):
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

    async def _say(self, source: Source, send: Write) -> None:
        # Each client its own pause, or all would come back in the same moment.
        await send(b":\nretry: %d\n\n" % random.randint(1000, 4000) + source.first)
        idle_at = time.monotonic() + self._limits.idle.total_seconds()
        while not self._ended:
            left = idle_at - time.monotonic()
            if left <= 0:
                break
            try:
                said = await self._next(source, min(left, self._limits.heartbeat.total_seconds()))
            except Foreign:
                # EventSource comes back, and is refused for good.
                return
            if said:
                idle_at = time.monotonic() + self._limits.idle.total_seconds()
            await send(said or HEARTBEAT)
        await send(write_event("idle", reason="server_stopping" if self._ended else "idle"))

    async def _next(self, source: Source, within: float) -> bytes:
        try:
            async with asyncio.timeout(within) as self._waiting:
                return await source.next()
        except TimeoutError:
            return b""
        finally:
            self._waiting = None


def _read_session(request: Request) -> str:
    """The session that is named, in one way or in several that agree. Raises Refusal 400."""
    values = [(name, value) for name in NAMES for value in request.query_params.getlist(name)]
    for name, value in values:
        if not NAMED.fullmatch(value):
            detail = f"{name!r} is {quote(value)}, expected 1 to 128 letters, digits or any of"
            raise Refusal(400, "invalid_parameter", f"{detail} _ . @ : + = ~ -")
        if value != values[0][1]:
            detail = f"{name!r} names another session than {values[0][0]!r}; send one"
            raise Refusal(400, "invalid_parameter", detail)
    return values[0][1] if values else ""
