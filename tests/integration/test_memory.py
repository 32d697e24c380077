"""What a host keeps in memory is bounded by bytes: idle instances, and messages in hand."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from runtime.bus import Bus
from runtime.memory import Held, Idle
from runtime.pinned import PinnedPull
from runtime.testing import running
from schemas import subjects
from schemas.base import Address
from tests.integration.counter import HERE, Counter, Get, Wake
from tests.integration.hands import CONSUMER, Hands, pinned
from tests.integration.waiting import until

LARGE = 200_000


def test_those_idle_longest_are_let_go_when_all_is_full() -> None:
    idle, gone = Idle(limit=100), list[str]()
    for name in ("a", "b", "c"):
        idle.rest(name, 40, lambda name=name: gone.append(name))  # type: ignore[misc]  # bound
    idle.wake("b")
    idle.rest("d", 50, lambda: gone.append("d"))
    idle.rest("huge", 101, lambda: gone.append("huge"))

    assert gone == ["a", "c", "d", "huge"]
    assert idle.bytes == 0


def test_one_that_rests_again_is_counted_once() -> None:
    idle = Idle(limit=100)
    idle.rest("a", 40, lambda: None)
    idle.rest("a", 60, lambda: None)

    assert idle.bytes == 60


def test_who_has_his_hands_full_asks_for_nothing() -> None:
    held = Held(limit=100)
    before = held.room(1000)
    held.bytes = 100

    assert before > 1000
    assert held.room(1000) == 0


async def test_instances_that_were_let_go_come_back_as_they_were() -> None:
    keys = [f"k{n}" for n in range(20)]
    async with running(counter=Counter) as kit:
        idle = kit.host.system.idle
        idle.limit = 300_000
        for text in ("a" * 30_000, "b"):
            for key in keys:
                await kit.tell(Address("counter", key), Wake(text=text))
            await kit.settled()
            await until(lambda: idle.bytes <= idle.limit)
        kept = sum(len(shard.instances) for shard in kit.host.shards["counter"])
        states = [await kit.state(Address("counter", key)) for key in keys]

    assert 0 < kept < 10
    assert [[len(text) for text in state.said] for state in states] == [[30_000, 1]] * 20


async def test_an_instance_that_was_let_go_is_gone_without_a_search_for_garbage() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Get())
        shard = kit.host.shards["counter"][subjects.shard_of("counter", "a")]
        instance = weakref.ref(shard.instances["a"])
        gc.disable()
        try:
            kit.host.system.idle.limit = 1
            await kit.ask(Address("counter", "b"), Get())
            await until(lambda: instance() is None)
        finally:
            gc.enable()

    assert "a" not in shard.instances


async def test_a_shard_that_is_given_away_leaves_nothing_in_memory() -> None:
    async with running(counter=Counter) as kit:
        await asyncio.gather(*(kit.ask(Address("counter", f"k{n}"), Get()) for n in range(50)))
        system = kit.host.system
        await until(lambda: system.idle.bytes > 50 * 1500)
        await kit.stop_host()

    assert (system.idle.bytes, system.held.bytes) == (0, 0)


@pytest.fixture
async def pulls() -> AsyncIterator[list[PinnedPull]]:
    started: list[PinnedPull] = []
    yield started
    for one in started:
        one.cease()


async def test_a_pull_brings_no_more_bytes_than_there_is_room_for(
    bus: Bus, pulls: list[PinnedPull]
) -> None:
    hands = Hands(acks=False)
    hands.most_bytes = 3 * LARGE
    pulls.append(pinned(bus, hands, limit=1000, timeout=2))
    await pulls[0].start()
    await bus.publish("mail.a.k", b"the pin")
    await until(lambda: hands.held == 1)
    hands.most_bytes = 0
    await asked_again(pulls[0], 2)
    for _ in range(20):
        await bus.publish("mail.a.k", bytes(LARGE))
    await asked_again(pulls[0], 4)
    full = hands.held
    hands.most_bytes = 3 * LARGE
    await until(lambda: hands.held == 21)

    # What had been asked for before there was no room may still come.
    assert full <= 4
    assert hands.since_drop == list(range(1, 22))
    assert CONSUMER in pulls[0].consumer


async def asked_again(pull: PinnedPull, times: int) -> None:
    """Wait until it has asked so many more times; the first of them end meanwhile."""
    asked = pull._pulls
    await until(lambda: pull._pulls >= asked + times)
