"""Agents among each other: who is there, how one is oneself, and phrases that are sent often."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.acting import acting
from edge.asking import answer, ask_for, wait_for_bus
from edge.auth import DESK_ACT, DESK_READ, Principal, principal_of
from edge.body import read_json
from edge.desk_query import read_text
from edge.operation import Operation, Parameter
from edge.problem import Refusal
from edge.shared import Shared
from edge.support_shapes import SupportError
from runtime.bus import Stored
from schemas import subjects
from schemas.account import MOST_OPEN, Account
from schemas.base import Address, token
from schemas.desk import (
    AgentState,
    AgentView,
    Attend,
    DropQuickReply,
    ListQuickReplies,
    Presence,
    QuickReply,
    SaveQuickReply,
)
from schemas.envelope import UNREADABLE
from schemas.ownership import DESK, HUMAN_AGENT, SUPPORT
from schemas.phrases import PHRASES
from schemas.record import Record

TAG = "agents"
TEAM = Parameter("team", str, "The team; one's own first one unless given.")
REPLY = Parameter("id", str, "The id of the quick reply.")
NO_DESK = "No desk is deployed"
AT_ONCE = 500
"""Records that are asked for in one request."""

_decode_record = msgspec.json.Decoder(Record).decode
_decode_state = msgspec.json.Decoder(AgentState).decode


class ColleagueView(msgspec.Struct, kw_only=True):
    """An agent as colleagues see them; `sessions` are those they have."""

    id: str
    username: str
    name: str
    avatar: str
    role: str
    status: Presence
    presence: Presence
    teams: list[str]
    skills: list[str]
    capacity: int
    sessions: list[str]


class ColleagueList(msgspec.Struct, kw_only=True):
    """The agents, by id."""

    agents: list[ColleagueView]
    total: int
    success: bool = True


class StatusAsked(msgspec.Struct, kw_only=True):
    """How an agent is; what is not sent stays. `capacity` may not be more than the account's, and
    `skills` no others. Where nobody has logged in, `agent_id` says who it is."""

    presence: Presence | None = None
    status: Presence | None = None
    capacity: Annotated[int, msgspec.Meta(ge=0, le=MOST_OPEN)] | None = None
    skills: Annotated[list[str], msgspec.Meta(max_length=20)] | None = None
    teams: Annotated[list[str], msgspec.Meta(min_length=1, max_length=10)] | None = None
    agent_id: Annotated[str, msgspec.Meta(max_length=100)] = ""
    agent_name: Annotated[str, msgspec.Meta(max_length=100)] = ""


class StatusAnswer(msgspec.Struct, kw_only=True):
    """How the agent is now."""

    agent: ColleagueView
    success: bool = True


class ReplyAsked(msgspec.Struct, kw_only=True):
    """A phrase to keep; with an `id` it takes the place of that one."""

    title: str
    text: str
    id: Annotated[str, msgspec.Meta(max_length=64)] = ""


class ReplyList(msgspec.Struct, kw_only=True):
    """The phrases of a team."""

    replies: list[QuickReply]
    team: str
    success: bool = True


class Colleagues:
    """The operations on agents' presence and phrases."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._accounts = shared.agents.accounts

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        replies, answers = "quick-replies", {200: ReplyList, 503: NO_DESK}
        return (
            _operation(
                "GET list", self.list_agents, "See who is there", answers={200: ColleagueList}
            ),
            _operation(
                "POST status",
                self.attend,
                "Say how one is: online, busy, away, offline",
                answers={200: StatusAnswer, 503: "Nobody keeps agents' presence"},
                body=StatusAsked,
            ),
            _operation(
                f"GET {replies}",
                self.list_replies,
                "List phrases that are sent often",
                answers={200: ReplyList},
                query=(TEAM,),
            ),
            _operation(
                f"POST {replies}",
                self.save_reply,
                "Keep a phrase, or change one",
                answers=answers,
                query=(TEAM,),
                body=ReplyAsked,
            ),
            _operation(
                f"DELETE {replies}/{{id}}",
                self.drop_reply,
                "Drop a phrase",
                answers={**answers, 404: "There is no such phrase"},
                query=(TEAM,),
                variables=(REPLY,),
            ),
        )

    # -- who is there ----------------------------------------------------------------------

    async def list_agents(self, request: Request) -> Response:
        """Answer every agent that has an account, and how they are."""
        await wait_for_bus(self._shared.bus)
        accounts = {one.id: one for one in await self._accounts.all() if not one.disabled}
        states = await self._states(list(accounts))
        views = [_view(account, states.get(id)) for id, account in accounts.items()]
        return answer(ColleagueList(agents=views, total=len(views)))

    async def attend(self, request: Request) -> Response:
        """Tell an agent's actor how they are."""
        body: StatusAsked = await read_json(request, StatusAsked)
        principal = principal_of(request)
        who = await acting(request, self._accounts, body.agent_id, body.agent_name)
        account = await self._accounts.find(who.id) if principal.agent else None
        _check_own(body, account, principal)
        if await self._shared.deployed.find(HUMAN_AGENT) is None:
            detail = "no actor 'human_agent' is deployed, which keeps agents' presence"
            raise Refusal(503, "human_agent_not_deployed", detail)
        said = Attend(
            name=who.name or None,
            presence=body.presence or body.status,
            capacity=body.capacity,
            skills=None if body.skills is None else tuple(body.skills),
            teams=tuple(body.teams) if body.teams else (account.teams if account else None),
        )
        to = Address(HUMAN_AGENT, who.id)
        seen = await ask_for(request, self._shared.bus, "attend", to, said)
        return answer(StatusAnswer(agent=_seen(seen, account)))

    async def _states(self, ids: Sequence[str]) -> Mapping[str, AgentState]:
        """What agents' actors keep of them, by their ids."""
        found: dict[str, AgentState] = {}
        names = {subjects.state(HUMAN_AGENT, token(id)): id for id in ids}
        listed = list(names)
        for start in range(0, len(listed), AT_ONCE):
            part = listed[start : start + AT_ONCE]
            for subject, stored in (await self._shared.bus.last_of(part)).items():
                state = _read_state(stored)
                if state is not None:
                    found[names[subject]] = state
        return found

    # -- phrases ---------------------------------------------------------------------------

    async def list_replies(self, request: Request) -> Response:
        """Answer the phrases of a team; without a desk those that each begins with."""
        team = _team_of(request)
        if await self._shared.deployed.find(DESK) is None:
            return answer(ReplyList(replies=list(PHRASES), team=team))
        return await self._desk(request, team, "replies", ListQuickReplies())

    async def save_reply(self, request: Request) -> Response:
        """Keep a phrase."""
        body: ReplyAsked = await read_json(request, ReplyAsked, missing=400)
        by = principal_of(request).agent
        message = SaveQuickReply(title=body.title, text=body.text, id=body.id, by=by)
        return await self._desk(request, _team_of(request), "save_reply", message)

    async def drop_reply(self, request: Request) -> Response:
        """Drop a phrase."""
        message = DropQuickReply(id=str(request.path_params["id"]))
        return await self._desk(request, _team_of(request), "drop_reply", message)

    async def _desk(self, request: Request, team: str, route: str, message: Any) -> Response:
        if await self._shared.deployed.find(DESK) is None:
            raise Refusal(503, "desk_not_deployed", "no desk is deployed, which keeps phrases")
        to = Address(DESK, team)
        kept = await ask_for(request, self._shared.bus, route, to, message)
        return answer(ReplyList(replies=list(kept.replies), team=team))


def _team_of(request: Request) -> str:
    """The team that is named, if it is one's own; else one's first. Raises Refusal 403."""
    principal, named = principal_of(request), read_text(request, "team", 100)
    own = sorted(principal.teams)
    if not named:
        return SUPPORT if not own or SUPPORT in own else own[0]
    if principal.agent and named not in own and "desk:lead" not in principal.scopes:
        raise Refusal(403, "foreign_team", f"{named!r} is not a team of this agent")
    return named


def _check_own(body: StatusAsked, account: Account | None, principal: Principal) -> None:
    """Raise Refusal 403 for more than an account allows."""
    if account is None:
        return
    if body.teams is not None and not set(body.teams) <= set(account.teams):
        raise Refusal(403, "not_yours", "'teams' has one that is not the account's")
    if body.skills is not None and not set(body.skills) <= set(account.skills):
        raise Refusal(403, "not_yours", "'skills' has one that is not the account's")
    if body.capacity is not None and body.capacity > account.capacity:
        detail = f"'capacity' is {body.capacity}, and the account's is {account.capacity}"
        raise Refusal(403, "not_yours", detail)


def _read_state(stored: Stored) -> AgentState | None:
    try:
        record = _decode_record(stored.data)
        return _decode_state(record.data) if record.data else None
    except UNREADABLE:
        return None


def _view(account: Account, state: AgentState | None) -> ColleagueView:
    presence: Presence = state.presence if state else "offline"
    return ColleagueView(
        id=account.id,
        username=account.id,
        name=account.name or account.id,
        avatar=account.avatar,
        role=account.role,
        status=presence,
        presence=presence,
        teams=list(account.teams),
        skills=list(state.skills if state else account.skills),
        capacity=state.capacity if state else account.capacity,
        sessions=list(state.open) if state else [],
    )


def _seen(seen: AgentView, account: Account | None) -> ColleagueView:
    return ColleagueView(
        id=seen.id,
        username=seen.id,
        name=seen.name,
        avatar=seen.avatar,
        role=account.role if account else "agent",
        status=seen.presence,
        presence=seen.presence,
        teams=list(seen.teams),
        skills=list(seen.skills),
        capacity=seen.capacity,
        sessions=list(seen.open),
    )


def _operation(what: str, endpoint: Any, summary: str, **rest: Any) -> Operation:
    method, _, path = what.partition(" ")
    return Operation(
        method,
        f"/api/agent/{path}",
        endpoint,
        summary,
        name=f"agents_{endpoint.__name__}",
        scope=DESK_READ if method == "GET" else DESK_ACT,
        error=SupportError,
        tag=TAG,
        **rest,
    )
