"""Who is there and who is typing: what is said how often, and who is told what."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from edge.auth import DESK_READ, Principal
from edge.company import WithPresence, accompany, accompany_desk, person_of, typed
from edge.presence import MOST_PENDING, TYPING_EVERY, Presence, Said, Seen
from runtime.errors import Unavailable
from runtime.packet import Packet
from schemas.presence import Person, Typing, Viewing

ANN = Person("ann", "agent", "Ann")
BOB = Person("bob", "agent", "Bob")
CUSTOMER = Person("website")


class Air:
    """Core NATS as two edges would share it: what is said is heard at once."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.down = False
        self._ears: dict[int, tuple[str, Callable[[Packet], None]]] = {}

    def notify(self, subject: str, data: bytes) -> None:
        if self.down:
            raise Unavailable("there is no connection")
        self.said.append(msgspec.json.decode(data, type=Typing | Viewing))
        for pattern, listener in list(self._ears.values()):
            if pattern in (subject, f"{subject.rpartition('.')[0]}.*"):
                listener(Packet(subject, "", data, b""))

    def subscribe(self, subject: str, listener: Callable[[Packet], None]) -> int:
        self._ears[len(self.said) + len(self._ears) + 1] = (subject, listener)
        return max(self._ears)

    def unsubscribe(self, handle: int) -> None:
        self._ears.pop(handle, None)

    @property
    def subscriptions(self) -> int:
        return len(self._ears)


class Timed(Presence):
    """An edge whose time is moved by hand."""

    now = 1000.0

    def _now(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.tick()


@pytest.fixture
def air() -> Air:
    return Air()


@pytest.fixture
async def edge(air: Air) -> Any:
    edge = Timed(air, via="e1")  # type: ignore[arg-type]  # as much of a bus as is needed
    yield edge
    edge.close()


@pytest.fixture
async def other(air: Air) -> Any:
    edge = Timed(air, via="e2")  # type: ignore[arg-type]  # as much of a bus as is needed
    yield edge
    edge.close()


def viewers(seen: Seen) -> list[str]:
    """Who is there, by the last word on it."""
    told = [data for name, data in seen.take() if name == "presence"]
    return [one["id"] for one in told[-1]["viewers"]]


def typing(seen: Seen) -> list[tuple[str, bool]]:
    return [(data["name"], data["on"]) for name, data in seen.take() if name == "typing"]


async def test_a_colleague_is_told_who_else_looks_on_and_who_leaves(
    edge: Timed, other: Timed
) -> None:
    seen = edge.follow("c", ANN, colleague=True)
    alone = seen.take()
    joined = other.follow("c", BOB, colleague=True)
    both = viewers(seen)
    edge.tick()
    from_the_other_side = viewers(joined)
    joined.close()

    assert alone == []
    assert both == ["bob"]
    assert from_the_other_side == ["ann"]
    assert viewers(seen) == []


async def test_whoever_looks_on_twice_is_there_until_the_last_look_ends(
    edge: Timed, other: Timed
) -> None:
    seen = edge.follow("c", ANN, colleague=True)
    tabs = [edge.follow("c", BOB, colleague=True), edge.follow("c", BOB, colleague=True)]
    elsewhere = other.follow("c", BOB, colleague=True)
    assert viewers(seen) == ["bob"]
    for tab in tabs:
        tab.close()
        tab.close()
    assert seen.take() == []
    elsewhere.close()

    assert viewers(seen) == []


async def test_who_is_not_heard_of_any_more_is_gone_after_some_seconds(
    air: Air, edge: Timed, other: Timed
) -> None:
    seen = edge.follow("c", ANN, colleague=True)
    other.follow("c", BOB, colleague=True)
    assert viewers(seen) == ["bob"]
    for _ in range(4):  # the other edge is killed, and says nothing of it
        edge.pass_time(3)

    assert viewers(seen) == []
    assert len([said for said in air.said if said.who == ANN]) > 2


async def test_who_goes_on_looking_is_said_again_and_told_once(air: Air, edge: Timed) -> None:
    seen = edge.follow("c", ANN, colleague=True)
    edge.follow("c", BOB, colleague=True)
    assert viewers(seen) == ["bob"]
    for _ in range(20):
        edge.pass_time(1)

    assert seen.take() == []
    assert 10 <= len(air.said) <= 14


async def test_a_customer_hears_that_agents_are_there_and_never_which(edge: Timed) -> None:
    seen = edge.follow("c", CUSTOMER, colleague=False)
    ann = edge.follow("c", ANN, colleague=True)
    told = seen.take()
    bob = edge.follow("c", BOB, colleague=True)
    more = seen.take()
    ann.close()
    bob.close()

    assert told == [("presence", {"session": "c", "agent": True})]
    assert more == []
    assert seen.take() == [("presence", {"session": "c", "agent": False})]


async def test_typing_is_told_to_others_and_to_a_customer_only_of_agents(edge: Timed) -> None:
    customer = edge.follow("c", CUSTOMER, colleague=False, announce=False)
    ann = edge.follow("c", ANN, colleague=True, announce=False)
    edge.type("c", ANN, on=True)
    edge.type("c", Person("someone"), on=True)
    said = {"session": "c", "role": "agent", "name": "Ann", "on": True}

    assert customer.take() == [("typing", said)]
    assert [data["id"] for _, data in ann.take()] == ["someone"]


async def test_typing_is_told_once_a_second_and_its_end_is_never_lost(
    air: Air, edge: Timed, other: Timed
) -> None:
    seen = other.follow("c", BOB, colleague=True, announce=False)
    for _ in range(50):
        edge.type("c", ANN, on=True)
        edge.type("c", ANN, on=False)
    at_once = len(air.said)
    edge.pass_time(TYPING_EVERY + 0.1)

    assert at_once == 1
    assert [said.on for said in air.said] == [True, False]
    assert typing(seen) == [("Ann", False)]  # the newest word replaces the one before it


async def test_who_does_not_say_that_they_have_stopped_typing_has_stopped(edge: Timed) -> None:
    seen = edge.follow("c", BOB, colleague=True, announce=False)
    edge.type("c", ANN, on=True)
    assert typing(seen) == [("Ann", True)]
    for _ in range(4):
        edge.pass_time(2)

    assert typing(seen) == [("Ann", False)]


async def test_who_comes_later_is_told_how_it_stands(edge: Timed) -> None:
    edge.follow("c", ANN, colleague=True)
    edge.type("c", ANN, on=True)
    late = edge.follow("c", BOB, colleague=True, announce=False)

    assert {name for name, _ in late.take()} == {"presence", "typing"}


async def test_a_client_that_does_not_read_is_told_the_newest_of_each_and_no_more_than_fits(
    edge: Timed,
) -> None:
    seen = edge.follow_all(ANN)
    for number in range(2 * MOST_PENDING):
        edge.type(f"c{number}", BOB, on=True)
    for _ in range(5):
        edge.pass_time(2)
    told = seen.take()

    assert len(told) == MOST_PENDING
    assert {data["on"] for _, data in told} == {False}


async def test_a_desk_hears_of_every_conversation(edge: Timed, other: Timed) -> None:
    desk = edge.follow_all(ANN)
    looking = other.follow("c1", BOB, colleague=True)
    other.type("c2", BOB, on=True)

    assert [(name, data["session"]) for name, data in desk.take()] == [
        ("presence", "c1"),
        ("typing", "c2"),
    ]
    looking.close()
    assert desk.take() == [("presence", {"session": "c1", "viewers": []})]


async def test_nothing_is_held_once_nobody_follows(air: Air, edge: Timed) -> None:
    seen, desk = edge.follow("c", ANN, colleague=True), edge.follow_all(BOB)
    edge.type("c", ANN, on=True)
    seen.close()
    desk.close()
    desk.close()
    for _ in range(12):
        edge.pass_time(1)

    assert air.subscriptions == 0
    assert [len(kept) for kept in (edge._rooms, edge._speakers, edge._due)] == [0, 0, 0]


async def test_without_a_connection_nothing_is_told_and_nothing_fails(
    air: Air, edge: Timed
) -> None:
    air.down = True
    seen = edge.follow("c", ANN, colleague=True)
    edge.type("c", ANN, on=True)
    edge.pass_time(5)
    seen.close()

    assert air.said == []


async def test_what_nobody_can_read_is_passed_over(air: Air, edge: Timed) -> None:
    seen = edge.follow("c", ANN, colleague=True, announce=False)
    for data in (b"", b"{}", b'{"type":"presence.typing","session":5}', b"\xff"):
        edge._hear(Packet("seen.conversation.c", "", data, b""))

    assert seen.take() == []


# -- in a feed ---------------------------------------------------------------------------------


class Feed:
    """A feed that says what it is given, and counts how often it was begun."""

    first = b"id: 1\n\n"

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.begun = 0
        self.closed = False

    async def next(self) -> bytes:
        self.begun += 1
        return await self.pieces.get()

    def close(self) -> None:
        self.closed = True


def agent(**rest: Any) -> Principal:
    return Principal("ann", "agent", name="Ann", **rest)


async def test_a_feed_says_what_is_stored_and_what_is_not_without_an_id(edge: Timed) -> None:
    feed = Feed()
    edge.follow("c", BOB, colleague=True)
    company = accompany(feed, edge, "c", agent(), write=typed)
    first = await company.next()
    feed.pieces.put_nowait(b"id: 7\ndata: {}\n\n")
    second = await company.next()
    edge.type("c", BOB, on=True)
    third = await company.next()
    company.close()

    assert company.first == feed.first
    assert first.startswith(b'data: {"type":"presence","session":"c","viewers":[{"id":"bob"')
    assert second == b"id: 7\ndata: {}\n\n"
    assert b'"type":"typing"' in third
    assert b"id: " not in third
    assert feed.closed


async def test_a_wait_that_is_cancelled_loses_nothing_and_begins_nothing_twice(
    edge: Timed,
) -> None:
    feed = Feed()
    company = accompany(feed, edge, "c", agent())
    for _ in range(3):
        waiting = asyncio.create_task(company.next())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    edge.type("c", BOB, on=True)
    feed.pieces.put_nowait(b"data: 1\n\n")
    said = await company.next()
    while b"data: 1" not in said:
        said += await company.next()
    company.close()

    assert feed.begun == 1
    assert b"event: typing" in said


async def test_a_feed_that_ends_with_an_error_says_so(edge: Timed) -> None:
    class Broken(Feed):
        async def next(self) -> bytes:
            raise Unavailable("gone")

    company = accompany(Broken(), edge, "c", agent())
    with pytest.raises(Unavailable):
        await company.next()
    company.close()


async def test_only_an_agent_has_a_name_and_only_who_reads_the_desk_is_a_colleague(
    edge: Timed,
) -> None:
    edge.follow("c", ANN, colleague=True)
    key = Principal("website", "key", frozenset({DESK_READ}), name="never told")
    customer = Principal("website", "key")
    told: list[list[Said]] = []
    for principal in (key, customer):
        company = accompany(Feed(), edge, "c", principal)
        told.append(company._seen.take())
        company.close()

    assert person_of(key, colleague=False) == Person("website")
    assert person_of(agent(), colleague=True) == ANN
    assert "viewers" in told[0][0][1]
    assert told[1] == [("presence", {"session": "c", "agent": True})]


async def test_a_feed_of_the_desk_hears_of_all(edge: Timed) -> None:
    company = accompany_desk(Feed(), edge, agent())
    edge.type("c", BOB, on=True)
    said = await company.next()
    company.close()

    assert said.startswith(b'data: {"type":"typing","session":"c","role":"agent","name":"Bob"')
    assert isinstance(company, WithPresence)
