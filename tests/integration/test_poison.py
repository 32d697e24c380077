"""Messages that end the reader of an ordinary client: ours reads on, or is back in a moment."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from runtime.bus import Bus
from runtime.errors import Unknown
from runtime.packet import Packet
from runtime.pinned import PinnedPull
from runtime.pull import SharedPull
from runtime.store.server import EmbeddedServer
from tests.integration.conftest import Connect
from tests.integration.hands import Hands, mail, pinned
from tests.integration.waiting import until

Raw = asyncio.StreamWriter


@pytest.fixture
async def stranger(shared_server: EmbeddedServer) -> AsyncIterator[Raw]:
    """Somebody with a socket, who writes what he likes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_server.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
    yield writer
    writer.close()
    await writer.wait_closed()


@pytest.fixture
async def listener(shared_server: EmbeddedServer, connect: Connect, bus: Bus) -> Bus:
    """Our own client, which hears all of `p.>`."""
    return await connect(shared_server.url)


def publish(subject: bytes, data: bytes = b"x", reply: bytes = b"") -> bytes:
    target = b" ".join((subject, reply)) if reply else subject
    return b"PUB %b %d\r\n%b\r\n" % (target, len(data), data)


def with_headers(block: bytes, data: bytes = b"x", subject: bytes = b"p.a") -> bytes:
    size = len(block)
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, size, size + len(data), block, data)


FRAMES = {
    "subject not utf-8": publish(b"p.\xff\xfe"),
    "reply not utf-8": publish(b"p.a", reply=b"r.\xff"),
    "subject of half a character": publish(b"p.\xed\xa0\x80"),
    "subject with nul": publish(b"p.\x00"),
    "subject with form feed": publish(b"p.a\x0cb"),
    "subject with vertical tab": publish(b"p.a\x0bb"),
    "subject that looks like a message": publish(b"p.a\x0c1\x0c5"),
    "subject that looks like an answer": publish(b"p.a\x0c1"),
    "subject in capitals of another alphabet": publish("p.Ω".encode()),
    "long subject": publish(b"p." + b"a" * 3000),
    "empty payload": publish(b"p.a", b""),
    "payload that looks like frames": publish(b"p.a", b"\r\nMSG p.a 1 3\r\nabc\r\n-ERR 'x'\r\n"),
    "headers without an end": with_headers(b"NATS/1.0"),
    "headers of another kind": with_headers(b"ABCD"),
    "headers of nothing but line ends": with_headers(b"\r\n\r\n"),
    "status not utf-8": with_headers(b"NATS/1.0 \xff\xfe\xfd\r\n\r\n"),
    "status without words": with_headers(b"NATS/1.0 503\r\n\r\n", b""),
    "status that is cut": with_headers(b"NATS/1.0 4\r\n\r\n"),
    "status and payload": with_headers(b"NATS/1.0 404 No Messages\r\n\r\n", b"data"),
    "header name not ascii": with_headers(b"NATS/1.0\r\n\xff\xff: b\r\n\r\n"),
    "header value not utf-8": with_headers(b"NATS/1.0\r\nA: \xff\r\n\r\n"),
    "header without a colon": with_headers(b"NATS/1.0\r\nABC\r\n\r\n"),
    "header without a name": with_headers(b"NATS/1.0\r\n: b\r\n\r\n"),
    "many headers": with_headers(b"NATS/1.0\r\n" + b"A: b\r\n" * 5000 + b"\r\n"),
    "pin without an end": with_headers(b"NATS/1.0\r\nNats-Pin-Id: a"),
    "nul in headers": with_headers(b"NATS/1.0\r\nA\x00: \x00\r\n\r\n"),
}


async def hears(listener: Bus, stranger: Raw, heard: list[Packet]) -> None:
    """Wait until an ordinary message gets through again, within five seconds."""
    async with asyncio.timeout(5):
        while not any(packet.data == b"ordinary" for packet in heard):
            stranger.write(publish(b"p.last", b"ordinary"))
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
async def test_after_any_message_the_next_is_heard(
    listener: Bus, stranger: Raw, frame: bytes
) -> None:
    heard: list[Packet] = []
    listener.subscribe("p.>", heard.append)
    await listener.last("settled.now")
    stranger.write(frame)
    await hears(listener, stranger, heard)
    shapes = [(p.subject, p.reply, p.status, p.reason, dict(p.headers)) for p in heard]

    assert len(shapes) == len(heard)  # all that arrived can be looked at
    assert await listener.publish("event.t.a", b"") is not None


async def test_ten_thousand_broken_messages_in_a_row_are_survived(
    listener: Bus, stranger: Raw
) -> None:
    chance, heard = random.Random(11), list[Packet]()
    listener.subscribe("p.>", heard.append)
    await listener.last("settled.now")
    for _ in range(10_000):
        noise = chance.randbytes(chance.randrange(1, 40))
        token = noise.translate(None, b" \t\r\n\x0b\x0c.*>\x00") or b"a"
        stranger.write(
            chance.choice([publish(b"p." + token), with_headers(noise), publish(b"p.a", noise)])
        )
    await hears(listener, stranger, heard)

    assert len(heard) > 8000
    assert listener.link.epoch == 1


async def test_a_subject_that_the_parser_splits_cannot_pass_for_an_answer(
    bus: Bus, listener: Bus, stranger: Raw
) -> None:
    heard: list[Packet] = []
    bus.subscribe("silence", lambda packet: None)
    listener.subscribe("p.>", heard.append)
    await bus.last("settled.now")
    await listener.last("settled.now")
    waiting = asyncio.create_task(listener.link.request("silence", b"", timeout=1))
    for name in range(200):  # answers are told apart by small numbers, and come to subscription 1
        stranger.write(publish(b"p.%x\x0c1" % name, b"false"))
    await hears(listener, stranger, heard)

    with pytest.raises(Unknown):
        await waiting


async def test_what_strangers_say_to_the_inboxes_of_pulls_harms_nobody(
    bus: Bus, listener: Bus, stranger: Raw
) -> None:
    hands = Hands()
    pull = pinned(listener, hands, timeout=2, limit=100)
    shared = SharedPull(listener, "none", lambda delivery: None)
    await pull.start()
    await mail(bus, 1)
    await until(lambda: hands.taken == [1])
    for inbox in (inbox_of(pull), shared._inbox):
        for reply in (b"", b"r", b"$JS.ACK.BUS.mail_a_x.1.x.y.1.0", b"$JS.ACK.1.2.3"):
            stranger.write(publish(f"{inbox}.1".encode(), b"false", reply))
        for headers in (b"NATS/1.0 999 ?\r\n\r\n", b"NATS/1.0\r\nNats-Pin-Id: q\r\n\r\n", b"AB"):
            stranger.write(with_headers(headers, b"", f"{inbox}.1".encode()))
    await mail(bus, 20)
    await until(lambda: hands.taken[-1:] == [21])
    pull.cease()
    shared.stop()

    assert sorted(set(hands.taken)) == list(range(1, 22))


def inbox_of(pull: PinnedPull) -> str:
    return pull._inbox
