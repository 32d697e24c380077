"""Asks Google's Gemini: streamGenerateContent, as events or as one array."""

import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import aclosing
from urllib.parse import quote

import httpx
import msgspec

from actors.models.addresses import join, parse
from actors.models.events import DEFAULT, Call, ProviderEvent, Timeouts, Upstream
from actors.models.exchange import Request
from actors.models.gemini_reader import GeminiReader
from actors.models.gemini_request import build
from actors.models.listing import fetch, names
from actors.models.reader import converse
from actors.models.wording import Discretion

KEPT = 4096
"""Signatures of tool calls that are remembered."""
LONGEST_SIGNATURE = 64 * 1024
UNKNOWN_SIGNATURE = "skip_thought_signature_validator"
"""What Google has one say of a call whose signature is lost; models from 3 on insist on one."""
_INSISTING = re.compile(r"gemini-(?:[3-9]|\d\d)\b")


class Gemini:
    """Speaks generateContent. Remembers the signatures of its tool calls, which go back to it
    when the calls' results do; OpenAI's clients have no place for them."""

    def __init__(self) -> None:
        self._signatures: OrderedDict[str, str] = OrderedDict()

    async def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        """Ask, and yield what comes. Raises UpstreamFault for anything but a whole answer."""
        unknown = UNKNOWN_SIGNATURE if _INSISTING.search(call.model) else ""
        body = await build(call, lambda made: self._signatures.get(made, unknown))
        path = f"/{_name(call.model)}:streamGenerateContent"
        request = Request(
            url=join(_base(call.upstream), path, "alt=sse"),
            body=msgspec.json.encode(body),
            headers={"Content-Type": "application/json", **_authorize(call.upstream)},
        )
        reader = GeminiReader(Discretion(call.upstream.key), self._keep)
        async with aclosing(converse(call, request, reader)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """Forget the signatures."""
        self._signatures.clear()

    def _keep(self, made: str, signature: str) -> None:
        if len(signature) <= LONGEST_SIGNATURE:
            self._signatures[made] = signature
            while len(self._signatures) > KEPT:
                self._signatures.popitem(last=False)


async def models(
    client: httpx.AsyncClient, upstream: Upstream, timeouts: Timeouts = DEFAULT
) -> list[str]:
    """The names of the models that a key may use; raises UpstreamFault."""
    url = join(_base(upstream), "/models", "pageSize=1000")
    request = Request(url, headers=_authorize(upstream), method="GET")
    listed = names(await fetch(client, upstream, request, timeouts), "models", "name")
    return [name.removeprefix("models/") for name in listed]


def _base(upstream: Upstream) -> httpx.URL:
    return parse(upstream.url, version="/v1beta")


def _name(model: str) -> str:
    """A model as a resource; what is one already, such as a tuned model, stays as it is."""
    name = quote(model, safe="/")
    return name if "/" in name else f"models/{name}"


def _authorize(upstream: Upstream) -> dict[str, str]:
    # In the query, where Google takes it as well, proxies would log it.
    return {"x-goog-api-key": upstream.key} if upstream.key else {}
