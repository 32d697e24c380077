"""What becomes of a run when its upstreams fail, before and after the first piece."""

from collections.abc import AsyncIterator

import pytest

from schemas.model import conversation_topic
from schemas.record import RunSuperseded
from tests.integration.talking import talking
from tests.integration.wordy import Plan, Reply, Wordy, options, wordy_spoken

pytestmark = pytest.mark.usefixtures("wordy_spoken")
__all__ = ["wordy_spoken"]

CONVERSATION = conversation_topic("c")


def half(number: int, body: object) -> Reply:
    """Every answer breaks off."""
    return Reply(("half ",), then="cut")


def limited(wait: str, times: int) -> Plan:
    """The first answers ask for a rest."""
    return lambda n, body: Reply(status=429, retry_after=wait) if n <= times else Reply()


@pytest.fixture
async def two() -> AsyncIterator[tuple[Wordy, Wordy]]:
    """Two upstreams that answer."""
    async with Wordy() as one, Wordy() as other:
        yield one, other


async def test_before_the_first_piece_the_next_upstream_is_asked(two: tuple[Wordy, Wordy]) -> None:
    def busy_at_first(number: int, body: object) -> Reply:
        return Reply() if two[0].calls and two[1].calls else Reply(status=503)

    two[0].plan = two[1].plan = busy_at_first
    async with talking(options(*two)) as talk:
        result = await talk.ask()
        said = await talk.deltas()
        superseded = await talk.kit.events(CONVERSATION, RunSuperseded)

    assert result.outcome == "answered"
    assert "".join(one.text for one in said) == "one two three"
    assert (len(two[0].calls), len(two[1].calls)) == (1, 1)
    assert superseded == []


async def test_after_the_first_piece_a_new_attempt_supersedes_the_old(
    two: tuple[Wordy, Wordy],
) -> None:
    first = True

    def cut_once(number: int, body: object) -> Reply:
        nonlocal first
        reply = Reply(("half ",), then="cut") if first else Reply()
        first = False
        return reply

    two[0].plan = two[1].plan = cut_once
    async with talking(options(*two)) as talk:
        result = await talk.ask()
        said = await talk.deltas()
        kept = await talk.answers()
        superseded = await talk.kit.events(CONVERSATION, RunSuperseded)

    assert result.outcome == "answered"
    assert [(one.attempt, one.text) for one in said if one.attempt == 1] == [(1, "half ")]
    assert "".join(one.text for one in said if one.attempt == 2) == "one two three"
    assert [one.text for one in kept] == ["one two three"]
    assert [one.attempt for one in superseded] == [2]
    # The one that stopped midway is not asked first again.
    assert (len(two[0].calls), len(two[1].calls)) == (1, 1)


async def test_an_answer_that_breaks_off_every_time_fails_with_what_broke_it() -> None:
    async with Wordy(half) as one, talking(options(one), attempts=2) as talk:
        result = await talk.ask()
        kept = await talk.answers()
        letters = await talk.kit.dead_letters()

    assert (result.outcome, result.code, result.status) == ("failed", "truncated", 502)
    assert len(one.calls) == 2
    assert (kept, letters) == ([], [])


async def test_what_no_upstream_would_take_is_asked_once(two: tuple[Wordy, Wordy]) -> None:
    two[0].plan = two[1].plan = lambda number, body: Reply(status=400)

    async with talking(options(*two)) as talk:
        result = await talk.ask()
        finished = await talk.finished()

    assert (result.code, result.status) == ("bad_request", 400)
    assert len(two[0].calls) + len(two[1].calls) == 1
    assert [(one.outcome, one.code) for one in finished] == [("failed", "bad_request")]


async def test_a_key_that_is_refused_is_tried_at_the_next_upstream_and_not_again(
    two: tuple[Wordy, Wordy],
) -> None:
    two[0].plan = two[1].plan = lambda number, body: Reply(status=401)

    async with talking(options(*two)) as talk:
        result = await talk.ask()

    assert (result.code, result.status) == ("unauthorized", 502)
    assert (len(two[0].calls), len(two[1].calls)) == (1, 1)


async def test_an_upstream_that_asks_for_a_moment_is_given_it() -> None:
    async with Wordy(limited("0.3", 1)) as one, talking(options(one)) as talk:
        result = await talk.ask()

    assert result.outcome == "answered"
    assert len(one.calls) == 2


@pytest.mark.parametrize("wait", ["0", "-1", "nan", "soon"])
async def test_a_retry_after_that_says_nothing_sensible_is_passed_over(wait: str) -> None:
    async with Wordy(limited(wait, 1)) as one, talking(options(one)) as talk:
        result = await talk.ask()

    assert result.outcome == "answered"
    assert len(one.calls) == 2


async def test_an_hour_of_rest_is_not_waited_for_but_told() -> None:
    async with Wordy(limited("3600", 1)) as one, talking(options(one)) as talk:
        result = await talk.ask()
        again = await talk.ask()

    assert (result.code, result.status, result.retry_after) == ("rate_limited", 429, 3600)
    assert again.code == "rate_limited"
    assert 3500 < again.retry_after < 4000
    assert len(one.calls) == 1
