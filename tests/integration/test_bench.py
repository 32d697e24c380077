"""The benchmark's contestants run, at a size that says nothing about speed."""

from collections.abc import Sequence

import pytest

from bench.arena import Result, run_once
from bench.contestants import CONTESTANTS, Contestant, Sizes
from bench.table import percentile, tables

TINY = Sizes(warm=5, load=20, synced=20)


@pytest.mark.usefixtures("nats_server_binary")
@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda one: one.name)
async def test_each_contestant_handles_exactly_what_it_is_sent(contestant: Contestant) -> None:
    if missing := contestant.missing():
        pytest.skip(f"{missing} cannot be imported")
    sizes = Sizes(
        warm=TINY.warm if contestant.full.load else 0,
        load=TINY.load if contestant.full.load else 0,
        synced=TINY.synced if contestant.full.load else 0,
        trips=3 if contestant.full.trips else 0,
    )

    result = await run_once(
        contestant, sizes, Result(contestant=contestant.name, sync="2m", round=0)
    )

    assert result.handled == sizes.load
    assert len(result.trips) == sizes.trips


def test_a_ratio_is_the_median_of_what_ran_side_by_side() -> None:
    results = [
        *(Result(contestant="nats-py loop", sync="2m", round=n, rate=r) for n, r in _rates(1)),
        *(Result(contestant="our job", sync="2m", round=n, rate=r) for n, r in _rates(3)),
    ]

    lines = tables(results)

    cells = [cell.strip() for cell in lines[3].split("|")]
    assert cells[1:6] == ["our job", "2m", "60", "30–300", "3.00"]


def test_a_percentile_is_one_of_the_values() -> None:
    values = [4.0, 1.0, 3.0, 2.0]

    assert (percentile(values, 0.5), percentile(values, 0.99)) == (3.0, 4.0)


def _rates(times: float) -> Sequence[tuple[int, float]]:
    return [(0, 10 * times), (1, 20 * times), (2, 100 * times)]
