"""A client of server-sent events that reads as browsers do (WHATWG HTML 9.2)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from tests.integration.edges import PATIENCE, Edge


@dataclass(frozen=True)
class Block:
    """One event: its name, its data, and the cursor after it."""

    name: str
    data: Any
    cursor: str

    @property
    def said(self) -> Any:
        """The message in the envelope."""
        return self.data["data"]


class Feed:
    """One open stream. `cursor` is what a browser would send when it reconnects."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.cursor = ""
        self.retry = 0
        self.comments = 0
        self._lines = response.aiter_lines()

    async def next(self) -> Block | None:
        """The next event; None at the end of the stream."""
        name, data = "message", []
        async with asyncio.timeout(PATIENCE):
            async for line in self._lines:
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if line and not field:
                    self.comments += 1
                elif field == "event":
                    name = value
                elif field == "data":
                    data.append(value)
                elif field == "id":
                    self.cursor = value
                elif field == "retry":
                    self.retry = int(value)
                elif not line and data:
                    return Block(name, msgspec.json.decode("\n".join(data)), self.cursor)
        return None

    async def take(self, count: int) -> list[Block]:
        """The next events, which must come."""
        found: list[Block] = []
        for _ in range(count):
            block = await self.next()
            assert block is not None, f"the stream ended after {found}"
            found.append(block)
        return found

    async def until(self, name: str) -> list[Block]:
        """Every event up to the first of that name."""
        found = await self.take(1)
        while found[-1].name != name:
            found += await self.take(1)
        return found


@asynccontextmanager
async def feed(edge: Edge, path: str, **headers: str) -> AsyncIterator[Feed]:
    """Open a stream without a key, unless the headers have one."""
    request = edge.client.build_request("GET", path)
    if "X-Relay-API-Key" not in headers:
        del request.headers["X-Relay-API-Key"]
    request.headers.update(headers)
    response = await edge.client.send(request, stream=True)
    try:
        assert response.status_code == 200, await response.aread()
        yield Feed(response)
    finally:
        await response.aclose()
