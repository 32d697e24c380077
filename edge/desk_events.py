"""What desks and sessions tell colleagues, as their pages read it: data with a `type` at the top.

Of the desk: `session_update`, `sla_alert`, `agent_update`, `approval`, `approval_decided`. Of a
session: what its customer reads (edge/support_events.py), `transition`, `note`, `mail`, `draft`.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from edge.auth import Principal
from edge.cases import queue_of, views
from edge.desk_history import record_view
from edge.following import Event
from edge.session_shapes import may_handle, seconds, view_of
from edge.support_events import write_event
from schemas.approval import ApprovalAsked, Decided
from schemas.base import Message, tag_of
from schemas.desk import AgentChanged, AgentView
from schemas.envelope import UNREADABLE, Envelope, decode_any
from schemas.ownership import Case, CaseChanged, SlaAlert
from schemas.record import Delta

DELTA = tag_of(Delta)
_decode_delta = msgspec.json.Decoder(Delta).decode


class DeskTelling:
    """Writes the events of desks for one who looks on."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    def tell(self, number: int, event: Event) -> bytes:
        """Return what an event says; nothing if it says nothing to them."""
        known = TOLD.get(event.name)
        if known is None:
            return b""
        decode, name, show = known
        try:
            envelope = decode(event.data)
        except UNREADABLE:
            return b""
        said = envelope.data
        case = getattr(said, "case", None)
        if case is not None and not may_handle(self._principal, case):
            return b""
        return write_event(name, cursor=event.seq, timestamp=seconds(envelope.time), **show(said))


def write_board(reason: str, cases: list[Case], agents: list[AgentView], cursor: int) -> bytes:
    """Return how the desks stand, as the first event of a feed or the one behind a hole."""
    now = datetime.now(UTC)
    open_cases = [case for case in cases if case.mode != "bot_active"]
    return write_event(
        "reset",
        cursor=cursor,
        reason=reason,
        queue=queue_of(open_cases, now),
        sessions=views(open_cases, now),
        agents=[agent_shown(agent) for agent in agents],
    )


def agent_shown(agent: AgentView) -> dict[str, Any]:
    """An agent as colleagues see them."""
    return {
        "id": agent.id,
        "name": agent.name,
        "avatar": agent.avatar,
        "presence": agent.presence,
        "capacity": agent.capacity,
        "skills": agent.skills,
        "teams": agent.teams,
        "sessions": agent.open,
    }


def tell_internal(event: Event) -> bytes:
    """Return what an event among colleagues says; nothing if it is none that is shown."""
    try:
        envelope = decode_any(event.data)
        if event.name == DELTA:
            return _tell_draft(_decode_delta(envelope.data), event.seq)
    except UNREADABLE:
        return b""
    view = record_view(event.seq, envelope)
    if view is None:
        return b""
    fields = msgspec.to_builtins(view)
    return write_event(fields.pop("type"), cursor=event.seq, **fields)


def _tell_draft(delta: Delta, cursor: int) -> bytes:
    """A piece of a draft: pieces of a newer attempt are not glued to those of an older one."""
    if delta.kind != "text" or not delta.text:
        return b""
    return write_event(
        "draft_piece",
        cursor=cursor,
        run=delta.run,
        attempt=delta.attempt,
        n=delta.n,
        content=delta.text,
    )


def _case(said: CaseChanged) -> dict[str, Any]:
    session = view_of(said.case, datetime.now(UTC), said.case.thread)
    return {"session": session, "reason": said.why}


def _alert(said: SlaAlert) -> dict[str, Any]:
    return {
        "kind": said.kind,
        "since": seconds(said.since),
        "limit": said.limit,
        "session": view_of(said.case, datetime.now(UTC), said.case.thread),
    }


def _agent(said: AgentChanged) -> dict[str, Any]:
    return {"agent": agent_shown(said.agent)}


def _asked(said: ApprovalAsked) -> dict[str, Any]:
    return {"approval": said.approval, "ask": said.ask, "due": seconds(said.due)}


def _decided(said: Decided) -> dict[str, Any]:
    return {"approval": said.approval, "decision": said.decision, "by": said.by}


Show = Callable[[Any], dict[str, Any]]


def _told(kind: type[Message], name: str, show: Show) -> tuple[str, tuple[Any, str, Show]]:
    decode = msgspec.json.Decoder(Envelope[kind]).decode  # type: ignore[valid-type]  # made here
    return tag_of(kind), (decode, name, show)


TOLD: Mapping[str, tuple[Any, str, Show]] = dict(
    (
        _told(CaseChanged, "session_update", _case),
        _told(SlaAlert, "sla_alert", _alert),
        _told(AgentChanged, "agent_update", _agent),
        _told(ApprovalAsked, "approval", _asked),
        _told(Decided, "approval_decided", _decided),
    )
)
