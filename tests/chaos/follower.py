"""Follows the accounts as they happen, and writes down what it was told, in that order.

What is said live is taken as it comes while the broker's own count proves that nothing is
missing before it; everything else is read from the log, from where the transcript ends.
"""

import asyncio
import contextlib
import zlib

from runtime.bus import Bus, Stored
from runtime.connection import Packet
from runtime.errors import BusFault

LOOK_EVERY = 2.0

Heard = tuple[int, int]
"""The sequence of an event, and the checksum of what it said."""


def heard(seq: int, data: bytes) -> Heard:
    """One line of a transcript."""
    return seq, zlib.crc32(data)


class Follower:
    """One client that follows every subject of a pattern, across lost connections."""

    def __init__(self, bus: Bus, pattern: str) -> None:
        self.transcripts: dict[str, list[Heard]] = {}
        """What was heard, by subject."""
        self.live = 0
        self.read = 0
        self._bus = bus
        self._pattern = pattern
        self._cursor = 0
        """Everything up to here was read from the log."""
        self._stirred = asyncio.Event()
        self._handle = bus.subscribe(f"live.{pattern}", self._hear)
        bus.link.on_rebuilt.append(self._stirred.set)
        self._task = asyncio.create_task(self._keep_reading())

    async def stop(self) -> None:
        """Read the rest, then stop."""
        self._bus.unsubscribe(self._handle)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._bus.link.on_rebuilt.remove(self._stirred.set)
        while not await self._try_to_read():
            await self._bus.link.connected.wait()

    def _hear(self, packet: Packet) -> None:
        headers = packet.headers
        subject, seq = headers["Nats-Subject"], int(headers["Nats-Sequence"])
        transcript = self.transcripts.setdefault(subject, [])
        newest = transcript[-1][0] if transcript else 0
        if seq <= newest:
            return
        if int(headers["Nats-Last-Sequence"]) != newest:
            self._stirred.set()
            return
        transcript.append(heard(seq, packet.data))
        self.live += 1

    async def _keep_reading(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._stirred.wait()
            self._stirred.clear()
            await self._bus.link.connected.wait()
            if not await self._try_to_read():
                self._stirred.set()

    async def _try_to_read(self) -> bool:
        try:
            await self._read()
        except BusFault:
            await asyncio.sleep(0.1)
            return False
        return True

    async def _read(self) -> None:
        while page := await self._bus.read(self._pattern, after=self._cursor, limit=1000):
            for stored in page:
                self._take(stored)
            self._cursor = page[-1].seq

    def _take(self, stored: Stored) -> None:
        transcript = self.transcripts.setdefault(stored.subject, [])
        if not transcript or stored.seq > transcript[-1][0]:
            transcript.append(heard(stored.seq, stored.data))
            self.read += 1
