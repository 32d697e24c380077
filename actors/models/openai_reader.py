"""Chat completions as they come back: chunks of a stream, or one whole answer.

Sources: OpenAI's reference; DeepSeek, DashScope, vLLM and Ollama where they differ.
"""

import json
from collections.abc import Iterator
from typing import Any

from actors.models.events import ProviderEvent
from actors.models.faults import UpstreamFault
from actors.models.numbers import count
from actors.models.reader import Calls
from actors.models.think import Thinks
from actors.models.thinking import ThinkingReader
from actors.models.wording import Discretion
from schemas.model import Finish, Usage

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields of reasoning; some servers fill two with the same, so the first one counts."""
FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
UNFINISHED = frozenset({"abort", "error"})


class ChatReader(ThinkingReader):
    """Reads what answers POST /chat/completions."""

    def __init__(self, discretion: Discretion, thinks: Thinks = "tags") -> None:
        super().__init__(discretion, thinks)
        self._calls = Calls()
        self._refused: list[str] = []

    def read(self, body: dict[str, Any]) -> Iterator[ProviderEvent]:
        if body.get("usage"):
            self.usage = read_usage(body["usage"])
        for choice in body.get("choices") or ():
            # Only one answer is asked for; a server may give more.
            if not choice.get("index"):
                yield from self._read_choice(choice)

    def _read_choice(self, choice: dict[str, Any]) -> Iterator[ProviderEvent]:
        if message := choice.get("message"):
            if not _reasoning(message):
                yield from self.take_whole(_text(message.get("content")))
                message = {**message, "content": None}
            yield from self._read_delta(message)
        elif delta := choice.get("delta"):
            yield from self._read_delta(delta)
        if choice.get("finish_reason"):
            self._end(choice["finish_reason"])

    def _read_delta(self, delta: dict[str, Any]) -> Iterator[ProviderEvent]:
        if thought := _reasoning(delta):
            yield from self.take_thought(thought)
        if text := _text(delta.get("content")):
            yield from self.take_text(text)
        if refusal := delta.get("refusal"):
            self._refused.append(_text(refusal))
        calls = delta.get("tool_calls") or ()
        if legacy := delta.get("function_call"):
            calls = ({"index": 0, "function": legacy},)
        for call in calls:
            function = call.get("function") or {}
            piece = self._calls.take(
                call.get("index"),
                _text(call.get("id")),
                _text(function.get("name")),
                _arguments(function.get("arguments")),
            )
            if piece is not None:
                yield piece

    def _end(self, reason: str) -> None:
        if reason == "content_filter" or self._refused:
            self.refusal = "".join(self._refused) or "the provider's content filter"
        elif reason == "insufficient_system_resource":
            raise self._fault("overloaded", reason)
        elif reason in UNFINISHED:
            raise self._fault("server_error", reason)
        else:
            self.finish = FINISHES.get(reason, "stop")
            if self._calls and self.finish == "stop":
                self.finish = "tool_calls"

    def _fault(self, code: Any, reason: str) -> UpstreamFault:
        return self.discretion.fault(code, f"the provider ended the answer with {reason!r}")


def read_usage(usage: dict[str, Any]) -> Usage:
    """Tokens as OpenAI counts them, and DeepSeek what was cached."""
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return Usage(
        prompt=count(usage.get("prompt_tokens")),
        completion=count(usage.get("completion_tokens")),
        reasoning=count(completion.get("reasoning_tokens")),
        cached=count(prompt.get("cached_tokens") or usage.get("prompt_cache_hit_tokens")),
    )


def _reasoning(delta: dict[str, Any]) -> str:
    found = (delta.get(name) for name in REASONING)
    return next((text for text in found if isinstance(text, str) and text), "")


def _arguments(value: Any) -> str:
    """JSON as text; some servers write it as the object itself."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else _text(value)


def _text(value: Any) -> str:
    """A text, or the texts of a list of parts. Raises TypeError for anything else."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value)
    raise TypeError(type(value))
