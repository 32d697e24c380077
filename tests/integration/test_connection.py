"""The connection comes back from whatever ends it, and nobody waits longer than he said."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from runtime import connection as timing
from runtime.bus import Bus
from runtime.connection import Connection
from runtime.errors import Denied, Unavailable, Unknown
from runtime.packet import MAX_SUBJECT, Packet, format_headers
from runtime.store.server import EmbeddedServer
from tests.integration.conftest import Connect
from tests.integration.faults import frozen, restart
from tests.integration.waiting import until
from tests.proxy import Proxy


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten probes in the time of one."""
    monkeypatch.setattr(timing, "PROBE_EVERY", 0.2)


@pytest.fixture
async def link(bus: Bus, proxy: Proxy, connect: Connect) -> Connection:
    """A connection through the man in the middle."""
    return (await connect(proxy.url)).link


@pytest.fixture
async def echo(bus: Bus) -> str:
    """A subject where every question is answered with what it says."""
    bus.subscribe("echo", lambda packet: bus.link.publish(packet.reply, packet.data))
    await settled(bus)
    return "echo"


async def settled(bus: Bus) -> None:
    """Wait until the server has seen all that was said before."""
    await bus.last("settled.now")


async def ask(link: Connection, subject: str = "echo", timeout: float = 5) -> bytes:
    return (await link.request(subject, b"hello", timeout=timeout)).data


async def works(link: Connection) -> bool:
    """Whether it can be asked, once it stands."""
    async with asyncio.timeout(5):
        while True:
            await link.connected.wait()
            with suppress(Unavailable, Unknown):
                return await ask(link, timeout=1) == b"hello"
            await asyncio.sleep(0.01)


# -- what ends it -----------------------------------------------------------------------------


async def test_a_link_that_carries_nothing_back_is_noticed_and_replaced(
    link: Connection, proxy: Proxy, echo: str
) -> None:
    await ask(link)
    proxy.swallow()
    await until(lambda: not link.connected.is_set())
    proxy.heal()
    proxy.cut()  # it may be dialling already, and wait for a greeting that was lost

    assert await works(link)
    assert link.epoch >= 2


async def test_a_link_that_carries_nothing_out_is_noticed_by_one_who_only_listens(
    link: Connection, proxy: Proxy, bus: Bus, echo: str
) -> None:
    heard: list[Packet] = []
    link.subscribe("news", heard.append)
    await ask(link)
    proxy.deafen()
    async with asyncio.timeout(5):
        while link.connected.is_set():
            bus.link.publish("news", b"still talking")
            await asyncio.sleep(0.02)
    proxy.heal()
    proxy.cut()

    assert heard
    assert await works(link)


@pytest.mark.parametrize(
    "words",
    [
        b"-ERR 'Stale Connection'\r\n",
        b"-ERR 'Maximum Connections Exceeded'\r\n",
        b"-ERR 'Authorization Violation'\r\n",
        b"-ERR 'Unknown Protocol Operation'\r\n",
        b"-ERR \r\n",
        b"-ERR\r\n",
        b"WHAT IS THIS\r\n",
        b"MSG news one 5\r\nhello\r\n",
        b"INFO {not json\r\n",
        b"\xff\xfe\r\n",
    ],
)
async def test_whatever_a_server_says_the_connection_comes_back_and_waits_for_no_probe(
    link: Connection, proxy: Proxy, echo: str, words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "PROBE_EVERY", 60)
    link.doubt()
    await until(lambda: link.epoch == 2)
    await ask(link)
    proxy.say(words)
    await until(lambda: link.epoch == 3)

    assert await works(link)


async def test_a_cut_is_noticed_at_once_and_told_to_those_who_wait(
    link: Connection, proxy: Proxy, bus: Bus, echo: str
) -> None:
    told: list[str] = []
    link.on_lost.append(lambda: told.append("lost"))
    link.on_rebuilt.append(lambda: told.append("rebuilt"))
    bus.subscribe("silence", lambda packet: None)
    await settled(bus)
    waiting = asyncio.create_task(link.request("silence", b"", timeout=60))
    await ask(link)
    proxy.cut()
    with pytest.raises(Unknown, match="connection was lost"):
        await waiting

    assert await works(link)
    assert told == ["lost", "rebuilt"]


async def test_a_server_that_was_killed_is_found_again_with_all_subscriptions(
    own_server: EmbeddedServer, connect: Connect
) -> None:
    one, two = (await connect(own_server.url)).link, (await connect(own_server.url)).link
    heard: list[bytes] = []
    dropped = one.subscribe("news", lambda packet: heard.append(b"dropped"))
    one.subscribe("news", lambda packet: heard.append(packet.data))
    await own_server.kill()
    await until(lambda: not one.connected.is_set())
    one.unsubscribe(dropped)
    one.subscribe("echo", lambda packet: one.publish(packet.reply, packet.data))
    await own_server.start()

    assert await works(two)
    two.publish("news", b"back")
    await until(lambda: heard)
    assert heard == [b"back"]


async def test_a_doubt_replaces_the_connection(link: Connection, echo: str) -> None:
    for _ in range(3):
        epoch = link.epoch
        link.doubt()
        await until(lambda epoch=epoch: link.epoch == epoch + 1)  # type: ignore[misc]

    assert await works(link)


async def test_listeners_that_fail_stop_neither_reading_nor_coming_back(
    link: Connection, bus: Bus, echo: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a listener's fault")

    link.on_lost.append(fail)
    link.on_rebuilt.append(fail)
    link.subscribe("news", fail)
    await ask(link)
    bus.link.publish("news", b"")
    await settled(bus)
    still_reads = await works(link)
    epoch = link.epoch
    link.doubt()
    await until(lambda: link.epoch == 2)

    assert (still_reads, epoch) == (True, 1)
    assert await works(link)


# -- deadlines and refusals -------------------------------------------------------------------


async def test_a_question_ends_at_its_deadline_and_leaves_nothing_behind(
    link: Connection, proxy: Proxy, echo: str
) -> None:
    await ask(link)
    proxy.lose(lambda message: b"hello" in message)
    asked = [link.request("echo", b"hello", timeout=0.1) for _ in range(100)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    proxy.heal()

    assert [type(one) for one in answers] == [Unknown] * 100
    assert "echo" not in link._inbox.asked
    assert await works(link)


async def test_a_server_that_hangs_keeps_nobody_beyond_his_deadline_whatever_is_sent(
    own_server: EmbeddedServer, own_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "PROBE_EVERY", 60)
    big = b"x" * 500_000
    with frozen(own_server):
        async with asyncio.timeout(5):
            tried = [own_bus.publish(f"event.t.{n}", big, timeout=0.5) for n in range(60)]
            outcomes = await asyncio.gather(*tried, return_exceptions=True)
    own_bus.link.doubt()
    await until(lambda: own_bus.link.epoch == 2)
    ack = await own_bus.publish("event.t.later", b"")

    # What fitted was sent and is not known; the rest was refused, and never sent.
    assert {type(one) for one in outcomes} == {Unknown, Unavailable}
    assert ack.seq <= 1 + sum(type(one) is Unknown for one in outcomes)


async def test_nothing_is_sent_without_a_connection_and_nothing_is_kept_for_later(
    link: Connection, proxy: Proxy, bus: Bus
) -> None:
    heard: list[Packet] = []
    bus.subscribe("news", heard.append)
    await settled(bus)
    proxy.refuse()
    proxy.cut()
    await until(lambda: not link.connected.is_set())
    with pytest.raises(Unavailable, match="not connected"):
        link.publish("news", b"too early")
    with pytest.raises(Unavailable, match="not connected"):
        await link.request("news", b"too early", timeout=5)
    proxy.heal()
    await until(link.connected.is_set)
    link.publish("news", b"now")
    await until(lambda: heard)

    assert [packet.data for packet in heard] == [b"now"]


async def test_a_closed_connection_says_so(link: Connection) -> None:
    await link.close()
    with pytest.raises(Unavailable, match="not connected"):
        link.publish("news", b"")

    assert link._supervisor is not None
    assert link._supervisor.cancelled()


@pytest.mark.parametrize(
    "subject",
    [
        "",
        " ",
        "a b",
        "a\tb",
        "a\r\nPUB b 0",
        "a\x00b",
        "a\u00a0b",
        "a\u3000b",
        "a\ud800b",
        "k" * (MAX_SUBJECT + 1),
        "\u00e9" * (MAX_SUBJECT // 2 + 1),
    ],
)
async def test_a_subject_that_would_break_the_protocol_is_refused_before_it_is_sent(
    link: Connection, echo: str, subject: str
) -> None:
    for send in (
        lambda: link.publish(subject, b""),
        lambda: link.publish("news", b"", reply=subject or " "),
        lambda: link.subscribe(subject, print),
    ):
        with pytest.raises(ValueError, match="expected at most 512 bytes, printable"):
            send()

    assert await works(link)
    assert link.epoch == 1


async def test_what_the_server_would_close_the_connection_over_is_refused_before_it_is_sent(
    link: Connection, bus: Bus, echo: str
) -> None:
    heard: list[Packet] = []
    bus.subscribe("news.>", heard.append)
    await settled(bus)
    headers = format_headers({"A": "b"})
    room = link.max_payload - len(headers)
    subject = "news." + "k" * (MAX_SUBJECT - 5)
    link.publish(subject, b"x" * room, headers=headers)
    with pytest.raises(ValueError, match=f"{room + 1 + len(headers)} bytes, the server takes"):
        link.publish(subject, b"x" * (room + 1), headers=headers)
    with pytest.raises(ValueError, match="contains a line end"):
        format_headers({"A": "b\r\nNats-Rollup: all"})
    await until(lambda: heard)

    assert [len(packet.data) for packet in heard] == [room]
    assert (await works(link), link.epoch) == (True, 1)


async def test_a_publish_that_is_not_allowed_fails_at_once(
    link: Connection, proxy: Proxy, echo: str
) -> None:
    proxy.lose(lambda message: b"hello" in message)
    asked = asyncio.create_task(link.request("echo", b"hello", timeout=60))
    other = asyncio.create_task(link.request("Mail.a.K", b"", timeout=60))
    await until(lambda: proxy.lost == 1)
    proxy.say(b"-ERR 'Permissions Violation for Publish to \"echo\"'\r\n")
    with pytest.raises(Denied, match="not allowed to publish to echo"):
        await asked
    with pytest.raises(Unavailable, match="nobody listens"):
        await other

    assert link.epoch == 1


# -- the first time ---------------------------------------------------------------------------


async def test_one_who_is_patient_waits_for_a_server_that_is_not_there_yet(
    own_server: EmbeddedServer, echo: str
) -> None:
    await own_server.kill()
    link = Connection([own_server.url])
    opening = asyncio.create_task(link.open())
    done, _ = await asyncio.wait([opening], timeout=0.3)
    await own_server.start()
    async with asyncio.timeout(5):
        await opening
    version = link.server_version
    await link.close()

    assert not done
    assert version


async def test_one_who_is_not_patient_is_told_where_he_tried_and_no_secret(
    own_server: EmbeddedServer,
) -> None:
    await own_server.kill()
    address = own_server.url.removeprefix("nats://")
    link = Connection([f"nats://user:s3cret@{address}"])
    with pytest.raises(Unavailable, match=f"no NATS server at {address}: ") as refused:
        await link.open(patient=False)

    assert "s3cret" not in str(refused.value)


@pytest.fixture
async def mute_server() -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """One that takes connections and never says a word; how many it has."""
    there: set[asyncio.StreamWriter] = set()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.add(writer)
        with suppress(OSError):
            await reader.read()
        there.discard(writer)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"nats://127.0.0.1:{port}", lambda: len(there)
    server.close()


async def test_a_server_that_takes_connections_and_says_nothing_costs_no_socket(
    mute_server: tuple[str, Callable[[], int]],
) -> None:
    url, connections = mute_server
    with pytest.raises(Unavailable, match="no NATS server"):
        await Connection([url]).open(patient=False)
    await until(lambda: connections() == 0)


async def test_of_several_servers_one_that_lives_is_found(
    own_server: EmbeddedServer, shared_server: EmbeddedServer, echo: str, tmp_path: Path
) -> None:
    link = Connection([own_server.url, shared_server.url])
    await own_server.kill()
    await link.open()
    found = await works(link)
    await restart(own_server)
    await link.close()

    assert found
