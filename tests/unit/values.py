"""A bucket in memory that several edges share; it may be made to fail, or not to answer."""

import asyncio
from datetime import timedelta

from runtime.errors import Conflict, Unavailable


class Store:
    """Values with revisions. Nothing goes by itself."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[bytes, int]] = {}
        self.writes = 0
        self.broken = False
        self.stuck: asyncio.Event | None = None

    async def read(self, key: str) -> tuple[bytes | None, int]:
        await self._wait()
        return self.values.get(key, (None, 0))

    async def swap(self, key: str, value: bytes, revision: int, *, ttl: timedelta) -> int:
        await self._wait()
        if self.values.get(key, (b"", 0))[1] != revision:
            raise Conflict("somebody was first")
        self.writes += 1
        self.values[key] = (value, self.writes)
        return self.writes

    async def _wait(self) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise Unavailable("no connection")
        if self.stuck is not None:
            await self.stuck.wait()

    async def put(self, key: str, value: bytes, *, ttl: timedelta, timeout: float) -> int:
        await self._wait()
        self.writes += 1
        self.values[key] = (value, self.writes)
        return self.writes

    async def delete(self, key: str, *, forget: timedelta) -> None:
        await self._wait()
        self.values.pop(key, None)
