"""How a feed is written, kept alive, counted and ended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import structlog
from starlette.requests import Request

from edge.problem import Refusal
from edge.sse import BYE, HEARTBEAT, EventStream, Source, Streams, accepts, block

PATIENCE = 5.0


class Words:
    """A source that says what it is told to."""

    def __init__(self, *words: bytes | Exception) -> None:
        self.first = b"id: 7\n\n"
        self.closed = False
        self._words: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        for word in words:
            self.say(word)

    def say(self, word: bytes | Exception) -> None:
        self._words.put_nowait(word)

    async def next(self) -> bytes:
        word = await self._words.get()
        if isinstance(word, Exception):
            raise word
        return word

    def close(self) -> None:
        self.closed = True


class Peer:
    """A client as the server sees it: what it got, whether it reads, when it leaves."""

    def __init__(self, **headers: str) -> None:
        self.got = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.reading = asyncio.Event()
        self.reading.set()
        self._left = asyncio.Event()
        self._stirred = asyncio.Event()
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.scope = {"type": "http", "path": "/feed", "method": "GET", "headers": raw, "state": {}}

    async def receive(self) -> Any:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {n.decode(): v.decode() for n, v in message["headers"]}
        else:
            self.got += message["body"]
            self.complete = not message.get("more_body", False)
        self._stirred.set()

    def leave(self) -> None:
        self._left.set()

    async def until(self, seen: Callable[[bytes], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not seen(self.got):
                self._stirred.clear()
                await self._stirred.wait()


def opening(source: Source) -> Callable[[], Awaitable[Source]]:
    async def open_source() -> Source:
        return source

    return open_source


def serve(
    streams: Streams, peer: Peer, source: Source, principal: str | None = "relay"
) -> asyncio.Task[None]:
    stream = EventStream(streams, principal, opening(source))
    return asyncio.create_task(stream(peer.scope, peer.receive, peer.send))


async def ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait_for(task, PATIENCE)


async def refused(task: asyncio.Task[None]) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await ended(task)
    return refusal.value


async def test_a_feed_begins_at_once_and_says_what_comes() -> None:
    streams, peer = Streams(), Peer()
    task = serve(streams, peer, Words(b"event: a\ndata: 1\n\n"))
    await peer.until(lambda got: b"data: 1" in got)
    peer.leave()
    await ended(task)
    head, _, rest = peer.got.partition(b"\n\n")

    assert peer.status == 200
    assert peer.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
    }
    assert head.startswith(b":\nretry: ")
    assert 1000 <= int(head.split(b" ")[1]) <= 4000
    assert rest == b"id: 7\n\nevent: a\ndata: 1\n\n"


async def test_a_silent_feed_is_kept_alive_and_loses_nothing_by_it() -> None:
    streams, peer, words = Streams(), Peer(), Words()
    streams.heartbeat = 0.01
    task = serve(streams, peer, words)
    await peer.until(lambda got: got.count(HEARTBEAT) >= 3)
    words.say(b"data: 1\n\n")
    await peer.until(lambda got: b"data: 1" in got)
    peer.leave()
    await ended(task)

    assert not peer.complete


async def test_when_the_edge_stops_every_feed_says_goodbye_and_ends() -> None:
    streams, peers = Streams(), [Peer() for _ in range(3)]
    sources = [Words() for _ in peers]
    tasks = [serve(streams, p, s, None) for p, s in zip(peers, sources, strict=True)]
    for peer in peers:
        await peer.until(lambda got: b"id: 7" in got)
    streams.end()
    for task in tasks:
        await ended(task)
    late = await refused(serve(streams, Peer(), Words()))

    assert all(peer.got.endswith(BYE) and peer.complete for peer in peers)
    assert all(source.closed for source in sources)
    assert (late.status, late.code) == (503, "too_many_streams")


async def test_a_peer_that_stops_reading_is_dropped() -> None:
    streams, peer, words = Streams(), Peer(), Words(b"data: 1\n\n")
    streams.write_within = 0.05
    task = serve(streams, peer, words)
    await peer.until(lambda got: b"data: 1" in got)
    with structlog.testing.capture_logs() as logs:
        peer.reading.clear()
        words.say(b"data: 2\n\n")
        await ended(task)

    assert [line["event"] for line in logs] == ["peer_stalled"]
    assert streams.count == 0
    assert words.closed


async def test_the_fourth_feed_of_one_principal_is_refused_until_another_ends() -> None:
    streams, peers = Streams(), [Peer() for _ in range(3)]
    tasks = [serve(streams, peer, Words()) for peer in peers]
    for peer in peers:
        await peer.until(lambda got: b"id: 7" in got)
    fourth = await refused(serve(streams, Peer(), Words()))
    others = [Peer(), Peer()]
    more = [serve(streams, others[0], Words(), "other"), serve(streams, others[1], Words(), None)]
    for peer in others:
        await peer.until(lambda got: b"id: 7" in got)
    peers[0].leave()
    await ended(tasks[0])
    again = Peer()
    tasks.append(serve(streams, again, Words()))
    await again.until(lambda got: b"id: 7" in got)
    for peer in (*peers, *others, again):
        peer.leave()
    for task in (*tasks, *more):
        await ended(task)

    assert (fourth.status, fourth.code) == (429, "too_many_streams")
    assert "retry-after" in fourth.headers
    assert "Too many concurrent connections" in fourth.detail
    assert streams.count == 0
    assert not streams._by_principal


async def test_one_feed_more_than_all_may_have_is_refused() -> None:
    streams, peers = Streams(in_total=2), [Peer(), Peer()]
    tasks = [serve(streams, peer, Words(), None) for peer in peers]
    for peer in peers:
        await peer.until(lambda got: b"id: 7" in got)
    third = await refused(serve(streams, Peer(), Words(), None))
    for peer, task in zip(peers, tasks, strict=True):
        peer.leave()
        await ended(task)

    assert (third.status, third.code) == (503, "too_many_streams")
    assert "retry-after" in third.headers


async def test_a_feed_is_not_counted_any_more_however_it_ended() -> None:
    streams, early = Streams(), Peer()
    early.leave()
    early.reading.clear()
    await ended(serve(streams, early, Words()))
    broken = Words(RuntimeError("the source failed"))
    with pytest.raises(RuntimeError, match="the source failed"):
        await ended(serve(streams, Peer(), broken))
    cancelled = serve(streams, Peer(), Words())
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled

    async def unopened() -> Source:
        raise Refusal(404, "task_not_found")

    stream = EventStream(streams, "relay", unopened)
    peer = Peer()
    with pytest.raises(Refusal):
        await stream(peer.scope, peer.receive, peer.send)

    assert streams.count == 0
    assert not streams._by_principal
    assert broken.closed


async def test_a_client_that_takes_no_feed_is_told_and_not_counted() -> None:
    streams = Streams()
    refusal = await refused(serve(streams, Peer(accept="application/json"), Words()))

    assert (refusal.status, refusal.code) == (406, "not_acceptable")
    assert streams.count == 0


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        (None, True),
        ("", True),
        ("*/*", True),
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("text/*;q=0.1", True),
        ("application/json, text/event-stream;q=0.5", True),
        ("application/json", False),
        ("text/html, application/xml", False),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.000, */*", False),
        ("*/*, text/*;q=0", False),
        ("text/event-stream;q=much", False),
        (",", False),
    ],
)
def test_what_a_client_takes_is_what_it_says_most_precisely(
    accept: str | None, taken: bool
) -> None:
    headers = [] if accept is None else [(b"accept", accept.encode())]

    assert accepts(Request({"type": "http", "headers": headers}), "text/event-stream") is taken


def test_an_event_is_one_line_of_json_whatever_is_in_it() -> None:
    said = {"text": "a\nb\r\nid: 9\n\nevent: c\u2028"}
    lines = block("task", said, cursor=5).split(b"\n")

    assert lines[:2] == [b"id: 5", b"event: task"]
    assert msgspec.json.decode(lines[2].removeprefix(b"data: ")) == said
    assert lines[3:] == [b"", b""]
    assert block("task", said).startswith(b"event: task\ndata: ")
