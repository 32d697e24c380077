"""A website whose customers are served: an edge with a session, models, and people if need be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from actors.batch import Batch
from actors.session import Session
from tests.integration.edges import PATIENCE, Edge
from tests.integration.feed import Block, Feed
from tests.integration.speaking import Speaking

CHAT = "/api/chat"
STREAM = "/api/chat/stream"
JSON = {"Content-Type": "application/json"}
WORD = "人工"
NOTICE = "A person will be with you shortly."

ACTORS: dict[str, Any] = {
    "session": Session,
    "batch": Batch,
    "model": (Speaking, {"provider": "echo", "model": "demo", "tries": 1}),
}


async def say(edge: Edge, text: str, headers: Any = None, **more: Any) -> httpx.Response:
    body = {"message": text, **more}
    return await edge.post(CHAT, body, headers=JSON | (headers or {}))


async def escalate(edge: Edge, session: str, **more: Any) -> httpx.Response:
    body = {"session_name": session, **more}
    return await edge.post("/api/manual/escalate", body, headers=JSON)


async def write(edge: Edge, session: str, content: str, **more: Any) -> httpx.Response:
    body = {"session_name": session, "content": content, **more}
    return await edge.post("/api/manual/messages", body, headers=JSON)


class Answering(Feed):
    """A stream of a session; blocks are told apart by the `type` in them."""

    async def of(self, kind: str) -> list[dict[str, Any]]:
        """Every event up to the first of a type."""
        found: list[dict[str, Any]] = []
        while not found or found[-1]["type"] != kind:
            found.append((await self.one()).data)
        return found

    async def one(self) -> Block:
        (block,) = await self.take(1)
        return block

    async def rest(self) -> list[dict[str, Any]]:
        """Every event to the end."""
        found = []
        while (block := await self.next()) is not None:
            found.append(block.data)
        return found


@asynccontextmanager
async def streaming(
    edge: Edge, text: str, headers: Any = None, **more: Any
) -> AsyncIterator[Answering]:
    """Say something, and read the answer as it comes; or its refusal."""
    content = msgspec.json.encode({"message": text, **more})
    sent = JSON | (headers or {})
    async with edge.client.stream("POST", STREAM, content=content, headers=sent) as response:
        if response.status_code != 200:
            await response.aread()
        yield Answering(response)


@asynccontextmanager
async def following(edge: Edge, query: str = "", **headers: str) -> AsyncIterator[Answering]:
    """Follow a session as EventSource does, without a key."""
    request = edge.client.build_request("GET", f"{STREAM}?{query}")
    request.headers.pop("X-Relay-API-Key", None)
    request.headers.update(headers)
    response = await edge.client.send(request, stream=True)
    try:
        if response.status_code != 200:
            await response.aread()
        yield Answering(response)
    finally:
        await response.aclose()


def text_of(told: list[dict[str, Any]]) -> str:
    """What the pieces of the answers say."""
    return "".join(each["content"] for each in told if each["type"] == "answer")


async def all_of(*work: Any) -> list[Any]:
    """Do several things at once, within patience."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*work)
