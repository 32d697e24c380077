"""Cases as lists: which of them are wanted, in which order, and what they come to.

Nothing is asked of anybody here; source of the filters and orders: the Fiido service's workbench.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from edge.auth import Principal
from edge.board import changed_at
from edge.session_shapes import SessionView, may_handle, seconds, view_of
from schemas.desk import prioritise
from schemas.ownership import Case, Mode

Status = Literal["all", "bot_active", "pending_manual", "manual_live"]
CustomerType = Literal["all", "vip", "old", "new"]
Sort = Literal["default", "newest", "oldest", "vip", "waitTime"]
ORDER: tuple[Mode, ...] = ("pending_manual", "manual_live", "bot_active")
MOST_PREVIEW = 50
ORDERS = "order_count"
"""Where a customer's metadata says how often they have bought something."""


class Wanted(msgspec.Struct, kw_only=True):
    """Which cases are wanted; `agent` is all, unassigned, or an agent's id."""

    status: Status = "all"
    time_start: float | None = None
    time_end: float | None = None
    agent: str = "all"
    customer_type: CustomerType = "all"
    keyword: str = ""
    team: str = ""


class QueueEntry(msgspec.Struct, kw_only=True):
    """Somebody who waits for a person, in the order in which they should be served."""

    session_name: str
    position: int
    nickname: str
    is_vip: bool
    last_message: str
    wait_time_seconds: float
    is_timeout: bool
    priority_level: str
    urgent_keywords: list[str]
    reason: str
    severity: str
    team: str
    offered_to: str | None
    pending_since: float | None
    closed_until: float | None


class QueueView(msgspec.Struct, kw_only=True):
    """All who wait."""

    queue: list[QueueEntry]
    total_count: int
    vip_count: int
    avg_wait_time: float
    max_wait_time: float


class AgentLoad(msgspec.Struct, kw_only=True):
    """How many sessions an agent has, and in how many of them a customer waits for an answer."""

    agent_id: str
    agent_name: str
    sessions: int
    waiting: int


class StatsView(msgspec.Struct, kw_only=True):
    """What the cases come to. Times are in seconds."""

    total_sessions: int
    by_status: dict[str, int]
    active_sessions: int
    waiting: int
    avg_waiting_time: float
    max_waiting_time: float
    avg_service_time: float
    active_agents: int
    by_escalation_reason: dict[str, int]
    by_priority: dict[str, int]
    escalated: int
    escalation_rate: float
    per_agent: list[AgentLoad]
    per_team: dict[str, dict[str, int]]


def visible(
    cases: Iterable[Case], principal: Principal, now: datetime, lifetime: timedelta
) -> list[Case]:
    """Return the cases that somebody may see; what its session has forgotten is left out."""
    oldest = now - lifetime
    return [
        case
        for case in cases
        if may_handle(principal, case) and (case.mode != "bot_active" or changed_at(case) >= oldest)
    ]


def select(cases: Iterable[Case], wanted: Wanted) -> list[Case]:
    """Return the cases that are wanted."""
    word = wanted.keyword.strip().casefold()
    return [
        case
        for case in cases
        if wanted.status in ("all", case.mode)
        and wanted.team in ("", case.team)
        and _is_of_time(case, wanted)
        and _is_of_agent(case, wanted.agent)
        and _is_of_customer(case, wanted.customer_type)
        and (not word or _says(case, word))
    ]


def order(cases: Iterable[Case], sort: Sort, now: datetime) -> list[Case]:
    """Return cases in an order. By default who waits comes first, the most urgent of all."""
    if sort == "oldest":
        return sorted(cases, key=changed_at)
    newest = sorted(cases, key=changed_at, reverse=True)
    # What is equal stays in that order.
    if sort == "vip":
        newest.sort(key=lambda case: not case.customer.vip)
    elif sort == "waitTime":
        newest.sort(key=lambda case: -_waits(case, now))
    elif sort == "default":
        newest.sort(key=lambda case: _by_default(case, now))
    return newest


def queue_of(cases: Iterable[Case], now: datetime) -> QueueView:
    """Return who waits for a person."""
    pending = (case for case in cases if case.mode == "pending_manual")
    waiting = sorted(pending, key=lambda case: prioritise(case, now).rank)
    queue = [_queued(case, position, now) for position, case in enumerate(waiting, start=1)]
    times = [entry.wait_time_seconds for entry in queue]
    return QueueView(
        queue=queue,
        total_count=len(queue),
        vip_count=sum(entry.is_vip for entry in queue),
        avg_wait_time=_mean(times),
        max_wait_time=max(times, default=0.0),
    )


def stats_of(cases: Sequence[Case], now: datetime) -> StatsView:
    """Return what cases come to."""
    by_status = Counter(case.mode for case in cases)
    pending = [case for case in cases if case.mode == "pending_manual"]
    live = [case for case in cases if case.mode == "manual_live"]
    reasons = Counter(case.escalation.reason for case in pending + live if case.escalation)
    waits = [_since(case.pending_since, now) for case in pending]
    escalated = sum(case.escalations > 0 or case.mode != "bot_active" for case in cases)
    loads = _loads(live)
    return StatsView(
        total_sessions=len(cases),
        by_status={mode: by_status[mode] for mode in sorted(ORDER)},
        active_sessions=len(pending) + len(live),
        waiting=len(pending),
        avg_waiting_time=_mean(waits),
        max_waiting_time=max(waits, default=0.0),
        avg_service_time=_mean([_since(case.manual_since, now) for case in live]),
        active_agents=len(loads),
        by_escalation_reason={str(reason): count for reason, count in reasons.items()},
        by_priority=dict(Counter(str(prioritise(case, now).level) for case in pending)),
        escalated=escalated,
        escalation_rate=round(escalated / len(cases), 3) if cases else 0.0,
        per_agent=loads,
        per_team=_teams(cases),
    )


def views(cases: Iterable[Case], now: datetime) -> list[SessionView]:
    """Return cases as sessions are shown."""
    return [view_of(case, now, case.thread) for case in cases]


def _is_of_time(case: Case, wanted: Wanted) -> bool:
    if wanted.time_start is None and wanted.time_end is None:
        return True
    created = case.created.timestamp() if case.created else 0.0
    after = wanted.time_start is None or created >= wanted.time_start
    return after and (wanted.time_end is None or created <= wanted.time_end)


def _is_of_agent(case: Case, agent: str) -> bool:
    if agent == "unassigned":
        return case.assignee is None and case.mode != "bot_active"
    return agent == "all" or (case.assignee is not None and case.assignee.id == agent)


def _is_of_customer(case: Case, kind: CustomerType) -> bool:
    if kind == "vip":
        return case.customer.vip
    orders = case.customer.metadata.get(ORDERS, 0)
    has_bought = isinstance(orders, int | float) and orders > 0
    return kind == "all" or has_bought == (kind == "old")


def _says(case: Case, word: str) -> bool:
    customer, agent = case.customer, case.assignee
    texts = (
        case.session,
        customer.nickname,
        customer.email,
        case.title,
        case.last,
        agent.name if agent else "",
        agent.id if agent else "",
    )
    return any(word in text.casefold() for text in texts)


def _by_default(case: Case, now: datetime) -> tuple[int, int, float]:
    place = ORDER.index(case.mode)
    if case.mode == "pending_manual":
        return place, *prioritise(case, now).rank
    return place, 0 if case.customer.vip else 1, 0.0


def _waits(case: Case, now: datetime) -> float:
    """For how long somebody has waited; less than nothing if nobody does."""
    since = case.pending_since if case.mode == "pending_manual" else case.waiting_since
    if since is None or case.mode == "bot_active":
        return -1.0
    return _since(since, now)


def _since(at: datetime | None, now: datetime) -> float:
    return round(max((now - at).total_seconds(), 0.0), 1) if at else 0.0


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 1) if values else 0.0


def _queued(case: Case, position: int, now: datetime) -> QueueEntry:
    priority, called = prioritise(case, now), case.escalation
    return QueueEntry(
        session_name=case.session,
        position=position,
        nickname=case.customer.nickname,
        is_vip=priority.is_vip,
        last_message=case.last[:MOST_PREVIEW],
        wait_time_seconds=round(priority.wait_seconds, 1),
        is_timeout=priority.is_timeout,
        priority_level=priority.level,
        urgent_keywords=list(priority.urgent_keywords),
        reason=called.reason if called else "",
        severity=called.severity if called else "",
        team=case.team,
        offered_to=case.assignee.id if case.assignee else None,
        pending_since=seconds(case.pending_since),
        closed_until=seconds(case.closed_until),
    )


def _loads(live: Iterable[Case]) -> list[AgentLoad]:
    loads: dict[str, AgentLoad] = {}
    for case in live:
        if case.assignee is None:
            continue
        who = case.assignee
        load = loads.setdefault(
            who.id, AgentLoad(agent_id=who.id, agent_name=who.name, sessions=0, waiting=0)
        )
        load.sessions += 1
        load.waiting += case.waiting_since is not None
    return sorted(loads.values(), key=lambda load: (-load.sessions, load.agent_id))


def _teams(cases: Iterable[Case]) -> dict[str, dict[str, int]]:
    teams: dict[str, Counter[str]] = {}
    for case in cases:
        teams.setdefault(case.team, Counter())[case.mode] += 1
    return {team: dict(found) for team, found in sorted(teams.items())}
