"""What bench/support.py measures happens: everybody is heard and answered, however long it took."""

from collections.abc import AsyncIterator

import pytest

from bench import people, users
from bench.support import MEASUREMENTS, measure_once, read_arguments, tell_spent
from bench.town import Row, Town, open_town

TINY = (
    *("--times", "1", "--seconds", "1", "--chats", "4", "--think", "0.05", "--feeds", "5"),
    *("--rate", "50", "--lines", "60", "--crowd", "20", "--every", "2"),
)


@pytest.fixture
async def town(nats_server_binary: str) -> AsyncIterator[Town]:
    async with open_town(None, users.HASTY) as town:
        yield town


def came_to_nothing(rows: list[Row]) -> dict[str, int]:
    return {row.what: row.failed for row in rows if row.failed or not row.seconds}


@pytest.mark.promise("FD-108", "FD-110", "FD-111")
async def test_a_thousand_requests_and_a_hundred_users_at_once_are_all_answered(
    town: Town,
) -> None:
    given = read_arguments([*TINY, "--requests", "1000", "--users", "100"])

    health = await users.health(town, given)
    answers = await users.answers(town, given)

    assert came_to_nothing([*health, *answers]) == {}
    assert len(health[0].seconds) == 1000
    assert [len(row.seconds) for row in answers] == [100, 100, 100, 100]
    assert town.errors() == []


@pytest.mark.promise("FD-112", "FD-113", "FD-114")
async def test_what_agents_do_in_many_sessions_is_told_to_all_whom_it_concerns(
    town: Town,
) -> None:
    given = read_arguments([*TINY, "--cases", "50", "--times", "2"])

    said = await people.messages(town, given)
    joined = await people.joins(town, given)

    assert came_to_nothing([*said, *joined]) == {}
    assert [len(row.seconds) for row in said] == [50, 50]
    assert [len(row.seconds) for row in joined] == [20, 20, 200]
    assert town.errors() == []


async def test_everything_else_is_answered_as_well(town: Town) -> None:
    given = read_arguments([*TINY])

    rows = [
        row
        for measure in (users.feeds, users.whole, users.crowd, people.mixed, people.history)
        for row in await measure(town, given)
    ]

    assert came_to_nothing(rows) == {}


@pytest.mark.usefixtures("nats_server_binary")
async def test_a_measurement_says_what_it_took() -> None:
    rows, took = await measure_once("health", read_arguments([*TINY, "--requests", "10"]))

    assert [len(row.seconds) for row in rows] == [10]
    assert "edge" in took
    assert "| 0 | " in took
    assert set(read_arguments([]).only) == set(MEASUREMENTS)


def test_an_aim_is_missed_by_time_and_by_failure() -> None:
    aims = [("p50", 20.0), ("p99", 100.0)]
    rows = {
        "held": Row("a", "FD-1", aims, [0.01, 0.01, 0.05]),
        "late": Row("b", "FD-1", aims, [0.01, 0.01, 0.15]),
        "failed": Row("c", "FD-1", aims, [0.01], failed=1),
        "nothing": Row("d", "FD-1", aims),
        "unasked": Row("e", seconds=[0.01]),
    }

    assert {name: row.verdict() for name, row in rows.items()} == {
        "held": "held",
        "late": "MISSED",
        "failed": "MISSED",
        "nothing": "MISSED",
        "unasked": "–",
    }
    assert tell_spent("x", {}, ["one", "two"]).endswith("| 2 (one) | MISSED |")
