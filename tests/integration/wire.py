"""Speaking to an edge in raw bytes: for requests that no client library would send."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import msgspec

PATIENCE = 20.0


@dataclass(frozen=True)
class Answer:
    """A response as it came. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def media(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def is_stream(self) -> bool:
        return self.media == "text/event-stream"


class Wire:
    """One connection. Every wait ends after `PATIENCE` seconds, in an error."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, *, limit: int = 2**16) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=limit))

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self, *, content: bool = True) -> Answer:
        """Read the next response; of a stream only its head."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")[:-2]
            headers = {n.lower(): v for n, _, v in (f.partition(": ") for f in fields)}
            found = Answer(int(line.split(" ")[1]), headers, b"")
            if not content or found.is_stream or found.status in (204, 304):
                return found
            return Answer(found.status, headers, await self._body(headers))

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.readexactly(int(headers.get("content-length", 0)))
        pieces = []
        while size := int(await self.reader.readline(), 16):
            pieces.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return b"".join(pieces)

    async def until(self, text: bytes) -> bytes:
        """Read until a text has come, and return all that was read."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(text)

    async def is_closed(self) -> bool:
        """Whether the server ends the connection, without another byte."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read(1) == b""

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
