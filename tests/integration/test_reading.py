"""What the runtime relies on when it reads: in order, complete, and only what was committed."""

import random
from datetime import UTC, datetime

import pytest

from edge.newest import read_newest
from runtime.bus import Bus, Outgoing
from runtime.packet import Packet
from schemas import subjects
from schemas.base import Address, Topic, token
from tests.integration.waiting import until, until_known
from tests.unit.hostile import NOTED, SURROGATES

ROLLUP = {"Nats-Rollup": "sub"}


async def fill(bus: Bus, *names: str, headers: dict[str, str] | None = None) -> None:
    """Store one message on each subject, in order."""
    messages = [Outgoing(name, b"%d" % n, headers or {}) for n, name in enumerate(names)]
    for start in range(0, len(messages), 1000):
        await bus.commit(messages[start : start + 1000])


# -- ranges -----------------------------------------------------------------------------------


async def test_a_range_comes_in_order_and_says_how_much_is_left(bus: Bus) -> None:
    await fill(bus, "event.t.a", "event.t.b", "event.t.a", "state.a.k", "event.t.a")
    first = await bus.read("event.t.a", after=0, limit=2)
    rest = await bus.read("event.t.a", after=first[-1].seq)
    both = await bus.read("event.t.*", after=1)

    assert [(one.seq, one.data, one.pending) for one in first] == [(1, b"0", 2), (3, b"2", 1)]
    assert [(one.seq, one.data, one.pending) for one in rest] == [(5, b"4", 0)]
    assert [(one.seq, one.subject) for one in both] == [
        (2, "event.t.b"),
        (3, "event.t.a"),
        (5, "event.t.a"),
    ]


async def test_a_range_of_nothing_is_empty(bus: Bus) -> None:
    await fill(bus, "event.t.a")

    assert await bus.read("event.t.b", after=0) == []
    assert await bus.read("event.t.a", after=1) == []
    assert await bus.read("event.t.a", after=1_000_000) == []


async def test_all_of_a_long_topic_is_read_page_by_page(bus: Bus) -> None:
    await fill(bus, *["event.t.a"] * 1000, *["event.t.b"] * 1000, "event.t.a")
    everything = await bus.read_all("event.t.a", after=0)

    assert [one.seq for one in everything] == [*range(1, 1001), 2001]


@pytest.mark.parametrize("foreign", [0, 5, 3000])
@pytest.mark.parametrize("count", [1, 7, 100, 1000])
async def test_the_newest_are_found_however_much_lies_between(
    bus: Bus, foreign: int, count: int
) -> None:
    await fill(bus, *["event.t.a"] * 10, *["event.t.x"] * foreign, *["event.t.a"] * 10)
    await fill(bus, *["event.t.x"] * foreign)
    ours = [*range(1, 11), *range(11 + foreign, 21 + foreign)]
    found = await read_newest(bus, "event.t.a", count, 1_000_000)

    assert [one.seq for one in found] == ours[-count:]


async def test_the_newest_of_nothing_are_none(bus: Bus) -> None:
    await fill(bus, "event.t.a")

    assert await read_newest(bus, "event.t.b", 10, 1_000_000) == []
    assert await read_newest(bus, "event.t.a", 0, 1_000_000) == []


# -- last values ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 513, 1024, 1025, 2500])
async def test_the_last_of_every_subject_is_found_however_many_there_are(
    bus: Bus, count: int
) -> None:
    names = [f"state.a.k{n}" for n in range(count)]
    await fill(bus, *names, "state.b.other", "run.r")
    await fill(bus, *names[: count // 2])
    found = await bus.lasts("state.a.*")

    assert [one.seq for one in found] == sorted(one.seq for one in found)
    assert len(found) == count
    assert {one.subject: one.data for one in found} == {
        name: b"%d" % n for n, name in enumerate(names)
    }
    assert all(one.seq > count for one in found[count - count // 2 :])


@pytest.mark.parametrize("replicas", [1, 3])
async def test_the_last_message_is_the_same_from_any_replica_and_from_the_leader(
    bus: Bus, replicas: int
) -> None:
    before = datetime.now(UTC)
    await fill(bus, "state.a.k", "state.a.l", "state.a.k", headers={"Nats-TTL": "60s"})
    bus.replicas = replicas
    found = await bus.last("state.a.k")

    assert found is not None
    assert (found.seq, found.subject, found.data) == (3, "state.a.k", b"2")
    assert found.headers["Nats-TTL"] == "60s"
    assert before <= found.time <= datetime.now(UTC)
    assert await bus.last("state.a.m") is None


async def test_a_message_is_found_by_its_sequence_until_it_is_gone(bus: Bus) -> None:
    await fill(bus, "state.a.k", "state.a.l")
    there = await bus.at(1)
    await bus.publish("state.a.k", b"new", headers=ROLLUP)

    assert there is not None
    assert (there.subject, there.data) == ("state.a.k", b"0")
    assert await bus.at(1) is None
    assert await bus.at(99) is None


async def test_a_rollup_leaves_one_message_on_its_subject_and_all_on_others(bus: Bus) -> None:
    await fill(bus, "state.a.k", "state.a.k", "state.a.l")
    await bus.commit([Outgoing("state.a.k", b"new", ROLLUP), Outgoing("event.t.a", b"", {})])

    assert [one.data for one in await bus.read_all("state.a.k", after=0)] == [b"new"]
    assert [one.data for one in await bus.read_all("state.a.l", after=0)] == [b"2"]


async def test_a_message_goes_when_its_time_is_up(bus: Bus) -> None:
    await bus.commit(
        [Outgoing("run.r", b"", {"Nats-TTL": "1s"}), Outgoing("event.t.a", b"", ROLLUP)]
    )

    async def gone() -> bool:
        return await bus.last("run.r") is None

    assert await bus.last("run.r") is not None
    assert await until_known(gone)
    assert await bus.last("event.t.a") is not None


# -- what is repeated live --------------------------------------------------------------------


async def test_what_is_repeated_live_links_each_message_to_the_one_before(bus: Bus) -> None:
    topic, heard = Topic("t", "a"), list[Packet]()
    bus.subscribe(subjects.live(topic), heard.append)
    await fill(bus, "event.t.a", "event.t.b", "event.t.a", "state.a.k", "event.t.a")
    await until(lambda: len(heard) == 3)
    links = [(p.headers["Nats-Sequence"], p.headers["Nats-Last-Sequence"]) for p in heard]

    assert links == [("1", "0"), ("3", "1"), ("5", "3")]
    assert {p.headers["Nats-Subject"] for p in heard} == {"event.t.a"}
    assert [p.data for p in heard] == [b"0", b"2", b"4"]


# -- shards -----------------------------------------------------------------------------------


async def test_the_server_puts_every_key_on_the_shard_that_we_compute(bus: Bus) -> None:
    chance = random.Random(7)
    random_keys = [hex(chance.getrandbits(chance.randrange(1, 128))) for _ in range(500)]
    actors = ("session", "master", "human_agent", "a", "x-1")
    addresses = [Address(chance.choice(actors), key) for key in (*random_keys, *NOTED, *SURROGATES)]
    await fill(bus, *(subjects.mail(address) for address in addresses))
    found = await bus.read_all("mail.>", after=0)
    expected = [
        f"mail.{subjects.shard_of(one.actor, one.key)}.{one.actor}.{token(one.key)}"
        for one in addresses
    ]

    assert [one.subject for one in found] == expected
    assert len({one.subject.split(".")[1] for one in found}) == subjects.SHARDS


# -- much at a time ---------------------------------------------------------------------------


async def test_what_is_more_than_a_page_holds_comes_in_pages(bus: Bus) -> None:
    large = bytes(300_000)
    for n in range(8):
        await bus.publish(f"state.a.k{n}", large)
    page = await bus.read("state.a.*", after=0)
    everything = await bus.read_all("state.a.*", after=0)
    newest = await read_newest(bus, "state.a.*", 8, 1_000_000)
    at_least_one = await read_newest(bus, "state.a.k7", 8, 1)
    lasts = await bus.lasts("state.a.*")

    assert [one.seq for one in page] == [1, 2, 3, 4]
    assert page[-1].pending == 4
    assert [one.seq for one in everything] == [*range(1, 9)]
    assert [one.seq for one in newest] == [6, 7, 8]
    assert [one.seq for one in at_least_one] == [8]
    assert [one.seq for one in lasts] == [*range(1, 9)]
