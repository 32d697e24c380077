"""What hosts know of each other's ends: who is blamed for them, and who never is."""

import asyncio

import msgspec
import pytest

from runtime.bus import Bus
from runtime.careful import Careful
from runtime.errors import BusFault
from runtime.kv import Bucket
from runtime.packet import Packet
from runtime.pull import Delivery
from runtime.streams import ensure_streams
from runtime.system import System
from runtime.testing import running
from schemas import subjects
from schemas.base import Address
from schemas.suspects import MARK, SUSPECTS, Mark, Suspects
from tests.integration.counter import HERE, Add, Counter, Get
from tests.integration.waiting import until_known

CONSUMER = "mail_a_3"


class Host:
    """What a host is to a shard: its name for others, and what it knows of them."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.system = System(bus, name=name)
        self.careful = Careful(self.system, CONSUMER)

    async def take_over(self, upto: int = 9) -> "Host":
        """Be the owner of the shard, and know what the last one was lost over."""
        await self.careful.take_over(0, upto)
        return self

    async def end_at(self, seq: int) -> None:
        """End while a message is handled: nothing is tidied up."""
        with pytest.raises(KeyboardInterrupt):
            async with self.careful.handling(seq):
                raise KeyboardInterrupt

    def look_at(self, seq: int) -> tuple[bool, int]:
        """Whether a message needs care, and how many hosts it has ended."""
        delivery = delivered(self.system.bus, seq)
        self.careful.examine(delivery)
        return delivery.care is not None, delivery.ended


def delivered(bus: Bus, seq: int) -> Delivery:
    """A message as it comes to its owner."""
    subject = subjects.mail(Address("a", "k"))
    reply = f"$JS.ACK.BUS.{CONSUMER}.1.{seq}.1.1700000000000000000.0"
    return Delivery(bus, Packet(subject, reply, b"", b"{}"))


async def known(bus: Bus) -> Suspects:
    stored = await Bucket(bus, "nodes").get(SUSPECTS + CONSUMER)
    assert stored is not None
    return msgspec.json.decode(stored.data, type=Suspects)


async def test_two_owners_lost_over_the_same_message_make_it_dead(bus: Bus) -> None:
    await Host(bus, "a").take_over()
    second = await Host(bus, "b").take_over()
    seen = [second.look_at(5)]
    await second.end_at(5)
    third = await Host(bus, "c").take_over()
    seen += [third.look_at(5), third.look_at(6)]
    await third.end_at(5)
    fourth = await Host(bus, "d").take_over()
    seen += [fourth.look_at(5), fourth.look_at(6), fourth.look_at(10)]

    assert seen == [(True, 0), (True, 0), (True, 0), (False, 2), (True, 0), (False, 0)]


async def test_one_who_leaves_in_good_order_leaves_nothing_suspect(bus: Bus) -> None:
    first = await Host(bus, "a").take_over()
    await first.careful.leave()
    second = await Host(bus, "b").take_over()

    assert second.look_at(5) == (False, 0)


async def test_who_has_the_same_name_is_not_the_same_host(bus: Bus) -> None:
    await Host(bus, "a").take_over()
    again = await Host(bus, "a").take_over()

    assert again.look_at(5) == (True, 0)


async def test_one_who_takes_its_own_shard_again_was_not_lost(bus: Bus) -> None:
    first = await Host(bus, "a").take_over()
    await first.take_over()

    assert first.look_at(5) == (False, 0)


async def test_what_an_owner_was_given_is_known_though_somebody_else_reset_it(bus: Bus) -> None:
    await Host(bus, "a").take_over()
    await Host(bus, "standby").careful.note_orphans(7)
    third = await Host(bus, "c").take_over(upto=0)

    assert [third.look_at(7), third.look_at(8)] == [(True, 0), (False, 0)]


async def test_hosts_that_live_bury_nothing_between_them(bus: Bus) -> None:
    hosts = [Host(bus, name) for name in "ab"]
    await hosts[0].take_over()
    for turn in range(1, 7):
        host = await hosts[turn % 2].take_over()
        await host.end_at(5)

    assert [(await host.take_over()).look_at(5) for host in hosts] == [(True, 0), (True, 0)]


async def test_one_who_was_taken_for_lost_takes_its_strike_back(bus: Bus) -> None:
    first = await Host(bus, "a").take_over()
    await first.end_at(5)
    await Host(bus, "b").take_over()
    struck = (await known(bus)).strikes
    first.careful.drop()

    async def acquitted() -> bool:
        return not (await known(bus)).strikes

    await until_known(acquitted)

    assert struck == {5: [first.system.incarnation]}


async def test_what_is_acknowledged_is_forgotten(bus: Bus) -> None:
    first = await Host(bus, "a").take_over()
    await first.end_at(5)
    second = Host(bus, "b")
    await second.careful.take_over(5, 9)

    assert (await known(bus)).strikes == {}


async def test_a_message_of_another_stream_is_not_blamed(bus: Bus) -> None:
    first = await Host(bus, "a").take_over()
    await first.end_at(5)
    bus.created = "another day"
    second = await Host(bus, "b").take_over()

    assert second.look_at(5) == (False, 0)


async def test_one_message_is_marked_at_a_time_and_none_when_all_is_done(bus: Bus) -> None:
    host = await Host(bus, "a").take_over()
    other = Careful(host.system, "mail_a_4")
    marks: list[Mark | None] = []

    async def handle(careful: Careful, seq: int) -> None:
        async with careful.handling(seq):
            marks.append(await host.system.marker.read(host.system.incarnation))

    await asyncio.gather(
        *(handle(careful, seq) for seq in range(1, 6) for careful in (host.careful, other))
    )

    async def unmarked() -> bool:
        return await host.system.marker.read(host.system.incarnation) is None

    await until_known(unmarked)

    assert marks == [
        Mark(consumer=name, seq=seq) for seq in range(1, 6) for name in (CONSUMER, "mail_a_4")
    ]


async def test_without_the_bucket_a_shard_is_taken_over_and_nothing_is_counted(
    own_bus: Bus,
) -> None:
    await (await Host(own_bus, "a").take_over()).end_at(5)
    await own_bus.api("STREAM.DELETE.KV_nodes")
    second = await Host(own_bus, "b").take_over()
    seen = second.look_at(5)
    await ensure_streams(own_bus)
    third = await Host(own_bus, "c").take_over()

    assert seen == third.look_at(5) == (False, 0)


async def test_what_cannot_be_marked_is_not_begun(own_bus: Bus) -> None:
    host = await Host(own_bus, "a").take_over()
    await own_bus.api("STREAM.DELETE.KV_nodes")
    begun = False
    with pytest.raises(BusFault):
        async with host.careful.handling(5):
            begun = True

    assert not begun


async def test_a_record_nobody_can_read_stops_nobody(bus: Bus) -> None:
    nodes = Bucket(bus, "nodes")
    first = Host(bus, "a")
    await nodes.put(SUSPECTS + CONSUMER, b"{")
    await nodes.put(MARK + first.system.incarnation, b"[]")
    await first.take_over()
    second = await Host(bus, "b").take_over()

    assert second.look_at(5) == (True, 0)


async def test_what_was_committed_is_never_buried_whatever_is_noted() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Add(n=5))
        stored = await kit.bus.lasts("mail.*.counter.a")
        _, shard, *_ = stored[-1].subject.split(".")
        consumer = subjects.shard_consumer("counter", int(shard))
        await kit.stop_host()
        blamed = Suspects(stream=kit.bus.created, upto=99, strikes={stored[-1].seq: ["a", "b"]})
        await Bucket(kit.bus, "nodes").put(SUSPECTS + consumer, msgspec.json.encode(blamed))
        await kit.bus.api(f"CONSUMER.RESET.{kit.bus.stream}.{consumer}", {"seq": stored[-1].seq})
        await kit.start_host()
        total = await kit.ask(HERE, Get())
        letters = await kit.dead_letters()

    assert total.n == 5
    assert letters == []
