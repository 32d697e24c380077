"""A session as Fiido's clients see it, made from what a desk knows of it.

Source: the Fiido customer service, whose clients rely on these names; more fields are only added.
"""

from datetime import datetime
from typing import Any

import msgspec

from edge.auth import DESK_LEAD, Principal
from schemas.desk import prioritise
from schemas.ownership import SUPPORT, Assignee, Case, Mode
from schemas.session import SessionState


class EscalationView(msgspec.Struct, kw_only=True):
    """Why a person was called; `rule`, `version` and `evidence` say which rule fired on what."""

    reason: str
    details: str
    severity: str
    trigger_at: float | None
    rule: str = ""
    version: str = ""
    evidence: str = ""


class PriorityView(msgspec.Struct, kw_only=True):
    """How urgent it is, and why."""

    level: str
    is_vip: bool
    wait_time_seconds: float
    is_timeout: bool
    is_repeat: bool
    urgent_keywords: list[str]


class MessagePreview(msgspec.Struct, kw_only=True):
    """How the last message begins, and who said it."""

    role: str
    content: str
    timestamp: float | None


class SessionView(msgspec.Struct, kw_only=True):
    """A session. Times are in seconds since 1970. `epoch` counts the changes of who may speak;
    `closed_until` is when the desk opens again, if it was closed when a person was called."""

    session_name: str
    status: Mode
    conversation_id: str | None
    user_profile: dict[str, Any]
    escalation: EscalationView | None
    assigned_agent: Assignee | None
    priority: PriorityView
    last_message: MessagePreview | None
    title: str
    team: str
    epoch: int
    ai_fail_count: int
    escalations: int
    created_at: float | None
    updated_at: float | None
    pending_since: float | None
    manual_start_at: float | None
    last_manual_end_at: float | None
    closed_until: float | None


def case_of(session: str, state: SessionState) -> Case:
    """A session's record as a desk is told of it."""
    known = msgspec.structs.asdict(state.hold)
    team = state.hold.team or SUPPORT
    known |= {"title": state.title, "thread": state.thread, "created": state.created, "team": team}
    return Case(session=session, **known)


def may_handle(principal: Principal, case: Case) -> bool:
    """Whether a case is for somebody: of an agent's teams, or their own; of a lead's any."""
    if principal.kind != "agent" or DESK_LEAD in principal.scopes:
        return True
    mine = case.assignee is not None and case.assignee.id == principal.agent
    return mine or case.team in principal.teams


def view_of(case: Case, now: datetime, thread: str = "") -> SessionView:
    """Return how a case is shown."""
    return SessionView(
        session_name=case.session,
        status=case.mode,
        conversation_id=thread or None,
        user_profile=msgspec.structs.asdict(case.customer),
        escalation=_escalation(case),
        assigned_agent=case.assignee,
        priority=_priority(case, now),
        last_message=_last(case),
        title=case.title,
        team=case.team,
        epoch=case.epoch,
        ai_fail_count=case.failures,
        escalations=case.escalations,
        created_at=seconds(case.created),
        updated_at=seconds(case.last_at or case.created),
        pending_since=seconds(case.pending_since),
        manual_start_at=seconds(case.manual_since),
        last_manual_end_at=seconds(case.manual_ended),
        closed_until=seconds(case.closed_until),
    )


def seconds(at: datetime | None) -> float | None:
    """A time as Fiido's clients read it, to the millisecond."""
    return round(at.timestamp(), 3) if at else None


def _escalation(case: Case) -> EscalationView | None:
    called = case.escalation
    if called is None:
        return None
    return EscalationView(
        reason=called.reason,
        details=called.details,
        severity=called.severity,
        trigger_at=seconds(called.at),
        rule=called.rule,
        version=called.version,
        evidence=called.evidence,
    )


def _priority(case: Case, now: datetime) -> PriorityView:
    found = prioritise(case, now)
    return PriorityView(
        level=found.level,
        is_vip=found.is_vip,
        wait_time_seconds=round(found.wait_seconds, 3),
        is_timeout=found.is_timeout,
        is_repeat=found.is_repeat,
        urgent_keywords=list(found.urgent_keywords),
    )


def _last(case: Case) -> MessagePreview | None:
    if not case.last_by:
        return None
    return MessagePreview(role=case.last_by, content=case.last, timestamp=seconds(case.last_at))
