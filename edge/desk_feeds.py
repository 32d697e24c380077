"""Feeds for agents: the live queue of their teams, and one session with what colleagues say.

Each begins with a `reset` that tells how things stand, unless a cursor comes with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from edge.attendance import Attendance
from edge.auth import DESK_LEAD, DESK_READ, Principal, principal_of, stream_owner
from edge.board import Board
from edge.company import accompany, accompany_desk, typed
from edge.desk_events import DeskTelling, tell_internal, write_board
from edge.desk_history import read_messages
from edge.feeds import AGAIN_AFTER, JOINED
from edge.following import Event, Reset
from edge.merging import Merged, follow_all
from edge.operation import Operation
from edge.parameters import read_cursor
from edge.remembered import NO_CONVERSATION
from edge.session_shapes import case_of, view_of
from edge.sessions import FIRST_SCREEN, NAME, TAG, Sessions
from edge.shared import Shared
from edge.sse import PER_KEY, EventStream, Source, Streams
from edge.standing import Now, Standing
from edge.support_events import Retelling, write_event
from edge.support_shapes import SupportError
from runtime.errors import BusFault
from schemas import subjects
from schemas.base import Topic, token
from schemas.desk import AgentView, DeskState
from schemas.envelope import UNREADABLE
from schemas.model import conversation_topic
from schemas.ownership import DESK, desk_topic, internal_topic
from schemas.record import Record

log = structlog.get_logger("edge")

Tell = Callable[[int, Event], bytes]
Snapshot = Callable[[str], Awaitable[tuple[bytes, int]]]
"""Tells how things stand, and where, for the reason given."""

QUEUE = (
    "The first event is a `reset` with the queue, the sessions that people have or are waited for "
    "in, and the agents. Then come `session_update`, `sla_alert`, `agent_update`, `approval` and "
    "`approval_decided`, each with an id to go on from, and `typing` and `presence` without one. "
    "While it is open the agent is taken to be there."
)
CLOSELY = (
    "What the customer reads, and beside it what colleagues do: `transition`, `note`, `mail`, "
    "`draft_piece` and `draft`, in one order with one cursor. It begins with a `reset` that has "
    "the session, its last messages, and what a model has said so far."
)

_decode_record = msgspec.json.Decoder(Record).decode
_decode_desk = msgspec.json.Decoder(DeskState).decode


class MergedFeed:
    """Topics as a feed of server-sent events; after a hole it tells how things stand."""

    def __init__(
        self, merged: Merged, tell: Tell, snapshot: Snapshot, *, after: int | None
    ) -> None:
        self._merged = merged
        self._tell = tell
        self._snapshot = snapshot
        self._hole: str | None = JOINED if after is None else None
        self.first = b"" if not after else b"id: %d\n\n" % after

    async def next(self) -> bytes:
        """Return what comes next, together with what is there already."""
        while True:
            if self._hole is None:
                found = await self._merged.next()
                if isinstance(found, Reset):
                    self._hole = found.reason
                elif said := b"".join(self._tell(number, event) for number, event in found):
                    return said
                continue
            said, cursor = await self._look(self._hole)
            self._merged.skip(cursor)
            self._hole = None
            return said

    def close(self) -> None:
        """Follow no more."""
        self._merged.close()

    async def _look(self, reason: str) -> tuple[bytes, int]:
        while True:
            try:
                return await self._snapshot(reason)
            except BusFault as fault:
                log.debug("snapshot_not_made", error=str(fault))
                await asyncio.sleep(AGAIN_AFTER)


class DeskFeeds:
    """The operations that follow desks and sessions."""

    def __init__(
        self,
        shared: Shared,
        sessions: Sessions,
        board: Board,
        standing: Standing,
        attendance: Attendance,
        team: str,
    ) -> None:
        self._shared = shared
        self._sessions = sessions
        self._board = board
        self._standing = standing
        self._attendance = attendance
        self._team = team

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        common: dict[str, Any] = {
            "scope": DESK_READ,
            "answers": {200: "Its events, each with its sequence as the id"},
            "stream_event": dict[str, Any],
            "error": SupportError,
            "tag": TAG,
        }
        answers = {**common.pop("answers"), 404: NO_CONVERSATION}
        return (
            Operation(
                "GET",
                "/api/agent/events",
                self.follow_desk,
                "Follow the live queue",
                name="follow_desk",
                description=QUEUE,
                answers={200: answers[200]},
                **common,
            ),
            Operation(
                "GET",
                "/api/sessions/{name}/events",
                self.follow_session,
                "Follow a session, with what colleagues do",
                name="follow_session_closely",
                description=CLOSELY,
                answers=answers,
                variables=(NAME,),
                **common,
            ),
        )

    # -- the queue -------------------------------------------------------------------------

    async def follow_desk(self, request: Request) -> "AttendedStream":
        """Answer a stream of what happens at the desks."""
        principal, after = principal_of(request), read_cursor(request)
        followed: set[str] = set()

        async def open_source() -> Source:
            await self._board.settled()
            teams = self._teams_of(principal)
            followed.update(teams)
            topics = [desk_topic(team) for team in teams]
            merged = await follow_all(self._shared.hub, topics, after)

            async def snapshot(reason: str) -> tuple[bytes, int]:
                cases, cursor = await self._sessions.snapshot(principal)
                return write_board(reason, cases, await self._agents(teams), cursor), cursor

            feed = MergedFeed(merged, DeskTelling(principal).tell, snapshot, after=after)
            return accompany_desk(feed, self._shared.presence, principal)

        return AttendedStream(
            self._shared.streams,
            stream_owner(request),
            open_source,
            self._attendance.looking(principal.agent),
            self._board if _sees_all(principal) else None,
            followed,
        )

    def _teams_of(self, principal: Principal) -> list[str]:
        """An agent's own teams; for a lead, a program or this machine all that there are."""
        if _sees_all(principal):
            return sorted({self._team, *self._board.teams, *principal.teams})
        return sorted(principal.teams or {self._team})

    async def _agents(self, teams: Sequence[str]) -> list[AgentView]:
        """The agents whom the desks know."""
        names = [subjects.state(DESK, token(team)) for team in teams]
        found: dict[str, AgentView] = {}
        for stored in (await self._shared.bus.last_of(names)).values():
            try:
                record = _decode_record(stored.data)
                found.update(_decode_desk(record.data).agents if record.data else {})
            except UNREADABLE:
                log.warning("desk_unreadable", subject=stored.subject)
        return [found[id] for id in sorted(found)]

    # -- one session -----------------------------------------------------------------------

    async def follow_session(self, request: Request) -> EventStream:
        """Answer a stream of what happens in a session."""
        principal, after = principal_of(request), read_cursor(request)

        async def open_source() -> Source:
            name, _ = await self._sessions.find(request)
            topics: list[Topic] = [conversation_topic(name), internal_topic(name)]
            merged = await follow_all(self._shared.hub, topics, after)
            closely = _Closely(self._standing, name)
            feed = MergedFeed(merged, closely.tell, self._snapshot_of(closely, name), after=after)
            presence = self._shared.presence
            return accompany(feed, presence, name, principal, colleague=True, write=typed)

        owner = stream_owner(request)
        return EventStream(self._shared.streams, owner, open_source, most=PER_KEY)

    def _snapshot_of(self, closely: "_Closely", name: str) -> Snapshot:
        async def snapshot(reason: str) -> tuple[bytes, int]:
            now = await closely.restart()
            said, more = await read_messages(self._shared.bus, name, FIRST_SCREEN)
            view = view_of(case_of(name, now.state), datetime.now(UTC), now.state.thread)
            running = [
                {"message_id": one.run, "content": one.text} for one in now.running if one.text
            ]
            told = write_event(
                "reset",
                cursor=now.cursor,
                reason=reason,
                session=view,
                messages=[one for one in said if one.id <= now.cursor],
                has_more=more,
                running=running,
            )
            return told, now.cursor

        return snapshot


class _Closely:
    """Retells one session: its first topic as its customer reads it, its second for colleagues."""

    def __init__(self, standing: Standing, name: str) -> None:
        self._standing = standing
        self._name = name
        self._retelling = Retelling()

    def tell(self, number: int, event: Event) -> bytes:
        """Return what an event says."""
        return tell_internal(event) if number else self._retelling.hear(event)

    async def restart(self) -> Now:
        """Begin anew from how the session stands, and return that."""
        now = await self._standing.now(self._name)
        self._retelling = Retelling()
        for one in now.running:
            self._retelling.seed(one.task_id, one.run, one.attempt, one.n, one.text)
        return now


class AttendedStream(EventStream):
    """A feed of desks, whose agent is seen for as long as it is open.

    One of all teams ends where another team is heard of: its client comes back with its cursor,
    and hears that one too.
    """

    def __init__(
        self,
        streams: Streams,
        owner: str | None,
        open_source: Callable[[], Awaitable[Source]],
        looking: AbstractContextManager[None],
        board: Board | None,
        followed: set[str],
    ) -> None:
        super().__init__(streams, owner, open_source, most=PER_KEY)
        self._looking = looking
        self._board = board
        self._followed = followed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the feed."""
        if self._board is not None:
            self._board.listeners.add(self._hear)
        try:
            with self._looking:
                await super().__call__(scope, receive, send)
        finally:
            if self._board is not None:
                self._board.listeners.discard(self._hear)

    def _hear(self, team: str) -> None:
        if self._followed and team not in self._followed:
            self.end()


def _sees_all(principal: Principal) -> bool:
    return principal.kind != "agent" or DESK_LEAD in principal.scopes
