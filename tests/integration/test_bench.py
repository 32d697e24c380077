"""The benchmark's contestants run, at a size that says nothing about speed."""

from argparse import Namespace
from collections.abc import Sequence

import pytest

import bench.answers
import bench.streams
from bench.answers import ask_us
from bench.arena import Result, run_once
from bench.contestants import CONTESTANTS, Contestant, Sizes
from bench.streams import measure_followers, measure_runs
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


@pytest.mark.usefixtures("nats_server_binary")
async def test_answers_are_heard_through_our_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.answers, "LASTS", 1.0)

    found = await ask_us(2, 10.0, 1.0, None)

    assert found.refused == 0
    assert found.heard.first
    assert len(found.heard.all) > 2
    assert set(found.spent) == {"fake", "host", "edge", "server"}


@pytest.mark.usefixtures("nats_server_binary")
async def test_runs_and_followers_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.streams, "SETTLE", 0.3)
    given = Namespace(rate=10.0, seconds=0.5, followers=3, data=None)

    runs = await measure_runs(given, 2)
    followers = await measure_followers(given)

    assert min(runs.rate, followers.rate) > 0
