"""Lives of one store: a server ends, something is done to its files, it starts again."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runtime.bus import Bus
from runtime.packet import Packet
from runtime.pull import Delivery, ensure_consumer
from runtime.store.caretaker import Caretaker
from runtime.store.marks import MarkFile, beside
from runtime.store.server import EmbeddedServer
from runtime.store.storewatch import StoreWatch
from runtime.tables import NatsTable
from tests.integration.conftest import Connect

EVENT = "event.t.a"
READER = "mail_reader_0"


class Lives:
    """A folder with a store, and what may be done to it between two lives."""

    def __init__(self, folder: Path, binary: str, connect: Connect) -> None:
        self.data = folder / "data"
        self.file = MarkFile(beside(self.data))
        self._binary = Path(binary)
        self._connect = connect

    @asynccontextmanager
    async def life(self, *, accept: bool = False, kill: bool = False) -> AsyncIterator[Bus]:
        """One life as `callboard up` leads it; its last mark is noted before it ends."""
        server = EmbeddedServer(self.data, binary=self._binary)
        caretaker = Caretaker(server)
        await caretaker.start(NatsTable(data=str(self.data), port=0), accept=accept)
        try:
            bus = await self._connect(server.url)
            bus.created = caretaker.bus.created
            yield bus
            await StoreWatch(bus, file=self.file).look()
        finally:
            await caretaker.bus.link.close()
            await (server.kill() if kill else server.stop())

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Bus]:
        """The server alone, with nobody who checks anything."""
        server = EmbeddedServer(self.data, binary=self._binary)
        await server.start()
        try:
            yield await self._connect(server.url)
        finally:
            await server.stop()

    @property
    def stream(self) -> Path:
        """Where the server keeps the stream."""
        return next(self.data.glob("**/streams/BUS"))

    @property
    def blocks(self) -> list[Path]:
        """The files of its messages, oldest first."""
        return sorted((self.stream / "msgs").glob("*.blk"), key=lambda path: int(path.stem))

    def copy(self, name: str) -> Path:
        """Copy the store as a backup does."""
        return Path(shutil.copytree(self.data, self.data.with_name(name)))

    def put_back(self, copy: Path) -> None:
        """Let the store be what it was when the copy was made."""
        shutil.rmtree(self.data)
        copy.rename(self.data)


def flip(path: Path, at: bytes = b"") -> None:
    """Flip one bit: within the first `at`, or in the middle."""
    data = bytearray(path.read_bytes())
    place = data.index(at) + len(at) // 2 if at else len(data) // 2
    data[place] ^= 4
    path.write_bytes(data)


async def store(bus: Bus, first: int, last: int) -> None:
    """Store events that say their numbers."""
    for number in range(first, last + 1):
        await bus.publish(EVENT, b"event-%04d-%s" % (number, b"." * 100))


async def read_numbers(bus: Bus) -> list[int]:
    """The numbers of the events that are there."""
    return [int(one.data[6:10]) for one in await bus.read_all(EVENT, after=0)]


async def consume(bus: Bus, count: int) -> None:
    """Take and acknowledge the first messages by a durable of our own."""
    await ensure_consumer(bus, READER, filter_subject="event.>")
    for number in await deliver(bus, count):
        number.ack()
    # Answered after the acknowledgements, which came the same way.
    await bus.api("INFO")


async def deliver(bus: Bus, count: int) -> list[Delivery]:
    """What the durable has to deliver, as far as `count`, and as far as it does at once."""
    found: list[Delivery] = []
    ended = asyncio.Event()

    def take(packet: Packet) -> None:
        if not packet.status:
            found.append(Delivery(bus, packet))
        if packet.status or len(found) == count:
            ended.set()

    inbox = bus.link.new_inbox()
    sid = bus.subscribe(inbox, take)
    request = json.dumps({"batch": count, "no_wait": True}).encode()
    bus.link.publish(f"$JS.API.CONSUMER.MSG.NEXT.{bus.stream}.{READER}", request, reply=inbox)
    async with asyncio.timeout(10):
        await ended.wait()
    bus.unsubscribe(sid)
    return found
