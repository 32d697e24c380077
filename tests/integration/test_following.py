"""Followers see every event once, in order, from any cursor, whatever is lost on the way."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
from structlog.testing import capture_logs

from edge.following import EVENT_TTL, QUEUE, UNREADABLE, Event, Following, Hub, Reset
from edge.reach import AHEAD, EXPIRED
from runtime.bus import Bus, expiry, new_id
from runtime.store.server import EmbeddedServer
from runtime.streams import ensure_streams
from runtime.turn import EVENT_TTL as RUNTIME_TTL
from schemas import subjects
from schemas.base import Message, Topic
from schemas.envelope import decode_any, encode, seal
from tests.integration.conftest import Connect
from tests.integration.waiting import until, until_known
from tests.proxy import Proxy

TOPIC = Topic("talk", "t1")
OTHER = Topic("talk", "t2")
PATIENCE = 10.0
SHORT = timedelta(seconds=1)


class Said(Message, tag="talk.said"):
    n: int


async def say(bus: Bus, n: int, topic: Topic = TOPIC, ttl: timedelta = EVENT_TTL) -> int:
    data = encode(seal(Said(n=n), id=new_id(), source="test", subject=topic.id))
    ack = await bus.publish(subjects.event(topic), data, headers=expiry(ttl))
    return ack.seq


async def say_all(bus: Bus, numbers: range, topic: Topic = TOPIC) -> list[int]:
    """Say numbers, several at a time; returns their sequences."""
    found: list[int] = []
    for start in numbers[::50]:
        part = range(start, min(start + 50, numbers.stop))
        found += sorted(await asyncio.gather(*(say(bus, n, topic) for n in part)))
    return found


def number(event: Event) -> int:
    return msgspec.json.decode(decode_any(event.data).data, type=Said).n


async def hear(following: Following, count: int) -> list[Event]:
    """The next events, which must come, and be nothing but events."""
    found: list[Event] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            item = await anext(following)
            assert isinstance(item, Event), item.reason
            found.append(item)
    return found


async def hear_reset(following: Following) -> Reset:
    async with asyncio.timeout(PATIENCE):
        item = await anext(following)
    assert isinstance(item, Reset)
    return item


def sequences(events: list[Event]) -> list[int]:
    return [event.seq for event in events]


@contextlib.asynccontextmanager
async def following(bus: Bus, *, check_every: float = 10.0) -> AsyncIterator[Hub]:
    hub = Hub(bus, check_every=check_every)
    yield hub
    hub.close()


@pytest.fixture
async def hub(bus: Bus) -> AsyncIterator[Hub]:
    async with following(bus) as hub:
        yield hub


def test_a_hole_is_told_by_the_time_that_events_are_kept() -> None:
    assert EVENT_TTL == RUNTIME_TTL


async def test_what_was_said_comes_first_and_then_what_is_said(bus: Bus, hub: Hub) -> None:
    before = await say_all(bus, range(150))
    await say(bus, 0, OTHER)
    follower = await hub.follow(TOPIC, 0)
    history = await hear(follower, 150)
    after = await say_all(bus, range(150, 200))
    live = await hear(follower, 50)

    assert sequences(history) == before
    assert sequences(live) == after
    assert [number(event) for event in live] == list(range(150, 200))
    assert {event.name for event in history} == {"talk.said"}


async def test_without_a_cursor_only_what_is_said_from_now_on_comes(bus: Bus, hub: Hub) -> None:
    await say_all(bus, range(5))
    follower = await hub.follow(TOPIC, None)
    seq = await say(bus, 5)

    assert sequences(await hear(follower, 1)) == [seq]
    assert follower.cursor == seq


async def test_every_cursor_gives_exactly_what_came_after_it(bus: Bus, hub: Hub) -> None:
    said = []
    for n in range(12):
        said.append(await say(bus, n))
        await say(bus, n, OTHER)
    for cursor in range(1, said[-1]):
        follower = await hub.follow(TOPIC, cursor)
        rest = [seq for seq in said if seq > cursor]

        assert sequences(await hear(follower, len(rest))) == rest
        follower.close()


async def test_all_followers_of_a_topic_share_one_subscription_and_one_text(
    bus: Bus, hub: Hub
) -> None:
    followers = [await hub.follow(TOPIC, None) for _ in range(5)]
    topics = hub.topics
    await say(bus, 1)
    heard = [(await hear(follower, 1))[0] for follower in followers]
    for follower in followers[1:]:
        follower.close()
    still = hub.topics
    followers[0].close()

    assert topics == still == 1
    assert len({id(event.block) for event in heard}) == 1
    assert hub.topics == 0


@pytest.mark.promise("FD-80", "FD-106")
async def test_who_does_not_read_misses_nothing_and_holds_little(bus: Bus, hub: Hub) -> None:
    slow, quick = await hub.follow(TOPIC, None), await hub.follow(TOPIC, None)
    with capture_logs() as told:
        said = await say_all(bus, range(QUEUE * 5))
        heard = await hear(quick, len(said))
    held = len(slow._queue)
    late = await hear(slow, len(said))
    last = await say(bus, 0)

    assert held <= QUEUE
    assert ("follower_behind", "warning") in {(one["event"], one["log_level"]) for one in told}
    assert sequences(heard) == sequences(late) == said
    assert sequences(await hear(slow, 1)) == [last]


async def test_whoever_joins_while_much_is_said_gets_it_all_once(bus: Bus, hub: Hub) -> None:
    chance = random.Random(7)
    first = await say(bus, 0)
    talking = asyncio.create_task(say_all(bus, range(1, 600)))
    joined: list[tuple[int, Following]] = []
    while not talking.done():
        newest = await bus.last(subjects.event(TOPIC))
        assert newest is not None
        cursor = chance.randint(first, newest.seq)
        joined.append((cursor, await hub.follow(TOPIC, cursor)))
        await asyncio.sleep(0.005)
    said = await talking

    for cursor, follower in joined:
        rest = [seq for seq in said if seq > cursor]
        assert sequences(await hear(follower, len(rest))) == rest
    assert len(joined) > 5


async def test_waiting_may_be_given_up_and_begun_again(bus: Bus, hub: Hub) -> None:
    follower = await hub.follow(TOPIC, 0)
    talking = asyncio.create_task(say_all(bus, range(200)))
    heard: list[Event] = []
    while len(heard) < 200:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                item = await anext(follower)
                assert isinstance(item, Event)
                heard.append(item)

    assert sequences(heard) == await talking


# -- what is lost on the way ------------------------------------------------------------------


def is_live(message: bytes) -> bool:
    return b"live.event" in message.partition(b"\r\n")[0]


async def test_a_live_event_that_was_lost_is_missed_by_the_next_one(
    bus: Bus, proxy: Proxy, connect: Connect
) -> None:
    async with following(await connect_checked(connect, proxy.url)) as hub:
        follower = await hub.follow(TOPIC, None)
        said = [await say(bus, 1)]
        heard = await hear(follower, 1)
        proxy.lose(is_live)
        said += await say_all(bus, range(2, 10))
        await until(lambda: proxy.lost == 8)
        proxy.heal()
        said.append(await say(bus, 10))
        heard += await hear(follower, 9)

    assert sequences(heard) == said


async def test_the_last_event_is_found_although_nothing_comes_after_it(
    bus: Bus, proxy: Proxy, connect: Connect
) -> None:
    async with following(await connect_checked(connect, proxy.url), check_every=0.05) as hub:
        follower = await hub.follow(TOPIC, None)
        proxy.lose(is_live)
        said = await say_all(bus, range(3))

        assert sequences(await hear(follower, 3)) == said


async def test_a_connection_that_breaks_again_and_again_loses_nothing_and_repeats_nothing(
    bus: Bus, proxy: Proxy, connect: Connect
) -> None:
    async with following(await connect_checked(connect, proxy.url)) as hub:
        followers = [await hub.follow(TOPIC, None) for _ in range(3)]
        talking = asyncio.create_task(say_all(bus, range(400)))
        while not talking.done():
            proxy.cut()
            await asyncio.sleep(0.03)
        said = await talking

        for follower in followers:
            assert sequences(await hear(follower, len(said))) == said


async def connect_checked(connect: Connect, url: str) -> Bus:
    bus = await connect(url)
    await ensure_streams(bus)
    return bus


async def test_a_server_that_is_away_stops_nobody_else_and_is_awaited(
    own_bus: Bus, own_server: EmbeddedServer
) -> None:
    async with following(own_bus, check_every=0.01) as hub:
        follower = await hub.follow(TOPIC, None)
        await own_server.kill()
        await until(lambda: not own_bus.link.connected.is_set())
        hub._doubted.set()
        turns = [await asyncio.sleep(0.005, n) for n in range(20)]
        await own_server.start()
        await until(own_bus.link.connected.is_set)
        seq = await say(own_bus, 1)

        assert sequences(await hear(follower, 1)) == [seq]
    assert len(turns) == 20


# -- holes ------------------------------------------------------------------------------------


async def test_a_cursor_of_another_stream_is_told_and_followed_by_what_comes(
    bus: Bus, hub: Hub
) -> None:
    last = await say(bus, 1)
    follower = await hub.follow(TOPIC, last + 1000)
    reset = await hear_reset(follower)
    new = await say(bus, 2)

    assert (reset.cursor, reset.reason) == (last, AHEAD)
    assert sequences(await hear(follower, 1)) == [new]


async def test_a_cursor_behind_which_something_has_gone_is_told(bus: Bus) -> None:
    bus.created = "2020-01-01T00:00:00Z"
    hub = Hub(bus, event_ttl=SHORT)
    gone = [await say(bus, n, ttl=SHORT) for n in range(3)]
    await until_known(lambda: is_gone(bus, gone[-1]))
    kept = await say(bus, 3)
    holes = [await hub.follow(TOPIC, cursor) for cursor in gone[:2]]
    resets = [await hear_reset(follower) for follower in holes]
    whole = await hub.follow(TOPIC, kept)
    fresh = await hub.follow(TOPIC, 0)
    new = await say(bus, 4)

    assert [reset.reason for reset in resets] == [EXPIRED] * 2
    assert [reset.cursor for reset in resets] == [kept] * 2
    for follower in (*holes, whole):
        assert sequences(await hear(follower, 1)) == [new]
    assert sequences(await hear(fresh, 2)) == [kept, new]
    hub.close()


async def is_gone(bus: Bus, seq: int) -> bool:
    return await bus.at(seq) is None


async def test_a_cursor_whose_message_is_gone_is_whole_if_it_is_young(bus: Bus, hub: Hub) -> None:
    """The cursor of a snapshot is that of a state, and states are replaced."""
    bus.created = "2020-01-01T00:00:00Z"
    state = subjects.state("session", "s1")
    before = await say(bus, 1)
    places = [
        (await bus.publish(state, b"{}", headers={"Nats-Rollup": "sub"})).seq for _ in range(9)
    ]
    after = await say(bus, 2)
    heard = []
    for cursor in (before, *places):
        follower = await hub.follow(TOPIC, cursor)
        heard.append(sequences(await hear(follower, 1)))

    assert heard == [[after]] * 10


async def test_a_stream_made_anew_is_told_to_those_who_follow(
    own_bus: Bus, own_server: EmbeddedServer
) -> None:
    hub = Hub(own_bus)
    follower = await hub.follow(TOPIC, None)
    await say_all(own_bus, range(5))
    await hear(follower, 5)
    await own_bus.api(f"STREAM.DELETE.{own_bus.stream}")
    await ensure_streams(own_bus)
    own_bus.link.doubt()
    reset = await hear_reset(follower)
    new = await say(own_bus, 6)

    assert reset.reason == AHEAD
    assert sequences(await hear(follower, 1)) == [new]
    hub.close()


# -- what an event looks like -----------------------------------------------------------------


async def test_an_event_somebody_else_stored_cannot_break_out_of_its_line(
    bus: Bus, hub: Hub
) -> None:
    follower = await hub.follow(TOPIC, 0)
    envelope = encode(seal(Said(n=1), id="1", source="test", subject="t1"))
    spread = msgspec.json.format(envelope).replace(b"\n", b"\r\n")
    named = envelope.replace(b"talk.said", b"a\\nid: 9")
    for data in (spread, named, b"\xff\xfe", b"not json\n\nevent: bye", b'{"a":"\xc3\x28"}'):
        await bus.publish(subjects.event(TOPIC), data)
    spread_event, *strange = await hear(follower, 5)

    assert spread_event.name == "talk.said"
    assert msgspec.json.decode(spread_event.data) == msgspec.json.decode(envelope)
    assert spread_event.block.count(b"\n") == 4
    assert b"\r" not in spread_event.block
    for event in strange:
        assert (event.name, event.data) == (UNREADABLE, b"{}")
