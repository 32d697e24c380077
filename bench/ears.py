"""Those who listen: to the bus, to a topic of the edge, to an answer over HTTP; all cheaply.

What is said is the moment at which it was said, so hearing it is enough to know how late it is.
"""

import asyncio
import time
from collections.abc import Callable
from typing import cast

from bench.tellers import STAMP
from runtime.bus import Bus
from runtime.packet import Packet


class Heard:
    """How late each piece was, in seconds; those that are the first of their stream apart."""

    def __init__(self) -> None:
        self.all: list[float] = []
        self.first: list[float] = []
        self.waits: list[float] = []
        """How long after it was asked for each answer had its first piece."""

    def clear(self) -> None:
        """Forget what was heard by now."""
        self.all.clear()
        self.first.clear()
        self.waits.clear()

    def hear(self, data: bytes, *, first: bool) -> bool:
        """Note the pieces in some bytes; whether there were any."""
        now = time.monotonic_ns()
        late = [(now - int(stamp)) / 1e9 for stamp in STAMP.findall(data)]
        if late and first:
            self.first.append(late[0])
        self.all += late
        return bool(late)


def listen_to_bus(bus: Bus, pattern: str, heard: Heard) -> Callable[[], None]:
    """Hear what is said on topics, as an edge does; returns what ends it."""
    known: set[str] = set()

    def hear(packet: Packet) -> None:
        subject = packet.subject
        if heard.hear(packet.data, first=subject not in known):
            known.add(subject)

    handle = bus.subscribe(pattern, hear)
    return lambda: bus.unsubscribe(handle)


class Ear(asyncio.Protocol):
    """One HTTP request, and what is heard in the answer to it."""

    def __init__(self, request: bytes, heard: Heard, *, every: bool = True) -> None:
        """Of one who does not hear `every` piece, only the last of each read is noted."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.greeted: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = time.monotonic()
        self._request = request
        self._heard = heard
        self._every = every
        self._first = True
        self._tail = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.greeted.done():
            self.greeted.set_result(data.partition(b"\r\n")[0])
        data = self._tail + data
        # A stamp that is cut in two is heard once it is whole.
        cut = data.rfind(b"\n") + 1
        data, self._tail = data[:cut], data[cut:]
        if not self._every:
            if found := STAMP.findall(data):
                self._heard.all.append((time.monotonic_ns() - int(found[-1])) / 1e9)
        elif self._heard.hear(data, first=self._first):
            if self._first:
                self._heard.waits.append(time.monotonic() - self._asked)
                self.heard.set_result(None)
            self._first = False
        if b"data: [DONE]" in data:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError("closed without an answer"))
            self.greeted.exception()
        for future in (self.heard, self.ended):
            if not future.done():
                future.set_result(None)


async def open_ear(port: int, request: bytes, heard: Heard, *, every: bool = True) -> Ear:
    """Ask, and return once the answer has begun; raises ConnectionError if it is a refusal."""
    loop = asyncio.get_running_loop()
    _, ear = await loop.create_connection(
        lambda: Ear(request, heard, every=every), "127.0.0.1", port
    )
    status = await ear.greeted
    if b" 200 " not in status:
        raise ConnectionError(status.decode())
    return ear
