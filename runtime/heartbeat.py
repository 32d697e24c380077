"""What a host says of itself, again and again, so that others know that it lives.

What it says is a `Node` (schemas/node.py), made by runtime/host.py; it goes when nothing more is
said.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta

import msgspec
import structlog

from runtime.bus import Bus
from runtime.errors import BusFault
from runtime.kv import Bucket
from schemas.base import token
from schemas.node import PREFIX, Node

log = structlog.get_logger()

BUCKET = "nodes"
EVERY = 1.0
SOON = 0.01
TTL = timedelta(seconds=4)
"""How long a host that says nothing more is taken for alive."""


class Heartbeat:
    """Puts a host's `Node` into the bucket `nodes` every second."""

    def __init__(self, bus: Bus, name: str, describe: Callable[[], Node]) -> None:
        self._nodes = Bucket(bus, BUCKET)
        self._key = PREFIX + token(name)
        self._describe = describe
        self._due = asyncio.Event()
        self._left = False

    async def run(self) -> None:
        """Say it until cancelled."""
        while not self._left:
            self._due.clear()
            try:
                said = msgspec.json.encode(self._describe())
                await self._nodes.put(self._key, said, ttl=TTL, timeout=EVERY)
            except BusFault as fault:
                log.debug("heartbeat_not_sent", error=str(fault))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._due.wait()
                    await asyncio.sleep(SOON)

    def hurry(self) -> None:
        """Say it again at once: something has changed."""
        self._due.set()

    async def leave(self) -> None:
        """Be gone for everybody, now and for good."""
        self._left = True
        with contextlib.suppress(BusFault):
            await self._nodes.delete(self._key, forget=TTL, timeout=EVERY)
