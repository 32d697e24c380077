"""Asks servers that speak OpenAI's chat completions: OpenAI, DeepSeek, Qwen, vLLM, Ollama /v1.

What differs between them: dialects.py. What is sent: openai_request.py; what comes back:
openai_reader.py.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import msgspec

from actors.models.addresses import join, parse
from actors.models.dialects import dialect_of
from actors.models.events import DEFAULT, Call, ProviderEvent, Timeouts, Upstream
from actors.models.exchange import Request
from actors.models.listing import fetch, names
from actors.models.openai_reader import ChatReader
from actors.models.openai_request import build
from actors.models.reader import converse
from actors.models.wording import Discretion

ENDPOINT = "/chat/completions"


class OpenAI:
    """Speaks chat completions, and keeps nothing between calls."""

    async def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        """Ask, and yield what comes. Raises UpstreamFault for anything but a whole answer."""
        url = _base(call.upstream)
        dialect = dialect_of(url, call.model, call.dialect)
        request = Request(
            url=join(url, ENDPOINT),
            body=msgspec.json.encode(await build(call, dialect)),
            headers={
                "Content-Type": "application/json",
                "Accept": "text/event-stream, application/json",
                **_authorize(call.upstream),
            },
        )
        reader = ChatReader(Discretion(call.upstream.key), dialect.thinks)
        async with aclosing(converse(call, request, reader)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """There is nothing to leave."""


async def models(
    client: httpx.AsyncClient, upstream: Upstream, timeouts: Timeouts = DEFAULT
) -> list[str]:
    """The ids of the models that a server offers; raises UpstreamFault."""
    request = Request(join(_base(upstream), "/models"), headers=_authorize(upstream), method="GET")
    body = await fetch(client, upstream, request, timeouts)
    return names(body, "data", "id")


def _base(upstream: Upstream) -> httpx.URL:
    """The base of a server's API; a URL of the endpoint itself is taken for what it is below."""
    return parse(upstream.url, version="/v1", endpoint=ENDPOINT)


def _authorize(upstream: Upstream) -> dict[str, str]:
    return {"Authorization": f"Bearer {upstream.key}"} if upstream.key else {}
