"""What shards rely on: one owner at a time, who sees every message in order, or all of it again."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from runtime import pinned as timing
from runtime.bus import Bus
from runtime.packet import Packet
from runtime.pinned import PinnedPull
from runtime.pull import Delivery
from runtime.store.server import EmbeddedServer
from runtime.streams import ensure_streams
from tests.integration.conftest import Connect
from tests.integration.faults import restart
from tests.integration.hands import CONSUMER, Hands, mail, pinned, unacked
from tests.integration.waiting import until, until_known
from tests.proxy import Proxy


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything four times as fast as in life; the pin too, see `pinned`."""
    monkeypatch.setattr(timing, "PULL_EVERY", 0.15)
    monkeypatch.setattr(timing, "PULL_EXPIRES", 0.3)


@pytest.fixture
async def pulls(connect: Connect) -> AsyncIterator[list[PinnedPull]]:
    """Pulls that are started by a test, and end with it."""
    started: list[PinnedPull] = []
    yield started
    for one in started:
        one.cease()


@pytest.fixture
async def other(bus: Bus, shared_server: EmbeddedServer, connect: Connect) -> Bus:
    """Another process."""
    return await connect(shared_server.url)


async def start(
    pulls: list[PinnedPull], bus: Bus, hands: Hands, *, limit: int = 1000, timeout: float = 0.5
) -> PinnedPull:
    pull = pinned(bus, hands, limit=limit, timeout=timeout)
    pulls.append(pull)
    await pull.start()
    return pull


def go_silent(pull: PinnedPull) -> None:
    """Stop pulling as a host does that is frozen; what arrives is still heard."""
    assert pull._ticking is not None
    pull._ticking.cancel()


# -- one owner --------------------------------------------------------------------------------


async def test_everything_comes_once_in_order_and_without_a_gap(
    bus: Bus, pulls: list[PinnedPull]
) -> None:
    hands = Hands()
    await mail(bus, 50)
    await start(pulls, bus, hands)
    await mail(bus, 450)
    await until(lambda: len(hands.taken) == 500)
    await until_known(lambda: nothing_unacked(bus))

    assert hands.taken == list(range(1, 501))
    assert hands.numbers == list(range(1, 501))


async def nothing_unacked(bus: Bus) -> bool:
    return await unacked(bus) == 0


async def test_a_second_one_gets_nothing_while_the_first_goes_on(
    bus: Bus, other: Bus, pulls: list[PinnedPull]
) -> None:
    first, second = Hands(), Hands()
    await start(pulls, bus, first)
    await mail(bus, 1)
    await until(lambda: len(first.taken) == 1)
    standby = await start(pulls, other, second)
    for _ in range(10):
        await mail(bus, 20)
        await until(lambda: len(first.taken) % 20 == 1)
        await asyncio.sleep(0.1)

    assert (len(first.taken), second.taken, standby.pin) == (201, [], "")
    assert first.drops == 1  # when it was pinned


async def test_the_pin_stays_while_nothing_comes_and_while_nothing_fits(
    bus: Bus, pulls: list[PinnedPull]
) -> None:
    hands = Hands(acks=False)
    pull = await start(pulls, bus, hands, limit=10)
    await mail(bus, 40)
    await until(lambda: hands.held >= 10)
    pin, asked = pull.pin, pull._pulls
    await until(lambda: pull._pulls >= asked + 8)  # twice as long as a pin lives
    full = hands.held
    for seq in list(hands.waiting):
        hands.ack(seq)
    await until(lambda: len(hands.taken) >= 20)

    assert pull.pin == pin
    assert hands.drops == 1
    assert 10 <= full <= 20
    assert hands.taken == sorted(set(hands.taken))


async def test_starting_again_on_the_same_consumer_changes_nothing_of_it(
    bus: Bus, other: Bus, pulls: list[PinnedPull]
) -> None:
    hands = Hands(acks=False)
    await start(pulls, bus, hands)
    await mail(bus, 3)
    await until(lambda: hands.held == 3)
    before = await bus.api(f"CONSUMER.INFO.BUS.{CONSUMER}")
    await start(pulls, other, Hands())
    after = await bus.api(f"CONSUMER.INFO.BUS.{CONSUMER}")

    assert after["config"] == before["config"]
    assert after["created"] == before["created"]
    assert after["priority_groups"][0]["pinned_client_id"] == pulls[0].pin
    assert after["num_ack_pending"] == 3


# -- takeover ---------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [0, 5], ids=["nothing new", "with new mail"])
async def test_what_a_dead_owner_did_not_acknowledge_comes_to_the_next_in_order(
    bus: Bus, other: Bus, pulls: list[PinnedPull], new: int
) -> None:
    first, second = Hands(acks=False), Hands()
    dead = await start(pulls, bus, first)
    await mail(bus, 10)
    await until(lambda: first.held == 10)
    for seq in (1, 2, 3, 6):
        first.ack(seq)
    await start(pulls, other, second)
    dead.cease()
    await mail(bus, new)
    await until(lambda: bool(second.taken) and second.taken[-1] == 10 + new)

    # The sixth was acknowledged out of turn, above the floor.
    assert [seq for seq in second.since_drop if seq != 6] == [4, 5, *range(7, 11 + new)]


async def test_one_who_starts_after_a_crash_gets_what_was_in_hand(
    bus: Bus, other: Bus, pulls: list[PinnedPull]
) -> None:
    first, second = Hands(acks=False), Hands()
    dead = await start(pulls, bus, first)
    await mail(bus, 4)
    await until(lambda: first.held == 4)
    dead.cease()
    await start(pulls, other, second)
    await until(lambda: len(second.taken) >= 4)

    assert second.since_drop == [1, 2, 3, 4]


@pytest.mark.parametrize("new", [0, 3], ids=["nothing new", "with new mail"])
async def test_who_gives_up_the_pin_is_followed_at_once(
    bus: Bus, other: Bus, pulls: list[PinnedPull], new: int
) -> None:
    first, second = Hands(acks=False), Hands()
    leaving = await start(pulls, bus, first, timeout=30)
    await mail(bus, 4)
    await until(lambda: first.held == 4)
    await start(pulls, other, second, timeout=30)
    first.ack(1)
    leaving.cease()
    await leaving.release()
    await mail(bus, new)
    await until(lambda: bool(second.taken) and second.taken[-1] == 4 + new)

    assert second.since_drop == [*range(2, 5 + new)]


async def test_one_whose_pin_is_lost_drops_what_it_holds_and_unpins_nobody(
    bus: Bus, other: Bus, pulls: list[PinnedPull]
) -> None:
    first, second = Hands(acks=False), Hands(acks=False)
    zombie = await start(pulls, bus, first)
    await mail(bus, 3)
    await until(lambda: first.held == 3)
    go_silent(zombie)
    owner = await start(pulls, other, second)
    await until(lambda: second.held == 3)
    old_pin, pin, drops = zombie.pin, owner.pin, second.drops
    zombie._pull()
    await until(lambda: first.held == 0)
    zombie.pin = old_pin
    await zombie.release()
    await mail(bus, 2)
    await until(lambda: second.held == 5)

    assert pin not in ("", old_pin)
    assert (owner.pin, second.drops) == (pin, drops)
    assert second.since_drop == [1, 2, 3, 4, 5]


# -- doubt ------------------------------------------------------------------------------------


async def test_one_lost_delivery_is_noticed_and_all_since_the_floor_comes_again(
    bus: Bus, proxy: Proxy, connect: Connect, pulls: list[PinnedPull]
) -> None:
    hands = Hands()
    await start(pulls, await connect(proxy.url), hands)
    await mail(bus, 3)
    await until(lambda: hands.taken[-1:] == [3])
    fifth = re.compile(rb"HMSG \S+ \d+ \$JS\.ACK\.BUS\.mail_a_x\.1\.5\.")
    proxy.lose(lambda message: bool(fifth.match(message)) and proxy.lost == 0)
    await mail(bus, 6)
    await until(lambda: hands.taken[-1:] == [9])

    assert proxy.lost == 1
    assert hands.since_drop == [5, 6, 7, 8, 9]
    assert hands.drops == 2
    assert sorted(set(hands.taken)) == list(range(1, 10))


async def test_deliveries_into_a_dying_connection_are_not_skipped(
    bus: Bus, proxy: Proxy, connect: Connect, pulls: list[PinnedPull]
) -> None:
    hands, sent = Hands(), list[int]()
    link = (await connect(proxy.url)).link
    pull = await start(pulls, Bus(link), hands)
    link.on_rebuilt.append(pull.doubt)
    for _ in range(5):
        sent.extend(await mail(bus, 3))
        await until(lambda: hands.taken[-1:] == sent[-1:])
        proxy.swallow()
        sent.extend(await mail(bus, 2))
        proxy.cut()
        proxy.heal()
        sent.extend(await mail(bus, 2))
        await until(lambda: hands.taken[-1:] == sent[-1:])

    assert in_order(hands.taken) == sent


def in_order(taken: list[int]) -> list[int]:
    """What a watermark lets through; with a gap it would skip for ever what comes too late."""
    passed: list[int] = []
    for seq in taken:
        if not passed or seq > passed[-1]:
            passed.append(seq)
    return passed


async def test_a_doubt_brings_back_everything_that_is_held(
    bus: Bus, pulls: list[PinnedPull]
) -> None:
    hands = Hands(acks=False)
    pull = await start(pulls, bus, hands)
    await mail(bus, 3)
    await until(lambda: hands.held == 3)
    for _ in range(3):
        pull.doubt()
        pull.doubt()
        await until(lambda: hands.held == 3)

    assert hands.taken == [1, 2, 3] * 4


@pytest.mark.parametrize("had_mail", [True, False], ids=["pinned", "never pinned"])
async def test_a_consumer_that_was_deleted_is_created_again(
    bus: Bus, pulls: list[PinnedPull], had_mail: bool
) -> None:
    hands = Hands()
    await start(pulls, bus, hands)
    await mail(bus, 3 * had_mail)
    await until(lambda: len(hands.taken) == 3 * had_mail)
    await bus.api(f"CONSUMER.DELETE.BUS.{CONSUMER}")
    await mail(bus, 2)
    last = 2 + 3 * had_mail
    await until(lambda: hands.taken[-1:] == [last])

    assert hands.since_drop == list(range(1, last + 1))  # a new consumer knows of no ack


async def test_a_stream_that_was_created_anew_is_pulled_from(
    bus: Bus, pulls: list[PinnedPull]
) -> None:
    hands = Hands()
    await start(pulls, bus, hands)
    await mail(bus, 3)
    await until(lambda: len(hands.taken) == 3)
    await bus.api("STREAM.DELETE.BUS")
    await ensure_streams(bus)
    await mail(bus, 2)
    await until(lambda: len(hands.taken) == 5)

    assert hands.taken == [1, 2, 3, 1, 2]


@pytest.mark.parametrize("new", [0, 2], ids=["nothing new", "with new mail"])
async def test_a_server_that_was_killed_goes_on_where_it_was(
    own_server: EmbeddedServer, own_bus: Bus, pulls: list[PinnedPull], new: int
) -> None:
    hands = Hands(acks=False)
    pull = await start(pulls, own_bus, hands)
    own_bus.link.on_rebuilt.append(pull.doubt)
    await mail(own_bus, 5)
    await until(lambda: hands.held == 5)
    hands.ack(1)
    await until_known(lambda: acknowledged(own_bus))
    await restart(own_server)
    await until(lambda: own_bus.link.epoch == 2)
    await mail(own_bus, new)
    await until(lambda: hands.held >= 4 + new and hands.taken[-1] == 5 + new)

    # Acks are not synced one by one: the first may come again, the others must.
    assert hands.since_drop[-4 - new :] == list(range(2, 6 + new))
    assert hands.since_drop == sorted(hands.since_drop)


async def acknowledged(bus: Bus) -> bool:
    return await unacked(bus) == 4


def test_both_forms_of_the_ack_subject_are_read(bus: Bus) -> None:
    old = Packet("s", "$JS.ACK.BUS.c.2.17.5.1795221593732989986.0", b"", b"")
    new = Packet("s", "$JS.ACK.dom.acc.BUS.c.2.17.5.1795221593732989986.0", b"", b"")
    found = [(d.tries, d.seq, d.number) for d in (Delivery(bus, old), Delivery(bus, new))]

    assert found == [(2, 17, 5)] * 2
