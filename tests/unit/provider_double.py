"""A provider on a loopback port that writes exactly the bytes a test gives it."""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from actors.models.events import (
    Adapter,
    Call,
    ProviderEvent,
    ReasoningDelta,
    TextDelta,
    Timeouts,
    ToolDelta,
    Upstream,
)
from actors.models.faults import UpstreamFault
from schemas.model import FileRef, Text, Utterance

PATIENCE = 10.0
KEY = "sk-test-0123456789abcdef"
EVENTS = "text/event-stream; charset=utf-8"


@dataclass(frozen=True)
class Asked:
    """A request, as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Wire:
    """The answering side of one connection. Bodies are chunked unless `raw` writes them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def head(self, status: int = 200, media: str = EVENTS, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {media}", "Transfer-Encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        if data:
            await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        """End the connection as if the host had died: the peer gets a reset."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the peer has ended the connection."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while await self._reader.read(1024):
                    pass


Answer = Callable[[Wire], Awaitable[None]]


@dataclass
class Double:
    """A running provider: what it was asked, and on how many connections."""

    answer: Answer
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await _read_request(reader)) is not None:
                self.asked.append(request)
                await self.answer(Wire(reader, writer))
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def doubled(answer: Answer) -> AsyncIterator[Double]:
    """A provider that answers every request in the same way."""
    double = Double(answer)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(double.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    double.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield double
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def writes(
    *chunks: bytes, status: int = 200, media: str = EVENTS, ends: bool = True, **headers: str
) -> Answer:
    """An answer of these bytes; unless it `ends`, the connection closes without its end."""

    async def answer(wire: Wire) -> None:
        await wire.head(status, media, **headers)
        for chunk in chunks:
            await wire.chunk(chunk)
        if not ends:
            raise ConnectionError
        await wire.end()

    return answer


def says(body: Any, *, status: int = 200, **headers: Any) -> Answer:
    """An answer of one JSON document."""
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return writes(encoded, status=status, media="application/json", **headers)


@dataclass
class Outcome:
    """What came of a call: events, and the fault that ended them."""

    events: list[ProviderEvent] = field(default_factory=list)
    fault: UpstreamFault | None = None

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.events if isinstance(one, TextDelta))

    @property
    def reasoning(self) -> str:
        return "".join(one.text for one in self.events if isinstance(one, ReasoningDelta))

    @property
    def tools(self) -> list[ToolDelta]:
        return [one for one in self.events if isinstance(one, ToolDelta)]

    @property
    def last(self) -> ProviderEvent:
        assert self.fault is None, self.fault
        return self.events[-1]

    @property
    def code(self) -> str:
        assert self.fault is not None, self.events
        return self.fault.code


def plain_client(**options: Any) -> httpx.AsyncClient:
    """A client that reads no certificates, which takes longer than most tests."""
    return httpx.AsyncClient(verify=False, **options)


async def no_file(file: FileRef) -> bytes:
    raise AssertionError(f"nobody should want {file}")


def said(text: str, role: Any = "user") -> Utterance:
    return Utterance(role=role, content=(Text(text),))


def call(client: httpx.AsyncClient, url: str, **changes: Any) -> Call:
    """A question with a key, to be answered within a second unless a test says otherwise."""
    given: dict[str, Any] = {
        "client": client,
        "upstream": Upstream(url, KEY),
        "model": "demo-1",
        "messages": (said("hi"),),
        "load": no_file,
        "timeouts": Timeouts(connect=PATIENCE, first=PATIENCE, idle=PATIENCE),
    }
    return Call(**given | changes)


async def collect(adapter: Adapter, question: Call) -> Outcome:
    """All that comes of a call."""
    outcome = Outcome()
    try:
        async with asyncio.timeout(PATIENCE):
            async for event in adapter.stream(question):
                outcome.events.append(event)
    except UpstreamFault as fault:
        outcome.fault = fault
    return outcome


async def outcome_of(adapter: Adapter, answer: Answer, **changes: Any) -> Outcome:
    """What an adapter makes of an answer."""
    async with doubled(answer) as double, plain_client() as client:
        return await collect(adapter, call(client, double.url, **changes))


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Some bytes in pieces, cut at some places."""
    ordered = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ordered)]


async def _read_request(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, target, headers, body)
