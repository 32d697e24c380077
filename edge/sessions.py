"""Sessions as agents see them: the list, the queue, what it all comes to, and one closely."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer, wait_for_bus
from edge.auth import DESK_READ, Principal, principal_of
from edge.board import Board
from edge.cases import (
    QueueView,
    StatsView,
    order,
    queue_of,
    select,
    stats_of,
    views,
    visible,
)
from edge.desk_history import RecordView, SaidView, read_messages, read_record
from edge.desk_query import FILTERS, PAGE, read_page, read_text, read_wanted
from edge.operation import Operation, Parameter
from edge.parameters import HIGHEST_SEQUENCE, read_int
from edge.problem import Refusal
from edge.remembered import NO_CONVERSATION, Remembered
from edge.session_shapes import SessionView, case_of, may_handle, view_of
from edge.shared import Shared
from edge.support_shapes import SupportError
from schemas.conversation import SESSION
from schemas.ownership import Case
from schemas.session import SessionState

TAG = "desk"
PATH = "/api/sessions"
NAME = Parameter("name", str, "The name of the session.")
TEAM = Parameter("team", str, "Only of this team.")
LIFETIME = timedelta(days=3650)
FIRST_SCREEN = 50
MOST_MESSAGES = 200
MOST_RECORDS = 200

LIMIT = Parameter(
    "limit",
    Annotated[int, msgspec.Meta(ge=1, le=MOST_MESSAGES)],
    "How many messages at most.",
    default=FIRST_SCREEN,
)
BEFORE = Parameter(
    "before",
    Annotated[int, msgspec.Meta(ge=0)],
    "Only messages before the one of this id: the next page back. 0 is from the newest.",
    default=0,
)


class SessionPage(msgspec.Struct, kw_only=True):
    """Some of the sessions that were asked for; `total` is how many there are."""

    sessions: list[SessionView]
    total: int
    limit: int
    offset: int
    has_more: bool


class SessionList(msgspec.Struct):
    """Sessions."""

    data: SessionPage
    success: bool = True


class Closely(msgspec.Struct, kw_only=True):
    """A session, what became of it, and what was said last, each oldest first."""

    session: SessionView
    audit_trail: list[RecordView]
    history: list[SaidView]
    has_more: bool


class SessionAnswer(msgspec.Struct):
    """One session."""

    data: Closely
    success: bool = True


class MessagePage(msgspec.Struct, kw_only=True):
    """Messages, oldest first; those before them are had by `before` = the id of the first."""

    messages: list[SaidView]
    has_more: bool


class Messages(msgspec.Struct):
    """What was said."""

    data: MessagePage
    success: bool = True


class Stats(msgspec.Struct):
    """What all sessions come to."""

    data: StatsView
    success: bool = True


class Queue(msgspec.Struct):
    """Who waits for a person."""

    data: QueueView
    success: bool = True


class Sessions:
    """The operations that read sessions."""

    def __init__(self, shared: Shared, remembered: Remembered, board: Board) -> None:
        self._shared = shared
        self._remembered = remembered
        self._board = board

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            _read("", self.list_some, "List sessions", SessionList, query=(*FILTERS, *PAGE)),
            _read(
                "/stats",
                self.count,
                "See how many sessions there are, and how long customers wait",
                Stats,
                query=(TEAM,),
            ),
            _read("/queue", self.queue, "See who waits, in order", Queue, query=(TEAM,)),
            _read_one("", self.view, "See a session, its record, its last words", SessionAnswer),
            _read_one(
                "/messages",
                self.messages,
                "Read what was said in a session, from the newest back",
                Messages,
                query=(LIMIT, BEFORE),
            ),
        )

    async def list_some(self, request: Request) -> Response:
        """Answer some of the sessions."""
        wanted = read_wanted(request)
        sort, limit, offset = read_page(request)
        now = datetime.now(UTC)
        found = select(await self._cases(principal_of(request), now), wanted)
        page = order(found, sort, now)[offset : offset + limit]
        return answer(
            SessionList(
                SessionPage(
                    sessions=views(page, now),
                    total=len(found),
                    limit=limit,
                    offset=offset,
                    has_more=offset + len(page) < len(found),
                )
            )
        )

    async def count(self, request: Request) -> Response:
        """Answer what the sessions come to."""
        now = datetime.now(UTC)
        return answer(Stats(stats_of(await self._of_team(request, now), now)))

    async def queue(self, request: Request) -> Response:
        """Answer who waits."""
        now = datetime.now(UTC)
        return answer(Queue(queue_of(await self._of_team(request, now), now)))

    async def view(self, request: Request) -> Response:
        """Answer one session."""
        name, state = await self.find(request)
        trail = await read_record(self._shared.bus, name, MOST_RECORDS)
        said, more = await read_messages(self._shared.bus, name, FIRST_SCREEN)
        case = case_of(name, state)
        view = view_of(case, datetime.now(UTC), state.thread)
        return answer(
            SessionAnswer(Closely(session=view, audit_trail=trail, history=said, has_more=more))
        )

    async def messages(self, request: Request) -> Response:
        """Answer what was said."""
        limit = read_int(request, "limit", default=FIRST_SCREEN, low=1, high=MOST_MESSAGES)
        before = read_int(request, "before", default=0, low=0, high=HIGHEST_SEQUENCE)
        name, _ = await self.find(request)
        said, more = await read_messages(self._shared.bus, name, limit, before)
        return answer(Messages(MessagePage(messages=said, has_more=more)))

    async def find(self, request: Request) -> tuple[str, SessionState]:
        """Return the session in the path and its state.

        Raises Refusal 404 if there is none, or none for whoever asks: which of them is not told.
        """
        name = str(request.path_params["name"])
        state = await self._remembered.find_conversation(name)
        missing = state is None or state.created is None
        if state is None or missing or not may_handle(principal_of(request), case_of(name, state)):
            raise Refusal(404, "conversation_not_found", NO_CONVERSATION)
        return name, state

    async def snapshot(self, principal: Principal) -> tuple[list[Case], int]:
        """Return the cases that somebody may see, and the cursor up to which they are right."""
        cursor = await self._board.settled()
        return await self._cases(principal, datetime.now(UTC)), cursor

    async def _of_team(self, request: Request, now: datetime) -> list[Case]:
        team = read_text(request, "team")
        cases = await self._cases(principal_of(request), now)
        return [case for case in cases if team in ("", case.team)]

    async def _cases(self, principal: Principal, now: datetime) -> list[Case]:
        await wait_for_bus(self._shared.bus)
        cases = await self._board.cases()
        deployed = await self._shared.deployed.find(SESSION)
        lifetime = deployed.lifetime if deployed else LIFETIME
        return visible(cases.values(), principal, now, lifetime)


def _read(path: str, endpoint: Any, summary: str, shape: Any, **rest: Any) -> Operation:
    return Operation(
        "GET",
        f"{PATH}{path}",
        endpoint,
        summary,
        name=f"desk_{endpoint.__name__}",
        scope=DESK_READ,
        answers={200: shape, **rest.pop("more", {})},
        error=SupportError,
        tag=TAG,
        **rest,
    )


def _read_one(path: str, endpoint: Any, summary: str, shape: Any, **rest: Any) -> Operation:
    more = {404: NO_CONVERSATION}
    return _read(f"/{{name}}{path}", endpoint, summary, shape, variables=(NAME,), more=more, **rest)
