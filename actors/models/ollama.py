"""Asks Ollama in its own words: POST /api/chat, answered by one JSON object per line."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import msgspec

from actors.models.addresses import join, parse
from actors.models.events import DEFAULT, Call, ProviderEvent, Timeouts, Upstream
from actors.models.exchange import Request
from actors.models.listing import fetch, names
from actors.models.numbers import count
from actors.models.ollama_request import build
from actors.models.reader import Calls, converse
from actors.models.thinking import ThinkingReader
from actors.models.wording import Discretion
from schemas.model import Usage

ENDPOINT = "/api/chat"
LOADED = frozenset({"load", "unload"})
"""How an answer ends that is none: the model was only put into memory, or out of it."""


class Ollama:
    """Speaks Ollama's own interface, and keeps nothing between calls."""

    async def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        """Ask, and yield what comes. Raises UpstreamFault for anything but a whole answer."""
        request = Request(
            url=join(_base(call.upstream), ENDPOINT),
            body=msgspec.json.encode(await build(call)),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/x-ndjson",
                **_authorize(call.upstream),
            },
        )
        reader = OllamaReader(Discretion(call.upstream.key))
        async with aclosing(converse(call, request, reader)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """There is nothing to leave."""


class OllamaReader(ThinkingReader):
    """Reads what answers POST /api/chat."""

    def __init__(self, discretion: Discretion) -> None:
        super().__init__(discretion)
        self._calls = Calls()
        self._spoken = False

    def id_of(self, body: dict[str, Any]) -> str:
        """It gives none."""
        return ""

    def read(self, body: dict[str, Any]) -> Iterator[ProviderEvent]:
        for event in self._read_message(body.get("message") or {}):
            self._spoken = True
            yield event
        if body.get("done") is True:
            self._end(body)

    def _read_message(self, message: dict[str, Any]) -> Iterator[ProviderEvent]:
        if thought := message.get("thinking"):
            yield from self.take_thought(_text(thought))
        if text := message.get("content"):
            yield from self.take_text(_text(text))
        for call in message.get("tool_calls") or ():
            function = call["function"]
            arguments = msgspec.json.encode(function.get("arguments") or {}).decode()
            yield self._calls.add(call.get("id") or "", _text(function["name"]), arguments)

    def _end(self, body: dict[str, Any]) -> None:
        reason = body.get("done_reason")
        if reason in LOADED and not self._spoken:
            raise self.discretion.fault("truncated", f"it only said done, because of {reason!r}")
        self.usage = Usage(
            prompt=count(body.get("prompt_eval_count")), completion=count(body.get("eval_count"))
        )
        self.finish = "length" if reason == "length" else "tool_calls" if self._calls else "stop"
        self.over = True


async def models(
    client: httpx.AsyncClient, upstream: Upstream, timeouts: Timeouts = DEFAULT
) -> list[str]:
    """The names of the models that a server has; raises UpstreamFault."""
    url = join(_base(upstream), "/api/tags")
    request = Request(url, headers=_authorize(upstream), method="GET")
    return names(await fetch(client, upstream, request, timeouts), "models", "name")


def _base(upstream: Upstream) -> httpx.URL:
    return parse(upstream.url, version="", endpoint=ENDPOINT)


def _authorize(upstream: Upstream) -> dict[str, str]:
    return {"Authorization": f"Bearer {upstream.key}"} if upstream.key else {}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return value
