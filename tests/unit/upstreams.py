"""How tests ask a fake upstream, and read what comes as it comes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from actors.fakes.upstream import Upstream, fake

QUESTION = [{"role": "user", "content": "good morning to you"}]


@asynccontextmanager
async def faking(
    kind: str = "openai", **given: Any
) -> AsyncIterator[tuple[Upstream, httpx.AsyncClient]]:
    """A fake, and a client for it that waits for long, but not for ever."""
    async with (
        fake(kind, **given) as upstream,
        httpx.AsyncClient(timeout=20, trust_env=False) as client,
    ):
        yield upstream, client


async def stream(
    client: httpx.AsyncClient, upstream: Upstream, model: str = "demo", **more: Any
) -> httpx.Response:
    """Ask for a stream, OpenAI's way; returns it whole."""
    body = {"model": model, "messages": QUESTION, "stream": True} | more
    return await client.post(f"{upstream.url}/chat/completions", json=body)


def chunks(text: str) -> list[Any]:
    """What a plain event stream says: JSON, or the text [DONE]."""
    blocks = [block for block in text.split("\n\n") if block]
    assert all(block.startswith("data: ") for block in blocks), blocks
    said = [block.removeprefix("data: ") for block in blocks]
    return [part if part == "[DONE]" else json.loads(part) for part in said]


def texts(said: list[Any], field: str = "content") -> list[str]:
    """The pieces of text in OpenAI's chunks."""
    found = [choice for part in said if part != "[DONE]" for choice in part["choices"]]
    return [choice["delta"][field] for choice in found if choice["delta"].get(field)]
