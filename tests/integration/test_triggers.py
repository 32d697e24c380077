"""The twelve ways in which an ordinary client dies or lies: ours is back within five seconds.

P9 is in test_permissions.py, more of P1 in test_poison.py, of P10 and P11 in test_pull.py and
test_shared_pull.py. The waits are those of a running system: no constant of the connection is
changed, but where it says so.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime import connection as timing
from runtime.bus import Bus, new_id
from runtime.connection import Connection
from runtime.errors import BusFault, Unavailable, Unknown
from runtime.store.server import EmbeddedServer
from tests.integration.conftest import Connect
from tests.integration.faults import frozen, restart
from tests.integration.hands import CONSUMER, Hands, mail, pinned
from tests.integration.healing import HEALED_WITHIN, healed, leaving_nothing
from tests.integration.waiting import until, until_known
from tests.proxy import Proxy

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def link(bus: Bus, proxy: Proxy, connect: Connect) -> Connection:
    """A connection through the man in the middle."""
    return (await connect(proxy.url)).link


# -- P1: a message that kills the reader -------------------------------------------------------


async def test_a_reader_that_dies_is_replaced(link: Connection) -> None:
    await healed(link)
    assert link._client is not None
    link._client._reading_task.cancel()
    await until(lambda: link.epoch == 2, HEALED_WITHIN)

    await healed(link)


# -- P2: a flush that times out, and its answer that comes later --------------------------------


async def test_an_answer_to_a_ping_that_was_given_up_does_no_lasting_harm(
    link: Connection, proxy: Proxy
) -> None:
    await healed(link)
    assert link._client is not None
    proxy.hold()
    with pytest.raises(Exception, match="timeout"):
        await link._client.flush(timeout=0.05)
    proxy.heal()

    await healed(link)


async def test_an_answer_to_a_ping_that_nobody_sent_does_no_lasting_harm(
    link: Connection, proxy: Proxy
) -> None:
    await healed(link)
    for _ in range(100):
        proxy.say(b"PONG\r\n")

    await healed(link)


# -- P3: what the server ends the connection over -----------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        b"PUB a 9000000\r\n",
        b"HPUB a 9000000 9000000\r\n",
        b"PUB " + b"k" * 5000 + b" 0\r\n\r\n",
        b"SUB a..b 77\r\n",
        b"PUB a -1\r\n\r\n",
        b"NONSENSE\r\n",
    ],
)
async def test_a_server_that_ends_the_connection_over_a_frame_is_connected_again(
    link: Connection, frame: bytes
) -> None:
    await healed(link)
    link.write(frame)

    await healed(link)


# -- P4: a publish that timed out and was stored ------------------------------------------------


async def test_what_timed_out_may_be_said_again_and_is_stored_once(
    own_server: EmbeddedServer, own_bus: Bus
) -> None:
    headers = {"Nats-Msg-Id": new_id()}
    with frozen(own_server), pytest.raises(Unknown):
        await own_bus.publish("event.t.a", b"once", headers=headers, timeout=0.3)
    async with asyncio.timeout(HEALED_WITHIN):
        while True:
            with contextlib.suppress(BusFault):
                await own_bus.publish("event.t.a", b"once", headers=headers, timeout=1)
                break
            await asyncio.sleep(0.05)

    assert len(await own_bus.read_all("event.t.a", after=0)) == 1


# -- P5: publishing to a server that stands still -----------------------------------------------


async def test_nobody_waits_beyond_his_deadline_for_a_frozen_server_and_nothing_is_left(
    own_server: EmbeddedServer, own_bus: Bus
) -> None:
    await healed(own_bus.link)
    big = b"x" * 500_000
    with leaving_nothing(own_bus.link):
        with frozen(own_server):
            async with asyncio.timeout(2):
                tried = [own_bus.publish(f"event.t.{n}", big, timeout=1) for n in range(60)]
                outcomes = await asyncio.gather(*tried, return_exceptions=True)
            # Longer than it takes to be doubted and dialled in vain.
            await until(lambda: not own_bus.link.connected.is_set(), HEALED_WITHIN)
            with pytest.raises(Unavailable):
                await own_bus.publish("event.t.a", b"", timeout=60)
        await healed(own_bus.link)

    assert {type(one) for one in outcomes} <= {Unknown, Unavailable}


# -- P6: acknowledgements that a restart took along ---------------------------------------------


async def test_whoever_waits_when_the_server_dies_is_told_and_takes_up_no_place(
    own_server: EmbeddedServer, own_bus: Bus
) -> None:
    await healed(own_bus.link)
    with frozen(own_server):
        tried = [
            asyncio.create_task(own_bus.publish(f"event.t.{n}", b"x", timeout=60))
            for n in range(50)
        ]
        await asyncio.sleep(0)
        await own_server.kill()
    async with asyncio.timeout(HEALED_WITHIN):
        outcomes = await asyncio.gather(*tried, return_exceptions=True)
    await own_server.start()
    await healed(own_bus.link)

    assert {type(one) for one in outcomes} == {Unknown}
    assert await own_bus.publish("event.t.a", b"") is not None


def test_nothing_here_publishes_without_waiting_for_the_acknowledgement() -> None:
    users = [
        path.name
        for package in ("runtime", "edge", "actors")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"publish_async|\.jetstream\(", path.read_text(encoding="utf-8"))
    ]

    assert users == []


# -- P7: a publish that raises ------------------------------------------------------------------


async def test_a_thousand_refused_publishes_leave_nothing_behind(own_bus: Bus) -> None:
    link = own_bus.link
    await healed(link)
    with leaving_nothing(link):
        for _ in range(1000):
            with pytest.raises(ValueError, match="the server takes"):
                await own_bus.publish("event.t.a", b"x" * (link.max_payload + 1))
            with pytest.raises(ValueError, match="line end"):
                await own_bus.publish("event.t.a", b"", headers={"A": "b\r\n"})

    assert link.epoch == 1


# -- P8: a long outage, and a line that is open on one side only --------------------------------


async def test_after_more_attempts_than_a_client_makes_by_itself_it_is_still_trying(
    link: Connection, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage of minutes, told in attempts: only the pauses between them are shortened."""
    monkeypatch.setattr(timing, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(timing, "LONGEST_PAUSE", 0.001)
    await healed(link)
    proxy.refuse()
    proxy.cut()
    await until(lambda: proxy.refused > 150)
    proxy.heal()

    await healed(link)


async def test_a_line_on_which_no_answer_comes_any_more_is_replaced(
    link: Connection, proxy: Proxy
) -> None:
    await healed(link)
    proxy.strand(answers=True)

    await until(lambda: link.epoch == 2, HEALED_WITHIN)
    await healed(link)


async def test_a_line_on_which_nothing_is_sent_any_more_is_replaced_though_others_are_heard(
    link: Connection, proxy: Proxy, bus: Bus
) -> None:
    await healed(link)
    link.subscribe("news", lambda _: None)
    await healed(link)
    proxy.strand(questions=True)
    async with asyncio.timeout(HEALED_WITHIN):
        while link.epoch == 1:
            bus.link.publish("news", b"still talking")
            await asyncio.sleep(0.01)

    await healed(link)


async def test_a_line_that_is_dead_in_both_directions_is_replaced(
    link: Connection, proxy: Proxy
) -> None:
    await healed(link)
    proxy.strand(questions=True, answers=True)

    await until(lambda: link.epoch == 2, HEALED_WITHIN)
    await healed(link)


async def test_a_loop_that_stood_still_does_not_take_the_answer_it_has_not_read_for_a_lost_one(
    link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "PROBE_WITHIN", 0.05)
    monkeypatch.setattr(timing, "PROBE_EVERY", 0.01)
    for _ in range(5):
        await until(lambda: link._inbox.asked)
        block(0.1)

    await healed(link)
    assert link.epoch == 1


def block(seconds: float) -> None:
    """Hold the loop up, as bad code does."""
    time.sleep(seconds)


# -- P10: a consumer that is deleted while it is pulled from -------------------------------------


async def test_a_consumer_that_is_deleted_under_a_pull_is_there_again(own_bus: Bus) -> None:
    hands = Hands()
    async with pulling(own_bus, hands):
        await mail(own_bus, 3)
        await until(lambda: hands.taken[-1:] == [3])
        await own_bus.api(f"CONSUMER.DELETE.{own_bus.stream}.{CONSUMER}")
        await mail(own_bus, 1)

        await until(lambda: hands.taken[-1:] == [4], HEALED_WITHIN)


# -- P11: a server that restarts while a pull waits ----------------------------------------------


async def test_a_pull_that_waited_when_the_server_died_goes_on_when_it_is_back(
    own_server: EmbeddedServer, own_bus: Bus
) -> None:
    hands = Hands()
    async with pulling(own_bus, hands):
        await mail(own_bus, 1)
        await until(lambda: hands.taken == [1])
        await restart(own_server)
        async with asyncio.timeout(HEALED_WITHIN):
            await until_known(lambda: mailed(own_bus))
            await until(lambda: hands.taken[-1:] == [2])


@contextlib.asynccontextmanager
async def pulling(bus: Bus, hands: Hands) -> AsyncIterator[None]:
    """A pull as shards have it, told of every rebuilt connection."""
    pull = pinned(bus, hands, timeout=2, limit=100)
    await pull.start()
    bus.link.on_rebuilt.append(pull.doubt)
    try:
        yield
    finally:
        bus.link.on_rebuilt.remove(pull.doubt)
        pull.cease()


async def mailed(bus: Bus) -> bool:
    try:
        await bus.publish("mail.a.k", b"", headers={"Nats-Msg-Id": "the-second"}, timeout=1)
    except (Unknown, Unavailable):
        return False
    return True


# -- P12: a publish in the moment in which the socket dies --------------------------------------


async def test_what_is_said_into_a_dying_socket_is_unknown_at_once_and_can_be_said_again(
    link: Connection, proxy: Proxy
) -> None:
    bus = Bus(link)
    await healed(link)
    for n in range(20):
        headers = {"Nats-Msg-Id": new_id()}
        proxy.cut()
        async with asyncio.timeout(HEALED_WITHIN):
            while True:
                with contextlib.suppress(Unknown, Unavailable):
                    await bus.publish(f"event.dying.{n}", b"", headers=headers, timeout=60)
                    break
                await asyncio.sleep(0.01)
    stored = await bus.read_all("event.dying.*", after=0)

    assert len(stored) == 20
