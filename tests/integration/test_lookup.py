"""Last messages that are asked for at the same moment come in one answer, whatever their size."""

import asyncio

import pytest

from runtime.bus import Bus, Outgoing, Stored
from runtime.errors import Unavailable, Unknown
from runtime.lookup import MOST_AT_ONCE, Lookup
from tests.integration.conftest import Connect
from tests.proxy import Proxy


async def ask(lookup: Lookup, names: list[str]) -> list[bytes | None]:
    async with asyncio.timeout(10):
        found = await asyncio.gather(*map(lookup.last, names))
    return [one.data if one else None for one in found]


async def test_each_gets_the_last_message_of_its_own_subject(bus: Bus) -> None:
    await bus.commit([Outgoing(f"run.r{n}", b"old", {}) for n in range(600)])
    await bus.commit([Outgoing(f"run.r{n}", b"%d" % n, {}) for n in range(0, 600, 2)])
    names = [f"run.r{n}" for n in range(600)]
    found = await ask(Lookup(bus), names)

    assert len(names) > 2 * MOST_AT_ONCE
    assert found == [b"old" if n % 2 else b"%d" % n for n in range(600)]


@pytest.mark.parametrize(
    "names", [["run.none"], ["run.none", "run.neither"], ["run.a", "run.none"]]
)
async def test_where_nothing_is_stored_nothing_is_found(bus: Bus, names: list[str]) -> None:
    await bus.publish("run.a", b"a")

    assert await ask(Lookup(bus), names) == [b"a" if name == "run.a" else None for name in names]


async def test_one_subject_may_be_asked_for_twice(bus: Bus) -> None:
    await bus.publish("run.a", b"a")

    assert await ask(Lookup(bus), ["run.a", "run.b", "run.a"]) == [b"a", None, b"a"]


async def test_what_does_not_fit_into_one_answer_is_found_all_the_same(bus: Bus) -> None:
    for n in range(12):
        await bus.publish(f"state.a.k{n}", b"%2d" % n * 60_000)
    found = await ask(Lookup(bus), [f"state.a.k{n}" for n in range(12)])

    assert found == [b"%2d" % n * 60_000 for n in range(12)]


async def test_if_the_connection_is_lost_everyone_who_asked_is_told(
    bus: Bus, proxy: Proxy, connect: Connect
) -> None:
    lookup = Lookup(await connect(proxy.url))
    proxy.swallow()
    asked = [asyncio.create_task(lookup.last(f"run.r{n}")) for n in range(3)]
    await asyncio.sleep(0)
    proxy.cut()
    async with asyncio.timeout(10):
        found = await asyncio.gather(*asked, return_exceptions=True)
    proxy.heal()

    assert all(isinstance(one, Unknown | Unavailable) for one in found)


class Behind(Bus):
    """Reads from a new leader of a cluster, which does not know at first what was stored."""

    looks = 0

    async def last(self, subject: str, *, stream: str = "") -> Stored | None:
        self.looks += 1
        return await super().last(subject, stream=stream) if self.looks > 2 else None


@pytest.fixture
def behind(bus: Bus) -> Behind:
    behind = Behind(bus.link)
    behind.replicas = 3
    return behind


async def test_what_a_new_leader_does_not_know_yet_is_found_all_the_same(behind: Behind) -> None:
    ack = await behind.publish("run.a", b"a")
    first = await Lookup(behind).last("run.a")
    sure = await Lookup(behind).surely_last("run.a", ack.seq)

    assert first is None
    assert sure is not None
    assert sure.data == b"a"


async def test_what_stays_away_is_gone(behind: Behind) -> None:
    ack = await behind.publish("run.a", b"a")

    assert await Lookup(behind).surely_last("run.b", ack.seq) is None
    assert behind.looks > 2


async def test_a_leader_that_has_not_got_so_far_is_not_taken_at_its_word(behind: Behind) -> None:
    ack = await behind.publish("run.a", b"a")
    with pytest.raises(Unavailable, match="has not got to"):
        await Lookup(behind).surely_last("run.b", ack.seq + 1)
