"""Key-value buckets, laid out as every NATS client knows them (`nats kv ls config`).

A bucket is a stream of its own, so nothing in it can be part of a commit.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from runtime.bus import DEADLINE, Bus, Stored, expect, expiry
from runtime.errors import Conflict
from runtime.packet import Packet

HINTS_AGAIN = (0.05, 1.0)
"""Seconds: most values are stored by the first; the second is for a server that is slow."""


class Bucket:
    """One bucket: values by key, each with a revision."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> Stored | None:
        """The value of a key with its revision (`seq`), or None."""
        found = await self._bus.last(self._prefix + key, stream=self._stream)
        return None if found is None or _deleted(found) else found

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl: timedelta | None = None,
        timeout: float = DEADLINE,
    ) -> int:
        """Set a key; returns its revision."""
        headers = expiry(ttl) if ttl else {}
        subject = self._prefix + key
        return (await self._bus.publish(subject, value, headers=headers, timeout=timeout)).seq

    async def create(self, key: str, value: bytes, *, ttl: timedelta | None = None) -> bool:
        """Set a key that is not there; False if it is. Of two at once, one gets True."""
        headers = expiry(ttl) if ttl else {}
        revision = 0
        while True:
            try:
                await self._bus.publish(
                    self._prefix + key, value, headers={**headers, **expect(revision)}
                )
                return True
            except Conflict:
                found = await self._bus.last(self._prefix + key, stream=self._stream)
            if found is not None and not _deleted(found):
                return False
            # A key that was deleted has left a mark behind, which may be overwritten.
            revision = found.seq if found is not None else 0

    async def replace(
        self, key: str, value: bytes, revision: int, *, ttl: timedelta | None = None
    ) -> None:
        """Set a key that is still at `revision` (0: not there); raises Conflict if it is not."""
        if revision:
            headers = {**(expiry(ttl) if ttl else {}), **expect(revision)}
            await self._bus.publish(self._prefix + key, value, headers=headers)
        elif not await self.create(key, value, ttl=ttl):
            raise Conflict(f"{key} is there already")

    async def read(self, key: str) -> tuple[bytes | None, int]:
        """The value of a key, None if it is not there, and the revision to `swap` it at."""
        found = await self._bus.last(self._prefix + key, stream=self._stream)
        if found is None:
            return None, 0
        return (None if _deleted(found) else found.data), found.seq

    async def swap(
        self,
        key: str,
        value: bytes,
        revision: int,
        *,
        ttl: timedelta | None = None,
        timeout: float = DEADLINE,
    ) -> int:
        """Set a key that is still as `read` told it; returns its revision.

        Raises Conflict if somebody else was first, or if it is gone meanwhile.
        """
        headers = {**(expiry(ttl) if ttl else {}), **expect(revision)}
        subject = self._prefix + key
        return (await self._bus.publish(subject, value, headers=headers, timeout=timeout)).seq

    async def history(self, key: str) -> list[Stored]:
        """Every value of a key that the bucket keeps, oldest first."""
        found = await self._bus.read_all(self._prefix + key, after=0, stream=self._stream)
        return [stored for stored in found if not _deleted(stored)]

    async def delete(
        self,
        key: str,
        *,
        forget: timedelta | None = None,
        revision: int = 0,
        timeout: float = DEADLINE,
    ) -> None:
        """Take a key away; the mark of that goes after `forget`, or stays.

        Raises Conflict if a `revision` is given and the key is at another by now.
        """
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        if forget:
            headers.update(expiry(forget))
        if revision:
            headers.update(expect(revision))
        await self._bus.publish(self._prefix + key, b"", headers=headers, timeout=timeout)

    async def all(self, below: str = "") -> dict[str, Stored]:
        """Every key with its value, as of one point in time; `below` is how they begin: `a.b.`."""
        found = await self._bus.lasts(f"{self._prefix}{below}>", stream=self._stream)
        return {s.subject.removeprefix(self._prefix): s for s in found if not _deleted(s)}

    def watch(self, changed: Callable[[], None]) -> int:
        """Call `changed` when something may have changed: a hint, read `all` to know.

        A listener hears of a value before it is stored, so the hint is given again.
        """

        def hint(_: Packet) -> None:
            changed()
            for delay in HINTS_AGAIN:
                asyncio.get_running_loop().call_later(delay, changed)

        return self._bus.subscribe(self._prefix + ">", hint)

    def follow(self, told: Callable[[str, bytes | None], None]) -> int:
        """Call `told` with each key and its value as it is said, None for one taken away.

        It is not stored by then, and may never be.
        """

        def hear(packet: Packet) -> None:
            gone = b"KV-Operation: " in packet.raw_headers
            told(packet.subject.removeprefix(self._prefix), None if gone else packet.data)

        return self._bus.subscribe(self._prefix + ">", hear)


def _deleted(found: Stored) -> bool:
    return found.headers.get("KV-Operation") in ("DEL", "PURGE")
