"""What a deployment would make of the roster: deploying, removing, going back."""

from datetime import UTC, datetime
from typing import Any

import pytest

from runtime.deployments import Kept
from runtime.errors import NotPossible
from runtime.terminal.plan import Plan, plan_deployment, plan_rollback
from schemas.deployment import Deployment, Entry, Roster


def one(name: str, **rest: Any) -> Deployment:
    return Deployment(**{"name": name, "type": "x:Y", "kind": "worker"} | rest)


def seed(name: str, **rest: Any) -> Entry:
    return Entry(source="file", deployment=one(name, **rest))


def live(name: str, **rest: Any) -> Entry:
    return Entry(source="live", deployment=one(name, **rest))


def gone(name: str, **rest: Any) -> Entry:
    return Entry(source="live", deployment=one(name, **rest), removed=True)


def roster(revision: int, *entries: Entry) -> Roster:
    return Roster(revision=revision, at=datetime.now(UTC), by="me", note="", entries=entries)


def kept(*entries: Entry, revision: int = 1) -> Kept:
    return Kept(roster(revision, *entries), seq=7)


def planned(before: Kept | None, *deployments: Deployment, **how: Any) -> Plan:
    return plan_deployment(before, deployments, note="test", **how)


def test_what_is_deployed_live_wins_over_the_file_from_then_on() -> None:
    plan = planned(kept(seed("a"), seed("b")), one("a", attempts=2))

    assert plan.after == {"a": live("a", attempts=2), "b": seed("b")}


def test_what_is_just_so_already_stays_the_files() -> None:
    assert planned(kept(seed("a")), one("a")).after == {"a": seed("a")}


def test_what_the_code_handles_by_now_is_noted_and_stays_the_files() -> None:
    plan = planned(kept(seed("a")), one("a", handles=("x.y",)))

    assert plan.after == {"a": seed("a", handles=("x.y",))}


def test_what_was_removed_may_be_deployed_again() -> None:
    plan = planned(kept(gone("a")), one("a"))

    assert plan.after == {"a": live("a")}
    assert (plan.old, plan.new) == ({}, {"a": one("a")})


def test_removed_ones_leave_a_mark_that_keeps_the_file_out() -> None:
    assert planned(kept(seed("a"), live("b")), remove=["a"]).after == {
        "a": gone("a"),
        "b": live("b"),
    }


def test_pruning_removes_all_that_is_not_named() -> None:
    plan = planned(kept(seed("a"), live("b"), gone("c")), one("b"), prune=True)

    assert plan.after == {"a": gone("a"), "b": live("b"), "c": gone("c")}


@pytest.mark.parametrize(
    ("entries", "name", "said"),
    [
        ([seed("adder")], "ader", "did you mean 'adder'"),
        ([seed("a"), seed("b")], "xyz", "deployed is a, b"),
        ([gone("a")], "a", "deployed is nothing"),
    ],
)
def test_only_what_is_deployed_can_be_removed(entries: list[Entry], name: str, said: str) -> None:
    with pytest.raises(NotPossible, match=said):
        planned(kept(*entries), remove=[name])


def test_one_name_is_not_both_deployed_and_removed() -> None:
    with pytest.raises(NotPossible, match="the file deploys a, and --remove takes it away"):
        planned(kept(seed("a")), one("a"), remove=["a"])


def test_a_rollback_counts_as_live_and_removes_what_was_not_there() -> None:
    old = roster(1, seed("a"), seed("b"))
    now = kept(live("a", attempts=2), seed("b"), seed("c"), revision=2)
    plan = plan_rollback(now, [old, now.roster], None)

    assert plan.after == {"a": live("a"), "b": seed("b"), "c": gone("c")}
    assert plan.note == "back to revision 1"


def test_a_rollback_to_before_a_removal_undoes_it_and_the_other_way_round() -> None:
    there, removed = roster(1, seed("a")), roster(2, gone("a"))
    undone = plan_rollback(Kept(removed, 2), [there, removed], None)
    redone = plan_rollback(Kept(roster(3, live("a")), 3), [there, removed, roster(3)], 2)

    assert undone.after == {"a": live("a")}
    assert redone.after == {"a": gone("a")}


@pytest.mark.parametrize(
    ("history", "revision", "said"),
    [
        ([], None, "nothing was ever deployed"),
        ([roster(1)], None, "revision 1 is the only one"),
        ([roster(5), roster(6)], 3, "revision 3 is not kept; kept are 5 to 6"),
    ],
)
def test_only_what_is_kept_can_be_gone_back_to(
    history: list[Roster], revision: int | None, said: str
) -> None:
    with pytest.raises(NotPossible, match=said):
        plan_rollback(None, history, revision)


def test_a_change_of_kind_is_seen_also_where_the_name_was_removed() -> None:
    before = kept(live("a"), gone("b"), live("c"))
    plan = planned(before, one("a", kind="keyed"), one("b", kind="keyed"), one("c", kind="remote"))

    assert [(old.name, new.kind) for old, new in plan.changed_kinds()] == [
        ("a", "keyed"),
        ("b", "keyed"),
    ]
