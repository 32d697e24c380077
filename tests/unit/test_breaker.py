"""When an upstream is left alone, for how long, and what ends that."""

import math

import pytest

from actors.models.breaker import LONGEST_REST, Breaker
from actors.models.faults import Code, UpstreamFault


class Hands:
    """A clock's hands, moved by the test."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def make(faults: int = 2, rest: float = 10) -> tuple[Breaker, Hands]:
    hands = Hands()
    return Breaker(faults, rest, hands), hands


def fault(code: Code = "server_error", after: float | None = None) -> UpstreamFault:
    return UpstreamFault(code, "it said so", retry_after=after)


def test_it_opens_after_faults_in_a_row_and_not_before() -> None:
    breaker, _ = make(faults=2)
    breaker.fail(fault())
    assert breaker.may_ask
    breaker.fail(fault())

    assert not breaker.may_ask
    assert 10 <= breaker.wait <= 11


def test_an_answer_between_them_starts_the_count_again() -> None:
    breaker, _ = make(faults=2)
    breaker.fail(fault())
    breaker.succeed()
    breaker.fail(fault())

    assert breaker.may_ask


def test_after_the_rest_one_call_is_let_through() -> None:
    breaker, hands = make(faults=1)
    breaker.fail(fault())
    hands.now += 12
    assert breaker.may_ask
    breaker.begin()

    assert not breaker.may_ask
    assert breaker.wait == 0


def test_the_first_piece_of_its_answer_lets_the_others_in_and_the_next_fault_shuts_again() -> None:
    breaker, hands = make(faults=3)
    for _ in range(3):
        breaker.fail(fault())
    hands.now += 12
    breaker.begin()
    breaker.answers()
    assert breaker.closed
    breaker.fail(fault("truncated"))

    assert not breaker.may_ask


def test_a_trial_that_somebody_ended_lets_the_next_one_try() -> None:
    breaker, hands = make(faults=1)
    breaker.fail(fault())
    hands.now += 12
    breaker.begin()
    breaker.leave()

    assert breaker.may_ask


def test_one_that_asks_for_a_rest_has_it_at_once() -> None:
    breaker, hands = make(faults=5)
    breaker.fail(fault("rate_limited", after=30))
    assert (breaker.status, breaker.limited) == ("429_LIMIT", True)
    # A call that was under way before says nothing of the next.
    breaker.succeed()
    assert not breaker.may_ask
    hands.now += 34

    assert breaker.may_ask


def test_one_that_is_overloaded_and_says_for_how_long_is_waited_for_as_well() -> None:
    breaker, _ = make(faults=5)
    breaker.fail(fault("overloaded", after=2))

    assert (breaker.status, breaker.limited) == ("ERROR", True)
    assert breaker.wait > 0


@pytest.mark.parametrize("after", [None, 0, -1, math.nan, math.inf, -math.inf])
def test_what_is_no_time_to_wait_counts_as_a_fault_like_others(after: float | None) -> None:
    breaker, _ = make(faults=2)
    breaker.fail(fault("rate_limited", after=after))

    assert breaker.may_ask


def test_nobody_is_left_alone_for_more_than_an_hour_and_a_bit() -> None:
    breaker, _ = make()
    breaker.fail(fault("rate_limited", after=10**9))

    assert breaker.wait <= LONGEST_REST * 1.1


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("unreachable", "OFFLINE"),
        ("timeout", "OFFLINE"),
        ("overloaded", "ERROR"),
        ("truncated", "ERROR"),
        ("unauthorized", "ERROR"),
        ("quota_exhausted", "ERROR"),
    ],
)
@pytest.mark.promise("AC-52")
def test_what_it_is_called_follows_from_what_went_wrong(code: Code, status: str) -> None:
    breaker, _ = make(faults=1)
    assert breaker.status == "HEALTHY"
    breaker.fail(fault(code))

    assert breaker.status == status
    assert "it said so" in breaker.explain()


@pytest.mark.parametrize("code", ["bad_request", "context_too_long", "model_not_found"])
def test_a_call_that_was_wrong_itself_says_that_the_upstream_is_well(code: Code) -> None:
    breaker, _ = make(faults=2)
    breaker.fail(fault())
    breaker.fail(fault(code))
    breaker.fail(fault())

    assert breaker.may_ask
