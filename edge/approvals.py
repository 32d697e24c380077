"""Questions that wait for a person: found, followed and answered, once."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer, ask_for, wait_for_bus
from edge.auth import DESK_ACT, DESK_LEAD, DESK_READ, Principal, principal_of, stream_owner
from edge.body import read_json
from edge.feeds import TopicFeed, join_feed
from edge.operation import Endpoint, Operation, Parameter
from edge.parameters import read_cursor, read_int, read_text
from edge.problem import Refusal, quote
from edge.questions import Questions
from edge.remembered import Remembered
from edge.shared import Shared
from edge.sse import PER_KEY, EventStream
from schemas.approval import (
    APPROVAL,
    ApprovalAsked,
    ApprovalState,
    Decide,
    Decided,
    Decision,
    approval_topic,
)
from schemas.base import Address
from schemas.envelope import Envelope
from schemas.ownership import MOST_NOTE

TAG = "approvals"
UNKNOWN = "There is no such question"
FOREIGN = "It is for another team to answer, or in somebody else's name"
DONE = "It was answered before, differently or by somebody else; `decided` tells how"
MOST_LISTED = 200
LIMIT = 64 * 1024
LONGEST = 200

ID = Parameter("id", str, "The id of the question.")
TEAM = Parameter("team", str, "Only of this team.")
STATUS = Parameter(
    "status",
    Literal["open", "all"],
    "Those that wait, the first to be due first; or all, the last to change first.",
    default="open",
)
COUNT = Parameter(
    "limit", Annotated[int, msgspec.Meta(ge=1, le=MOST_LISTED)], "How many at most.", default=50
)
PLACED = re.compile(r"(/[^:]*): (.*)", re.DOTALL)
"""What the keeper of a question says of an answer: the place in it, and what is wrong."""


class ApprovalView(msgspec.Struct, kw_only=True):
    """A question: what is asked, of which `answers` (JSON Schema 2020-12) or `choices`, until
    when, and what it came to. With neither it takes yes and no only."""

    id: str
    status: Literal["open"] | Decision
    question: str
    details: dict[str, Any]
    answers: dict[str, Any] | None
    choices: list[str]
    team: str
    conversation: str
    asker: str
    tool: str
    asked: datetime | None
    due: datetime | None
    decided: Decided | None


class ApprovalList(msgspec.Struct):
    """Questions."""

    approvals: list[ApprovalView]


class Deciding(msgspec.Struct, kw_only=True):
    """An answer. Where answers or choices are asked for, a yes has one too; a no has none.

    `by` is for programs that answer on somebody's behalf: who an agent is, their token tells.
    """

    decision: Literal["approved", "denied", "answered"]
    answer: Any = None
    note: Annotated[str, msgspec.Meta(max_length=MOST_NOTE)] = ""
    by: Annotated[str, msgspec.Meta(max_length=LONGEST)] = ""


SEEN = "See a question, and what it came to"
ANSWERED = {200: ApprovalView, 403: FOREIGN, 404: UNKNOWN}
FOLLOWED = {200: "Its events, each with its sequence as the id"}


class ApprovalEvent(Envelope[ApprovalAsked | Decided], frozen=True, kw_only=True):
    """What happens to a question; a `reset` has a `reason` and a `snapshot` instead."""


class Approvals:
    """The operations on questions that wait for a person."""

    def __init__(self, shared: Shared, remembered: Remembered) -> None:
        self._shared = shared
        self._questions = Questions(shared, remembered)

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            _read(
                "",
                self.list_some,
                "List questions that wait for a person",
                "approvals",
                answers={200: ApprovalList},
                query=(TEAM, STATUS, COUNT),
            ),
            _read(
                "/{id}/events",
                self.follow,
                "Follow a question until it is answered, from how it stands now or from a cursor",
                "follow_approval",
                answers={**FOLLOWED, 403: FOREIGN, 404: UNKNOWN},
                variables=(ID,),
                stream_event=ApprovalEvent,
            ),
            _read("/{id}", self.view, SEEN, "approval", answers=ANSWERED, variables=(ID,)),
            Operation(
                "POST",
                "/api/approvals/{id}",
                self.decide,
                "Answer a question: the first answer counts",
                name="decide_approval",
                scope=DESK_ACT,
                body=Deciding,
                answers={**ANSWERED, 409: DONE},
                variables=(ID,),
                tag=TAG,
            ),
        )

    async def list_some(self, request: Request) -> Response:
        """Answer open questions, or the newest of all."""
        limit = read_int(request, "limit", default=50, low=1, high=MOST_LISTED)
        team = read_text(request, "team", longest=LONGEST)
        status = read_text(request, "status", longest=LONGEST) or "open"
        if status not in ("open", "all"):
            detail = f"'status' is {quote(status)}, expected 'open' or 'all'"
            raise Refusal(400, "invalid_parameter", detail)
        await wait_for_bus(self._shared.bus)
        find = self._questions.open if status == "open" else self._questions.newest
        mine = _teams(principal_of(request))
        found = await find(lambda one: team in ("", one) and (mine is None or one in mine), limit)
        return answer(ApprovalList([view_of(id, state) for id, state in found]))

    async def view(self, request: Request) -> Response:
        """Answer one question."""
        id = read_id(request)
        state = await self._find(id)
        _check_team(principal_of(request), state)
        return answer(view_of(id, state))

    async def decide(self, request: Request) -> Response:
        """Answer a question in the name of whoever asks."""
        id, body = read_id(request), await read_json(request, Deciding, LIMIT)
        by = _name(principal_of(request), body.by)
        # Nothing is kept of an answer to what nobody has asked.
        state = await self._find(id)
        _check_team(principal_of(request), state)
        decide = Decide(decision=body.decision, answer=body.answer, note=body.note, by=by)
        bus, to = self._shared.bus, Address(APPROVAL, id)
        try:
            state.decided = await ask_for(request, bus, "approvals", to, decide)
        except Refusal as refusal:
            raise await self._explained(refusal, id) from None
        return answer(view_of(id, state))

    async def follow(self, request: Request) -> EventStream:
        """Answer a stream of what happens to a question."""
        id, after = read_id(request), read_cursor(request)

        async def open_source() -> TopicFeed:
            _check_team(principal_of(request), await self._find(id))
            topic = approval_topic(id)
            return await join_feed(self._shared.hub, topic, after, lambda: self._snapshot(id))

        owner = stream_owner(request)
        return EventStream(self._shared.streams, owner, open_source, most=PER_KEY)

    async def _snapshot(self, id: str) -> ApprovalView | None:
        state = await self._questions.find(id)
        return view_of(id, state) if state else None

    async def _find(self, id: str) -> ApprovalState:
        await wait_for_bus(self._shared.bus)
        state = await self._questions.find(id)
        if state is None:
            raise Refusal(404, "approval_not_found", f"there is no question {quote(id)}")
        return state

    async def _explained(self, refusal: Refusal, id: str) -> Refusal:
        """A refusal with what a program needs: how it was decided, or where the fault is."""
        members: dict[str, Any] = {}
        if refusal.code == "ALREADY_DECIDED":
            state = await self._questions.find(id)
            members["decided"] = msgspec.to_builtins(state.decided) if state else None
        elif refusal.code == "answer_invalid" and (place := PLACED.fullmatch(refusal.detail)):
            members["errors"] = [{"detail": place[2], "pointer": place[1]}]
        else:
            return refusal
        return Refusal(refusal.status, refusal.code, refusal.detail, **members)


def _read(path: str, endpoint: Endpoint, summary: str, name: str, **rest: Any) -> Operation:
    return Operation(
        "GET",
        f"/api/approvals{path}",
        endpoint,
        summary,
        name=name,
        scope=DESK_READ,
        tag=TAG,
        **rest,
    )


def view_of(id: str, state: ApprovalState) -> ApprovalView:
    """A question as clients see it."""
    ask = state.ask
    assert ask is not None
    return ApprovalView(
        id=id,
        status=state.decided.decision if state.decided else "open",
        question=ask.question,
        details=ask.details,
        answers=ask.answers,
        choices=list(ask.choices),
        team=ask.team,
        conversation=ask.conversation,
        asker=ask.asker,
        tool=ask.tool,
        asked=state.asked,
        due=state.due,
        decided=state.decided,
    )


def read_id(request: Request) -> str:
    """The id of a question, from the path. Raises Refusal 404 for what cannot be one."""
    id = str(request.path_params["id"])
    if not id.isprintable() or len(id) > LONGEST:
        raise Refusal(404, "approval_not_found", f"there is no question {quote(id)}")
    return id


def _check_team(principal: Principal, state: ApprovalState) -> None:
    """Raise Refusal 403 to an agent of other teams, unless they lead."""
    team, mine = state.ask.team if state.ask else "", _teams(principal)
    if team and mine is not None and team not in mine:
        raise Refusal(403, "not_your_team", f"this is for the team {quote(team)} to answer")


def _teams(principal: Principal) -> frozenset[str] | None:
    """The teams whose questions somebody sees; None for all: programs, and agents who lead."""
    if principal.kind != "agent" or DESK_LEAD in principal.scopes:
        return None
    return principal.teams | {""}


def _name(principal: Principal, by: str) -> str:
    """Who answers. An agent answers for nobody else; a program may, and is named beside them."""
    me = principal.agent or principal.id
    if by in ("", me):
        return me
    if principal.kind == "agent":
        detail = f"/by: {quote(by)}: you are {quote(me)}; leave it out"
        raise Refusal(403, "not_yours", detail)
    return f"{by} ({me})" if principal.known else by
