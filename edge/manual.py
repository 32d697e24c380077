"""People in a session: a customer calls one, and they write to each other.

What an agent does at the desk besides is in edge/desk.py.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer, ask_for
from edge.auth import CHAT_SEND, DESK_ACT, Principal, principal_of
from edge.body import read_json
from edge.following import Event, Following
from edge.hours import read_calendar
from edge.operation import Operation
from edge.problem import Refusal
from edge.remembered import Remembered
from edge.session_shapes import SessionView, case_of, seconds, view_of
from edge.shared import Shared
from edge.support_asking import Customers, check_said
from edge.support_shapes import Profile, SessionName, SupportError
from runtime.errors import BusFault
from runtime.tables import SupportTable
from schemas.base import Address, tag_of
from schemas.conversation import SESSION
from schemas.desk import MAILER
from schemas.envelope import UNREADABLE, Envelope
from schemas.ownership import (
    Assignee,
    Case,
    Escalate,
    MailNoted,
    SayManual,
    Transition,
    internal_topic,
)
from schemas.shifts import is_open

log = structlog.get_logger("edge")

TAG = "support"
ASKED_FOR = "user_request"
ASSIGNED_WITHIN = 0.15
MAILED_WITHIN = 2.0
"""Seconds for which the answer waits for what the desk makes of it."""
MOST_REASON = 500
MAILED, MOVED = tag_of(MailNoted), tag_of(Transition)

_decode_mailed = msgspec.json.Decoder(Envelope[MailNoted]).decode
_decode_moved = msgspec.json.Decoder(Envelope[Transition]).decode

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class EscalationAsked(msgspec.Struct, kw_only=True):
    """A person is wanted in a session."""

    session_name: SessionName
    reason: Annotated[str, msgspec.Meta(max_length=MOST_REASON)] | None = None
    user_profile: Profile | None = None


class Escalated(msgspec.Struct, kw_only=True):
    """How the session stands. `auto_assigned` says that an agent is asked to take it already,
    `email_sent` that somebody was written to because the desk is closed."""

    success: bool
    data: SessionView
    is_in_shift: bool
    auto_assigned: bool
    email_sent: bool
    changed: bool


class AgentNamed(msgspec.Struct, kw_only=True):
    """Who writes, where no token says it."""

    agent_id: Id
    agent_name: Annotated[str, msgspec.Meta(max_length=100)] = ""


class MessageAsked(msgspec.Struct, kw_only=True):
    """What a person says to a person. An agent with a token writes as themselves; without one,
    `agent_info` is believed on this machine, else it is the assignee who writes."""

    session_name: SessionName
    content: Annotated[str, msgspec.Meta(min_length=1)]
    role: Literal["agent", "user"] = "agent"
    agent_info: AgentNamed | None = None


class MessageStored(msgspec.Struct, kw_only=True):
    """When it was stored, and its id in the streams."""

    timestamp: float | None
    id: str


class MessageAnswered(msgspec.Struct, kw_only=True):
    """It is stored, and told to whoever follows the session."""

    success: bool
    data: MessageStored


class Manual:
    """The operations by which people come in, and speak."""

    def __init__(
        self, shared: Shared, customers: Customers, remembered: Remembered, limits: SupportTable
    ) -> None:
        self._shared = shared
        self._customers = customers
        self._remembered = remembered
        self._limits = limits

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            Operation(
                "POST",
                "/api/manual/escalate",
                self.escalate,
                "Call a person",
                name="escalate",
                scope=CHAT_SEND,
                also=(DESK_ACT,),
                body=EscalationAsked,
                answers={
                    200: Escalated,
                    400: "A field is missing",
                    409: "A person has the session: `MANUAL_IN_PROGRESS`",
                },
                error=SupportError,
                tag=TAG,
            ),
            Operation(
                "POST",
                "/api/manual/messages",
                self.say,
                "Say something from person to person",
                name="say_manually",
                scope=CHAT_SEND,
                also=(DESK_ACT,),
                body=MessageAsked,
                answers={
                    200: MessageAnswered,
                    400: "A field is missing",
                    403: "Another agent has it: `NOT_YOURS`. An agent is no customer: `NOT_YOU`",
                    409: "No person has the session: `INVALID_STATUS`",
                },
                error=SupportError,
                tag=TAG,
            ),
        )

    async def escalate(self, request: Request) -> Response:
        """Call a person, and answer what the desk makes of it."""
        asked: EscalationAsked = await read_json(request, EscalationAsked, missing=400)
        principal = principal_of(request)
        headers = await self._customers.count(request, asked.session_name, "manual")
        session, reason = asked.session_name, asked.reason or ASKED_FOR
        message = Escalate(
            details=reason,
            severity="high" if reason == ASKED_FOR else "medium",
            team=self._limits.team,
            by=principal.id if principal.known else "",
            customer=self._customers.customer(request, asked.user_profile),
            desk=DESK_ACT in principal.scopes,
        )
        following = await self._shared.hub.follow(internal_topic(session), None)
        try:
            to = Address(SESSION, session)
            held = await ask_for(request, self._shared.bus, "escalate", to, message)
            in_shift, mailed = await self._ask_desk(following, changed=held.changed)
        finally:
            following.close()
        case, thread = await self._newest(session, held.case)
        made = answer(
            Escalated(
                success=True,
                data=view_of(case, datetime.now(UTC), thread),
                is_in_shift=in_shift and case.closed_until is None,
                auto_assigned=case.assignee is not None,
                email_sent=mailed,
                changed=held.changed,
            )
        )
        made.headers.update(headers)
        return made

    async def say(self, request: Request) -> Response:
        """Store what a person says; whoever follows the session is told by the store itself."""
        asked: MessageAsked = await read_json(request, MessageAsked, missing=400)
        check_said(asked.content, "/content")
        principal = principal_of(request)
        headers = {}
        if asked.role == "user":
            if principal.kind == "agent":
                raise Refusal(403, "NOT_YOU", "an agent does not write as the customer")
            headers = await self._customers.count(request, asked.session_name, "manual")
        elif DESK_ACT not in principal.scopes:
            detail = f"only who has the scope {DESK_ACT!r} writes as an agent; send role 'user'"
            raise Refusal(403, "missing_scope", detail)
        message = SayManual(
            content=asked.content,
            role=asked.role,
            agent=_speaker(principal, asked.agent_info) if asked.role == "agent" else None,
        )
        to = Address(SESSION, asked.session_name)
        noted = await ask_for(request, self._shared.bus, "say_manual", to, message)
        stored = MessageStored(timestamp=seconds(noted.at), id=noted.id)
        made = answer(MessageAnswered(success=True, data=stored))
        made.headers.update(headers)
        return made

    # -- what the desk makes of it ---------------------------------------------------------

    async def _ask_desk(self, following: Following, *, changed: bool) -> tuple[bool, bool]:
        """Whether the desk is open, and whether somebody was written to because it is not.

        The session is a person's already: what cannot be known now is no reason to refuse.
        """
        try:
            calendar, deployed = await read_calendar(self._shared)
            mailer = await self._shared.deployed.find(MAILER)
        except (Refusal, BusFault) as fault:
            log.info("desk_not_read", error=str(fault))
            return True, False
        in_shift = is_open(calendar, datetime.now(UTC))
        if not (changed and deployed):
            return in_shift, False
        within = MAILED_WITHIN if mailer and not in_shift else ASSIGNED_WITHIN
        return in_shift, await _wait_for_desk(following, within)

    async def _newest(self, session: str, case: Case) -> tuple[Case, str]:
        try:
            state = await self._remembered.find_conversation(session)
        except (BusFault, Refusal):
            state = None
        if state is None or state.hold.epoch < case.epoch:
            return case, ""
        return case_of(session, state), state.thread


async def _wait_for_desk(following: Following, within: float) -> bool:
    """Wait for the desk to ask an agent, or to write; returns whether it has written."""
    try:
        async with asyncio.timeout(within):
            async for item in following:
                if isinstance(item, Event) and (settled := _read(item)) is not None:
                    return settled
    except TimeoutError:
        pass
    return False


def _read(event: Event) -> bool | None:
    """Whether somebody was written to; None if an event settles nothing."""
    try:
        if event.name == MAILED:
            return _decode_mailed(event.data).data.sent
        if event.name == MOVED and _decode_moved(event.data).data.assignee is not None:
            return False
    except UNREADABLE:
        pass
    return None


def _speaker(principal: Principal, named: AgentNamed | None) -> Assignee | None:
    """Which agent it is: the token's, else whoever is named, else (None) the assignee."""
    if principal.kind == "agent":
        return Assignee(id=principal.agent, name=principal.name)
    return Assignee(id=named.agent_id, name=named.agent_name) if named else None
