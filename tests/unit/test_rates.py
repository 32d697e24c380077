"""How many requests a minute a user may make, where time stands still until it is moved."""

import asyncio
from collections.abc import Awaitable

import pytest

from edge.problem import Refusal
from edge.rates import Policy, Rates
from tests.unit.values import Store

USER, VIP = Policy("user", 3), Policy("vip", 5)


class Time:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Edges:
    """Edges that share a store and a clock."""

    def __init__(self) -> None:
        self.store, self.clock = Store(), Time()

    def edge(self) -> Rates:
        return Rates(self.store, self.clock)


@pytest.fixture
def edges() -> Edges:
    return Edges()


async def passed(*asked: Awaitable[object]) -> int:
    """How many of several requests pass."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, dict | Refusal) for each in found), found
    return sum(isinstance(each, dict) for each in found)


async def refused(asked: Awaitable[object]) -> Refusal:
    with pytest.raises(Refusal) as found:
        await asked
    return found.value


@pytest.mark.promise("FD-73")
async def test_so_many_pass_in_a_minute_and_the_next_is_told_when_to_come(edges: Edges) -> None:
    rates = edges.edge()
    told = [await rates.take("u", USER) for _ in range(3)]
    late = await refused(rates.take("u", USER))

    assert [each["RateLimit"] for each in told] == [
        '"user";r=2;t=61',
        '"user";r=1;t=61',
        '"user";r=0;t=61',
    ]
    assert told[0]["RateLimit-Policy"] == '"user";q=3;w=60'
    assert (late.status, late.code) == (429, "rate_limited")
    assert late.headers["retry-after"] == "61"
    assert late.headers["ratelimit"] == '"user";r=0;t=61'
    assert late.members["violated_policies"] == ["user"]


async def test_what_was_granted_leaves_the_window_after_a_minute_and_not_before(
    edges: Edges,
) -> None:
    rates = edges.edge()
    await rates.take("u", USER)
    edges.clock.now += 30
    assert await passed(*(rates.take("u", USER) for _ in range(5))) == 2
    edges.clock.now += 29.9
    assert await passed(rates.take("u", USER)) == 0
    edges.clock.now += 0.4
    assert await passed(*(rates.take("u", USER) for _ in range(5))) == 1
    edges.clock.now += 61
    assert await passed(*(rates.take("u", USER) for _ in range(5))) == 3


async def test_several_edges_never_grant_more_than_there_is(edges: Edges) -> None:
    several = [edges.edge() for _ in range(4)]
    asked = [several[n % 4].take("u", USER) for n in range(200)]

    assert await passed(*asked) == 3
    assert edges.store.writes <= 3


async def test_requests_that_alternate_between_edges_get_all_of_it(edges: Edges) -> None:
    one, other = edges.edge(), edges.edge()
    found = [await passed((one, other)[n % 2].take("u", USER)) for n in range(5)]

    assert found == [1, 1, 1, 0, 0]


async def test_a_flood_is_refused_without_asking_the_store(edges: Edges) -> None:
    rates = edges.edge()
    await passed(*(rates.take("u", USER) for _ in range(5)))
    edges.store.broken = True
    assert await passed(*(rates.take("u", USER) for _ in range(1000))) == 0


async def test_users_do_not_share_a_budget(edges: Edges) -> None:
    rates = edges.edge()
    assert await passed(*(rates.take(f"u{n}", USER) for n in range(50))) == 50


@pytest.mark.promise("FD-74")
async def test_a_vip_may_ask_more_often_and_is_looked_for_only_where_it_matters(
    edges: Edges,
) -> None:
    rates, looks = edges.edge(), []

    async def deserves() -> bool:
        looks.append(1)
        return True

    told = [await rates.take("u", USER, VIP, deserves) for _ in range(5)]
    late = await refused(rates.take("u", USER, VIP, deserves))

    assert told[2]["RateLimit-Policy"] == '"user";q=3;w=60'
    assert told[4]["RateLimit"].startswith('"vip";r=0')
    assert late.members["violated_policies"] == ["vip"]
    assert len(looks) == 1


async def test_who_is_no_vip_is_not_looked_for_again_and_again(edges: Edges) -> None:
    rates, looks = edges.edge(), []

    async def deserves() -> bool:
        looks.append(1)
        return False

    assert await passed(*[rates.take("u", USER, VIP, deserves) for _ in range(100)]) == 3
    assert len(looks) == 1


async def test_a_store_that_fails_makes_an_edge_count_alone_and_refuses_nobody_else(
    edges: Edges,
) -> None:
    rates = edges.edge()
    edges.store.broken = True
    assert await passed(*(rates.take("u", USER) for _ in range(10))) == 3
    assert await passed(*(rates.take("v", USER) for _ in range(10))) == 3


async def test_a_store_that_does_not_answer_delays_nobody_for_long(
    edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.rates.DRAW_WITHIN", 0.01)
    rates = edges.edge()
    edges.store.stuck = asyncio.Event()
    async with asyncio.timeout(5):
        assert await passed(*(rates.take("u", USER) for _ in range(10))) == 3


async def test_a_value_that_nobody_can_read_locks_nobody_out(edges: Edges) -> None:
    rates = edges.edge()
    edges.store.values["rate.u"] = (b"\xff not JSON", 7)
    assert await passed(*(rates.take("u", USER) for _ in range(10))) == 3
