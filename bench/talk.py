"""HTTP as customers and agents speak it: requests on connections that are kept, and streams.

As little as does the job, because it shares the machine with what is measured.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import msgspec

Hear = Callable[[dict[str, Any], float], None]
"""Is called with each event of a stream, and when it came."""

DATA = b"data: "
HEAD = "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\n"
JSON = "Content-Type: application/json\r\n\r\n"
STREAM = "Accept: text/event-stream\r\n"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Answered:
    """An answer: its status, its JSON, and the seconds that it took."""

    status: int
    data: Any
    seconds: float


class Site:
    """An edge on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, method: str, path: str, body: Any = None) -> Answered:
        """Ask for something. Raises OSError or EOFError if nobody answers."""
        began = time.monotonic()
        reader, writer = await self._connect()
        try:
            writer.write(self.request(method, path, body))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            data = await reader.readexactly(length)
        except BaseException:
            writer.transport.abort()
            raise
        self._idle.append((reader, writer))
        took = time.monotonic() - began
        return Answered(int(head.split()[1]), _decode(data) if data else None, took)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that was kept, unless the edge has left it for want of use."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def tell(self, path: str, **body: Any) -> Any:
        """Post what has to be done; returns the answer's JSON. Raises RuntimeError if refused."""
        answered = await self.ask("POST", path, body)
        if answered.status != 200:
            raise RuntimeError(f"{path}: {answered.status} {answered.data}")
        return answered.data

    async def follow(self, path: str, hear: Hear, body: Any = None) -> "Stream":
        """Open a stream, and return once it has begun; a refusal is its `status`."""
        request = self.request("GET" if body is None else "POST", path, body, more=STREAM)
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(
            lambda: Stream(request, hear), "127.0.0.1", self.port
        )
        await stream.begun
        return stream

    def request(self, method: str, path: str, body: Any, *, more: str = "") -> bytes:
        """What is sent."""
        content = b"" if body is None else _encode(body)
        head = HEAD.format(method=method, path=path, port=self.port, length=len(content))
        return (head + more + JSON).encode() + content

    def close(self) -> None:
        """Leave all connections that are kept."""
        for _, writer in self._idle:
            writer.transport.abort()
        self._idle.clear()


class Stream(asyncio.Protocol):
    """A stream of server-sent events; `ended` once it is over."""

    def __init__(self, request: bytes, hear: Hear) -> None:
        loop = asyncio.get_running_loop()
        self.status = 0
        self.begun: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._hear = hear
        self._tail = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        *lines, self._tail = (self._tail + data).split(b"\n")
        if not self.status:
            self.status = int(lines[0].split()[1])
            self.begun.set_result(None)
            if self.status != 200:
                self._transport.close()
        # What stands between two pieces of the body begins with neither.
        for line in lines:
            if line.startswith(DATA):
                event = _decode(line[len(DATA) :])
                self._hear(event, now)
                if event["type"] == "done" and self._request.startswith(b"POST"):
                    self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Go away."""
        self._transport.abort()
