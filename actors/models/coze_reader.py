"""The events of a workflow's chat at Coze: what happens to the chat, and to its messages.

What workflows do on their own (verbose, follow_up, function_call, …) is no part of an answer.
"""

from collections.abc import Iterator
from typing import Any

from actors.models.events import ProviderEvent, ReasoningDelta, TextDelta
from actors.models.numbers import count
from actors.models.reader import Reader
from actors.models.trouble import explain, read_trouble
from actors.models.wording import Discretion
from schemas.model import Usage

FAILED = frozenset({"conversation.chat.failed", "conversation.chat.canceled"})


class WorkflowReader(Reader):
    """Reads what answers POST /v1/workflows/chat."""

    def __init__(self, discretion: Discretion) -> None:
        super().__init__(discretion)
        self._heard: set[str] = set()
        """Messages of which pieces have come."""

    def read(self, body: dict[str, Any]) -> Iterator[ProviderEvent]:
        if self.event == "conversation.message.delta":
            yield from self._read_piece(body)
        elif self.event == "conversation.message.completed":
            yield from self._read_message(body)
        elif self.event == "conversation.chat.completed":
            self.usage = _read_usage(body.get("usage") or {})
            self.finish = "stop"
        else:
            self._read_end(body)

    def _read_end(self, body: dict[str, Any]) -> None:
        """What ends an answer otherwise; what workflows tell besides is passed over."""
        if not self.event:
            # JSON instead of a stream is an error, whatever its HTTP status.
            raise explain(read_trouble(body), self.discretion)
        if self.event in FAILED:
            raise explain(read_trouble(body.get("last_error") or {}), self.discretion)
        if self.event == "conversation.chat.requires_action":
            said = "the workflow waits for an action that nobody here can do"
            raise self.discretion.fault("bad_request", said)
        if self.event == "done":
            if not self.whole:
                raise self.discretion.fault("truncated", "done was said before the chat was")
            self.over = True

    def _read_piece(self, body: dict[str, Any]) -> Iterator[ProviderEvent]:
        if body.get("type") != "answer":
            return
        self._heard.add(_text(body.get("id")))
        if thought := _text(body.get("reasoning_content")):
            yield ReasoningDelta(thought)
        if text := _text(body.get("content")):
            yield TextDelta(text)

    def _read_message(self, body: dict[str, Any]) -> Iterator[ProviderEvent]:
        """A whole message repeats its pieces; it counts only where there were none."""
        known = _text(body.get("id")) in self._heard or "" in self._heard
        text = _text(body.get("content"))
        if body.get("type") == "answer" and text and not known:
            yield TextDelta(text)


def _read_usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        prompt=count(usage.get("input_count")), completion=count(usage.get("output_count"))
    )


def _text(value: Any) -> str:
    """A text. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, str):
        raise TypeError(type(value))
    return value or ""
