"""Which upstream is best for a conversation, and who waits for which."""

import asyncio
from collections import Counter

import pytest

from actors.models.breaker import Breaker
from actors.models.events import Upstream
from actors.models.faults import UpstreamFault
from actors.models.upstreams import Fleet, NobodyLeft, Place, Taken, in_order


def place(name: str, *, weight: float = 1, paths: int = 0, faults: int = 1) -> Place:
    upstream = Upstream(url=f"http://{name}.example", name=name)
    return Place(upstream, Breaker(faults, 60), weight=weight, paths=paths)


def best(places: list[Place], conversation: str, slot: int = 0) -> str:
    return next(in_order(places, conversation, slot)).name


async def take(fleet: Fleet, *tried: str, slot: int = 0, within: float = 5) -> Taken:
    until = asyncio.get_running_loop().time() + within
    return await fleet.take("c", slot, tried=set(tried), later=set(), until=until)


@pytest.mark.promise("AC-11")
def test_an_upstream_that_goes_moves_only_its_own_conversations() -> None:
    places = [place(f"u{n}") for n in range(4)]
    before = {f"c{n}": best(places, f"c{n}") for n in range(200)}
    after = {c: best(places[1:], c) for c in before}

    assert {c for c in before if before[c] != after[c]} == {
        c for c, name in before.items() if name == "u0"
    }


@pytest.mark.promise("AC-14")
@pytest.mark.parametrize("count", [2, 3, 5])
def test_slots_of_one_conversation_differ_while_there_are_upstreams_enough(count: int) -> None:
    places = [place(f"u{n}") for n in range(count)]

    for n in range(50):
        assert len({best(places, f"c{n}", slot) for slot in range(count)}) == count


def test_more_slots_than_upstreams_have_one_each_all_the_same() -> None:
    places = [place("u0"), place("u1")]

    assert best(places, "c", 7) in ("u0", "u1")


def test_twice_the_weight_has_twice_the_conversations() -> None:
    places = [place("light"), place("heavy", weight=2)]
    counts = Counter(best(places, f"c{n}") for n in range(3000))

    assert 1.7 < counts["heavy"] / counts["light"] < 2.3


async def test_each_upstream_is_tried_once_and_then_there_is_nobody() -> None:
    fleet = Fleet([place("u0"), place("u1")])
    first = await take(fleet)
    second = await take(fleet, first.place.name)

    assert first.place is not second.place
    with pytest.raises(NobodyLeft):
        await take(fleet, "u0", "u1")


async def test_who_finds_no_free_path_waits_for_one() -> None:
    fleet = Fleet([place("u0", paths=1)])
    held = await take(fleet)
    waiting = asyncio.create_task(take(fleet))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert fleet.seen()[0].status == "BUSY"
    held.end()

    assert (await waiting).place.name == "u0"


async def test_who_waits_too_long_for_a_path_is_told() -> None:
    fleet = Fleet([place("u0", paths=1)])
    await take(fleet)

    with pytest.raises(UpstreamFault) as refused:
        await take(fleet, within=0.05)
    assert refused.value.code == "overloaded"


async def test_one_that_rests_after_faults_is_not_waited_for() -> None:
    fleet = Fleet([place("u0")])
    taken = await take(fleet)
    taken.fail(UpstreamFault("unreachable", "refused", status=0))
    taken.end()

    with pytest.raises(UpstreamFault) as refused:
        await take(fleet)
    assert refused.value.code == "unreachable"
    assert refused.value.retry_after is not None
    assert "u0 is left alone" in refused.value.reason


async def test_one_that_asked_for_a_moment_is_waited_for() -> None:
    fleet = Fleet([place("u0")])
    taken = await take(fleet)
    taken.fail(UpstreamFault("rate_limited", "slow down", status=429, retry_after=0.05))
    taken.end()

    assert (await take(fleet)).place.name == "u0"


async def test_one_whose_rest_is_over_goes_before_a_path_that_is_still_taken() -> None:
    fleet = Fleet([place("busy", paths=1), place("rests")])
    held = await take(fleet, "rests")
    taken = await take(fleet, "busy")
    taken.fail(UpstreamFault("rate_limited", "slow down", status=429, retry_after=0.05))
    taken.end()

    assert (await take(fleet)).place.name == "rests"
    assert held.place.current == 1


async def test_those_who_wait_for_a_trial_go_when_it_is_answered() -> None:
    fleet = Fleet([place("u0")])
    failed = await take(fleet)
    failed.fail(UpstreamFault("rate_limited", "slow down", status=429, retry_after=0.01))
    failed.end()
    trial = await take(fleet)
    waiting = asyncio.create_task(take(fleet))
    await asyncio.sleep(0)
    assert not waiting.done()
    trial.answers()

    assert (await waiting).place.name == "u0"


async def test_what_stopped_midway_is_asked_only_if_there_is_no_other() -> None:
    fleet = Fleet([place("u0"), place("u1")])
    until = asyncio.get_running_loop().time() + 5
    for later, expected in (({"u0"}, "u1"), ({"u1"}, "u0")):
        taken = await fleet.take("c", 0, tried=set(), later=later, until=until)
        assert taken.place.name == expected
    taken = await fleet.take("c", 0, tried=set(), later={"u0", "u1"}, until=until)

    assert taken.place.name in ("u0", "u1")
