"""One connection of a fake upstream: requests in, and out exactly the writes that are wanted.

Everything that a socket can do to a client is done here: closing early, resetting, dribbling.
"""

import asyncio
import socket
import struct
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

import httptools

from actors.fakes.frames import halves

LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: closing sends a reset."""


@dataclass
class Request:
    """One HTTP request, whole."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    lasting: bool = True


class Line(asyncio.Protocol):
    """A connection. Requests that come while one is answered wait for it."""

    def __init__(
        self, serve: Callable[["Line", Request], Awaitable[None]], lines: "set[Line]"
    ) -> None:
        self._serve = serve
        self._lines = lines
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request()
        self._waiting: deque[Request] = deque()
        self._answering: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._lines.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._room.set()
        self._lines.discard(self)
        if self._answering is not None:
            self._answering.cancel()

    # -- what the parser calls

    def on_message_begin(self) -> None:
        self._request = Request()

    def on_url(self, url: bytes) -> None:
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._request.headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._request.body += body

    def on_message_complete(self) -> None:
        self._request.method = self._parser.get_method().decode("ascii")
        self._request.lasting = self._parser.should_keep_alive()
        self._waiting.append(self._request)
        if self._answering is None:
            self._answering = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        while self._waiting and not self.transport.is_closing():
            await self._serve(self, self._waiting.popleft())
        self._answering = None

    # -- what an answer does

    async def write(self, data: bytes) -> None:
        """Hand bytes to the kernel, in one write if it takes them; waits for room."""
        self.transport.write(data)
        await asyncio.sleep(0)
        await self._room.wait()

    def reset(self) -> None:
        """End the connection by a TCP reset."""
        found: socket.socket = self.transport.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self.transport.abort()

    async def abort(self) -> None:
        """End the connection and what is being answered on it."""
        self.transport.abort()
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.wait([self._answering])

    def close(self) -> None:
        """Close when everything is sent, whatever was promised."""
        self.transport.close()


class Reply:
    """One HTTP answer on a line, in the form that switches want."""

    def __init__(self, line: Line, lasting: bool, switches: dict[str, str]) -> None:
        self._line = line
        self._lasting = lasting and "close" not in switches
        self._switches = switches
        self._chunked = False
        self._zip: Any = zlib.compressobj(wbits=31) if "gzip" in switches else None
        self._kept = bytearray()

    async def head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        """Send the head; without a length the body is chunked, or ends with its connection."""
        said = {"Date": formatdate(usegmt=True)} | headers
        self._chunked = (length is None or self._zip is not None) and "close" not in self._switches
        if self._chunked:
            said["Transfer-Encoding"] = "chunked"
        elif length is not None and "close" not in self._switches:
            said["Content-Length"] = str(length)
        if self._zip is not None:
            said["Content-Encoding"] = "gzip"
        if not self._lasting:
            said["Connection"] = "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        await self._put(f"HTTP/1.1 {status} {_phrase(status)}\r\n{lines}\r\n".encode("latin-1"))

    async def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        if not data:
            return
        for part in halves(data) if "utf8" in self._switches else [data]:
            packed = part if self._zip is None else self._pack(part)
            if packed:
                await self._put(self._chunk(packed))

    async def end(self) -> None:
        """Say that the body is whole."""
        if self._zip is not None:
            await self._put(self._chunk(self._zip.flush()))
        if self._chunked:
            await self._put(b"0\r\n\r\n")
        await self._flush()
        if not self._lasting:
            self._line.close()

    async def cut(self) -> None:
        """Close without saying so."""
        await self._flush()
        self._line.close()

    async def reset(self) -> None:
        """End by a TCP reset; what was sent before has a moment to arrive."""
        await self._flush()
        self._line.reset()

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _pack(self, data: bytes) -> bytes:
        return bytes(self._zip.compress(data) + self._zip.flush(zlib.Z_SYNC_FLUSH))

    async def _put(self, data: bytes) -> None:
        if "together" in self._switches:
            self._kept += data
        elif "bytes" in self._switches:
            for place in range(len(data)):
                await self._line.write(data[place : place + 1])
        else:
            await self._line.write(data)

    async def _flush(self) -> None:
        if self._kept:
            await self._line.write(bytes(self._kept))
            self._kept.clear()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
