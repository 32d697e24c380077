"""Cases as lists: filters, orders, and what they come to."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edge.auth import DESK_LEAD, DESK_READ, Principal
from edge.cases import Wanted, order, queue_of, select, stats_of, visible
from edge.session_shapes import may_handle
from schemas.ownership import Assignee, Case, Customer, Escalation

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ANN, BOB = Assignee("ann", "Ann"), Assignee("bob", "Bob")


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def waiting(session: str, minutes: float, **more: Any) -> Case:
    at = ago(minutes)
    return Case(session=session, mode="pending_manual", created=at, pending_since=at, **more)


CASES = [
    waiting("late", 6, last="when do you come?", last_at=ago(6)),
    waiting("vip", 1, customer=Customer(nickname="Queen", vip=True)),
    waiting("angry", 2, escalation=Escalation(reason="keyword", evidence="投诉")),
    waiting("plain", 3, escalation=Escalation(reason="manual", severity="low")),
    waiting("returned", 1, team="returns", assignee=BOB),
    Case(
        session="live",
        mode="manual_live",
        created=ago(30),
        assignee=ANN,
        pending_since=ago(20),
        manual_since=ago(10),
        waiting_since=ago(4),
        last_at=ago(4),
        escalations=1,
    ),
    Case(session="done", created=ago(90), last_at=ago(60), escalations=2),
    Case(
        session="new",
        created=ago(5),
        last_at=ago(1),
        customer=Customer(email="q@example.org", metadata={"order_count": 3}),
    ),
]


def names(cases: Any) -> list[str]:
    return [case.session for case in cases]


@pytest.mark.promise("FD-62")
def test_the_queue_begins_with_the_most_urgent_who_waits_longest() -> None:
    view = queue_of(CASES, NOW)

    assert [entry.session_name for entry in view.queue] == [
        "late",
        "vip",
        "angry",
        "plain",
        "returned",
    ]
    assert [entry.priority_level for entry in view.queue] == [
        "urgent",
        "urgent",
        "high",
        "normal",
        "normal",
    ]
    assert [entry.position for entry in view.queue] == [1, 2, 3, 4, 5]
    assert (view.total_count, view.vip_count, view.max_wait_time) == (5, 1, 360.0)
    assert view.queue[2].urgent_keywords == ["投诉"]
    assert (view.queue[1].nickname, view.queue[0].last_message) == ("Queen", "when do you come?")
    assert view.queue[4].offered_to == "bob"


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"status": "manual_live"}, {"live"}),
    ({"status": "bot_active"}, {"done", "new"}),
    ({"agent": "ann"}, {"live"}),
    ({"agent": "unassigned"}, {"late", "vip", "angry", "plain"}),
    ({"customer_type": "vip"}, {"vip"}),
    ({"customer_type": "old"}, {"new"}),
    ({"keyword": " QUEEN "}, {"vip"}),
    ({"keyword": "example.org"}, {"new"}),
    ({"keyword": "when do"}, {"late"}),
    ({"keyword": "nowhere"}, set()),
    ({"team": "returns"}, {"returned"}),
    ({"time_start": ago(7).timestamp(), "time_end": ago(5).timestamp()}, {"late", "new"}),
    ({"time_start": ago(10).timestamp(), "status": "bot_active"}, {"new"}),
]


@pytest.mark.parametrize(("wanted", "found"), FILTERS)
def test_each_filter_leaves_what_it_says(wanted: dict[str, Any], found: set[str]) -> None:
    assert set(names(select(CASES, Wanted(**wanted)))) == found


def test_each_order_is_what_it_says() -> None:
    def first(sort: Any) -> list[str]:
        return names(order(CASES, sort, NOW))

    assert first("default")[:3] == ["late", "vip", "angry"]
    assert first("default")[-3:] == ["live", "new", "done"]
    assert first("newest")[-1] == first("oldest")[0] == "done"
    assert first("vip")[0] == "vip"
    assert first("waitTime")[:3] == ["late", "live", "plain"]
    assert first("waitTime")[-2:] == ["new", "done"]


@pytest.mark.promise("FD-44", "FD-50")
def test_statistics_count_what_there_is() -> None:
    stats = stats_of(CASES, NOW)

    assert stats.total_sessions == 8
    assert stats.by_status == {"bot_active": 2, "manual_live": 1, "pending_manual": 5}
    assert (stats.waiting, stats.active_sessions, stats.active_agents) == (5, 6, 1)
    assert (stats.avg_waiting_time, stats.max_waiting_time) == (156.0, 360.0)
    assert stats.avg_service_time == 600.0
    assert stats.by_escalation_reason == {"keyword": 1, "manual": 1}
    assert [(one.agent_id, one.sessions, one.waiting) for one in stats.per_agent] == [("ann", 1, 1)]
    assert stats.per_team["returns"] == {"pending_manual": 1}
    assert stats.escalation_rate == round(7 / 8, 3)
    assert stats_of([], NOW).escalation_rate == 0


def test_an_agent_sees_their_teams_and_what_is_theirs() -> None:
    scopes = frozenset({DESK_READ})
    ann = Principal("agent:ann", "agent", scopes, agent="ann", teams=frozenset({"returns"}))
    lead = Principal("agent:li", "agent", scopes | {DESK_LEAD}, agent="li")
    machine = Principal("anonymous", "anonymous", scopes)

    assert set(names(case for case in CASES if may_handle(ann, case))) == {"returned", "live"}
    assert all(may_handle(lead, case) and may_handle(machine, case) for case in CASES)


def test_what_its_session_has_forgotten_is_left_out_unless_a_person_has_it() -> None:
    machine = Principal("anonymous", "anonymous")

    assert "done" not in names(visible(CASES, machine, NOW, timedelta(minutes=30)))
    assert "live" in names(visible(CASES, machine, NOW, timedelta(minutes=1)))
