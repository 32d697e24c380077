"""Several topics as one feed: each event once, in the order of the log, whatever is not heard."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from edge.following import Event, Hub, Reset
from edge.merging import Merged, follow_all
from runtime.bus import Bus, new_id
from schemas import subjects
from schemas.base import Topic
from schemas.envelope import encode, seal
from schemas.ownership import ManualMessage
from tests.integration.waiting import PATIENCE

TOPICS = [Topic("conversation", "c"), Topic("internal", "c"), Topic("desk", "support")]


@pytest.fixture
async def hub(bus: Bus) -> AsyncIterator[Hub]:
    hub = Hub(bus, check_every=0.2)
    yield hub
    hub.close()


async def publish(bus: Bus, topic: Topic) -> int:
    said = ManualMessage(id=new_id(), role="user", content="x" * random.randrange(200))
    sealed = seal(said, id=new_id(), source="test", subject=topic.id)
    return (await bus.publish(subjects.event(topic), encode(sealed))).seq


async def take(merged: Merged, count: int) -> list[int]:
    """The sequences of the next events, at least so many."""
    seen: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while len(seen) < count:
            found = await merged.next()
            assert not isinstance(found, Reset)
            assert all(isinstance(event, Event) for _, event in found)
            seen += [event.seq for _, event in found]
    return seen


async def test_events_of_several_topics_come_in_the_order_of_the_log(bus: Bus, hub: Hub) -> None:
    merged = await follow_all(hub, TOPICS, None)
    try:
        said = await asyncio.gather(*(publish(bus, random.choice(TOPICS)) for _ in range(600)))
        seen = await take(merged, 600)
    finally:
        merged.close()

    assert seen == sorted(said)


async def test_what_is_not_heard_of_one_topic_holds_the_others_back(bus: Bus, hub: Hub) -> None:
    merged = await follow_all(hub, TOPICS, None)
    try:
        # As if the server had lost what it repeats of the second topic.
        feed = hub._feeds[subjects.event(TOPICS[1])]
        bus.unsubscribe(feed.handle)
        said = [await publish(bus, TOPICS[n % 3]) for n in range(30)]
        seen = await take(merged, 30)
    finally:
        feed.handle = bus.subscribe(f"live.{feed.subject}", feed._hear)
        merged.close()

    assert seen == said


async def test_any_cursor_goes_on_behind_what_was_told_with_it(bus: Bus, hub: Hub) -> None:
    said = [await publish(bus, random.choice(TOPICS)) for _ in range(60)]
    for place in (0, 7, 31, 58):
        merged = await follow_all(hub, TOPICS, said[place])
        try:
            assert await take(merged, len(said) - place - 1) == said[place + 1 :]
        finally:
            merged.close()


async def test_waiting_may_be_given_up_and_begun_again(bus: Bus, hub: Hub) -> None:
    merged = await follow_all(hub, TOPICS, None)
    seen: list[int] = []
    try:
        saying = asyncio.gather(*(publish(bus, random.choice(TOPICS)) for _ in range(200)))
        async with asyncio.timeout(PATIENCE):
            while len(seen) < 200:
                try:
                    async with asyncio.timeout(0.001):
                        found = await merged.next()
                except TimeoutError:
                    continue
                assert not isinstance(found, Reset)
                seen += [event.seq for _, event in found]
        said = await saying
    finally:
        merged.close()

    assert seen == sorted(said)


async def test_who_does_not_read_holds_little_and_misses_nothing(bus: Bus, hub: Hub) -> None:
    merged = await follow_all(hub, TOPICS[:2], None)
    try:
        for _ in range(10):
            await asyncio.gather(*(publish(bus, TOPICS[0]) for _ in range(100)))
        await publish(bus, TOPICS[1])
        held = max(len(lane.events) for lane in merged._lanes)
        seen = await take(merged, 1001)
    finally:
        merged.close()

    assert held <= 101
    assert seen == sorted(seen)
    assert len(set(seen)) == 1001
