"""How many streams a user may have at once, over edges that share a store which may fail."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from edge.problem import Refusal
from edge.seats import RESERVE, Seats
from tests.integration.waiting import until
from tests.unit.values import Store


def seats(store: Store, *, per_user: int = 3, in_total: int = 1000, name: str = "") -> Seats:
    return Seats(store, per_user=per_user, in_total=in_total, name=name)


async def refused(edge: Seats, user: str | None) -> Refusal:
    with pytest.raises(Refusal) as found:
        async with edge.held(user):
            pass
    return found.value


def stored(store: Store, key: str) -> Any:
    return msgspec.json.decode(store.values[key][0])


async def settled(store: Store, key: str, wanted: Any) -> None:
    await until(lambda: stored(store, key) == wanted)


async def test_seats_are_counted_over_edges_and_given_back() -> None:
    store = Store()
    one, other = seats(store, name="one"), seats(store, name="other")
    async with one.held("u"), other.held("u"):
        async with other.held("u"):
            assert stored(store, "seats.u") == {"one": 1, "other": 2}
            late = await refused(one, "u")
        await settled(store, "seats.u", {"one": 1, "other": 1})
        async with one.held("u"):
            assert (await refused(other, "u")).status == 429
    await settled(store, "seats.u", {})

    assert (late.status, late.code) == (429, "too_many_streams")
    assert late.detail == "Too many concurrent connections: 3 are open"
    await asyncio.gather(one.close(), other.close())


async def test_users_without_a_name_are_nobody_in_particular() -> None:
    store = Store()
    edge = seats(store)
    async with AsyncExitStack() as stack:
        for _ in range(50):
            await stack.enter_async_context(edge.held(None))
        assert edge.taken == 50
        assert not [key for key in store.values if key.startswith("seats.")]
    assert edge.taken == 0
    await edge.close()


async def test_all_edges_together_give_out_no_more_than_the_total() -> None:
    store = Store()
    several = [seats(store, in_total=20, name=f"e{n}") for n in range(3)]
    async with AsyncExitStack() as stack:
        for n in range(20):
            await stack.enter_async_context(several[n % 3].held(None))
        late = [await refused(edge, None) for edge in several]
    assert {(one.status, one.code) for one in late} == {(503, "too_many_streams")}
    await asyncio.gather(*(one.close() for one in several))


async def test_an_edge_that_holds_many_asks_the_store_for_many_at_once() -> None:
    store = Store()
    edge = seats(store)
    async with AsyncExitStack() as stack:
        for _ in range(500):
            await stack.enter_async_context(edge.held(None))
        reserved = sum(stored(store, "seats").values())
    assert 500 <= reserved <= 500 + RESERVE
    assert store.writes < 50
    await edge.close()


async def test_what_an_edge_that_is_gone_has_held_is_free() -> None:
    store = Store()
    gone, other = seats(store, name="gone"), seats(store, name="other")
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(gone.held("u"))
        assert (await refused(other, "u")).status == 429
        await store.delete("edge.gone", forget=None)  # type: ignore[arg-type]  # as it lapses
        async with other.held("u"):
            assert stored(store, "seats.u") == {"other": 1}
    await asyncio.gather(gone.close(), other.close())


async def test_a_store_that_is_away_makes_an_edge_seat_people_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.seats.AGAIN_AFTER", 0.001)
    store = Store()
    edge = seats(store, name="one")
    store.broken = True
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(edge.held("u"))
        assert (await refused(edge, "u")).status == 429
        store.broken = False
        store.values.setdefault("seats.u", (b"{}", 0))
        await settled(store, "seats.u", {"one": 3})
    await settled(store, "seats.u", {})
    await edge.close()


async def test_who_is_refused_or_gives_up_holds_nothing() -> None:
    store = Store()
    edge = seats(store)
    store.stuck = asyncio.Event()
    waiting = [asyncio.create_task(refused(edge, "u")) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    store.stuck.set()
    store.stuck = None

    assert edge.taken == 0
    async with edge.held("u"), edge.held("u"), edge.held("u"):
        assert edge.taken == 3
    await edge.close()
