"""Gemini's answers as they come: a stream of GenerateContentResponse, as events or in an array.

Source: ai.google.dev, GenerateContentResponse. There is no end marker: the body ends.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from actors.models.events import ProviderEvent, ReasoningDelta, TextDelta
from actors.models.faults import Code
from actors.models.numbers import count
from actors.models.reader import Calls, Reader
from actors.models.wording import Discretion
from schemas.model import Usage

UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"
REFUSING = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
        "JAILBREAK",
    }
)
FAILING: dict[str, Code] = {
    "MALFORMED_FUNCTION_CALL": "garbled",
    "MALFORMED_RESPONSE": "garbled",
    "UNEXPECTED_TOOL_CALL": "garbled",
    "TOO_MANY_TOOL_CALLS": "garbled",
    "MISSING_THOUGHT_SIGNATURE": "bad_request",
}
"""Reasons that leave no answer; any that is not known is taken as OTHER, a fault of the server."""


class GeminiReader(Reader):
    """Reads what answers streamGenerateContent. `keep` is given the signature of each call."""

    def __init__(self, discretion: Discretion, keep: Callable[[str, str], None]) -> None:
        super().__init__(discretion)
        self._keep = keep
        self._calls = Calls()
        self._spoken = self._pictured = False

    def id_of(self, body: dict[str, Any]) -> str:
        found = _get(body, "responseId")
        return found if isinstance(found, str) else ""

    def read(self, body: dict[str, Any]) -> Iterator[ProviderEvent]:
        if usage := _get(body, "usageMetadata"):
            self.usage = read_usage(usage)
        blocked = _get(_get(body, "promptFeedback") or {}, "blockReason")
        if blocked:
            self.refusal = f"the prompt was blocked: {blocked}"
        for candidate in _get(body, "candidates") or ():
            # Only one is asked for.
            if not candidate.get("index"):
                yield from self._read_candidate(candidate)

    def _read_candidate(self, candidate: dict[str, Any]) -> Iterator[ProviderEvent]:
        for part in (candidate.get("content") or {}).get("parts") or ():
            yield from self._read_part(part)
        reason = _get(candidate, "finishReason")
        if reason and reason != UNSPECIFIED:
            said = _get(candidate, "finishMessage")
            self._end(str(reason), f": {said}" if isinstance(said, str) and said else "")

    def _read_part(self, part: dict[str, Any]) -> Iterator[ProviderEvent]:
        if text := part.get("text"):
            if not isinstance(text, str):
                raise TypeError(type(text))
            self._spoken = True
            yield ReasoningDelta(text) if part.get("thought") is True else TextDelta(text)
        if call := _get(part, "functionCall"):
            arguments = msgspec.json.encode(call.get("args") or {}).decode()
            piece = self._calls.add(call.get("id") or "", call["name"], arguments)
            signature = _get(part, "thoughtSignature")
            if isinstance(signature, str):
                self._keep(piece.call, signature)
            yield piece
        if _get(part, "inlineData"):
            self._pictured = True

    def _end(self, reason: str, more: str) -> None:
        if reason == "MAX_TOKENS":
            self.finish = "length"
        elif reason in REFUSING:
            self.refusal = f"the answer was blocked: {reason}{more}"
        elif reason != "STOP":
            code = FAILING.get(reason, "server_error")
            raise self.discretion.fault(code, f"the answer ended with {reason}{more}")
        elif self._pictured and not self._spoken and not self._calls:
            raise self.discretion.fault("bad_request", "it answered with an image and no text")
        else:
            self.finish = "tool_calls" if self._calls else "stop"


def read_usage(usage: dict[str, Any]) -> Usage:
    """Tokens so far. What it thought is counted beside the answer, but is part of it here."""
    thought = count(_get(usage, "thoughtsTokenCount"))
    return Usage(
        prompt=count(_get(usage, "promptTokenCount"))
        + count(_get(usage, "toolUsePromptTokenCount")),
        completion=count(_get(usage, "candidatesTokenCount")) + thought,
        reasoning=thought,
        cached=count(_get(usage, "cachedContentTokenCount")),
    )


def _get(body: dict[str, Any], name: str) -> Any:
    """A field by its proto3 name, in either of the two spellings."""
    if name in body:
        return body[name]
    return body.get(
        "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    )
