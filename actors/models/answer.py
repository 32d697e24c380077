"""What has come of an answer so far, and how much of it is kept."""

from dataclasses import dataclass, field

import msgspec

from actors.models.events import (
    Counted,
    Ended,
    InThread,
    ProviderEvent,
    ReasoningDelta,
    Refusal,
    TextDelta,
    ToolDelta,
)
from schemas.model import MOST_TEXT, Finish, ToolCall, Usage
from schemas.record import Delta

MOST_BYTES = 352 * 1024
"""Of text and calls as JSON: an answer is one message, and these have an end."""
MOST_REASONING = 96 * 1024
"""The same of reasoning; more is said while it comes, but not kept."""
MOST_THOUGHT = 4 * MOST_TEXT
"""Characters of reasoning with which an answer ends, for it may have none."""


AT_ONCE = 512
"""Pieces that are held as they came."""


class _Text:
    """A text in pieces, joined now and then: as many small ones take ten times its room."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        if len(self._pieces) > AT_ONCE:
            self._pieces = [str(self)]

    def __str__(self) -> str:
        return "".join(self._pieces)


@dataclass
class _Call:
    call: str = ""
    name: str = ""
    arguments: _Text = field(default_factory=_Text)


class Answer:
    """Gathers the events of one answer. `finish` is what the provider said, or `length`."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.finish: Finish = "stop"
        self.refusal = ""
        self.thread = ""
        self.full = False
        self._text = _Text()
        self._reasoning = _Text()
        self._calls: dict[int, _Call] = {}
        self._characters = self._thought = 0
        self._bytes = self._kept = 0

    @property
    def text(self) -> str:
        """The answer itself."""
        return str(self._text)

    @property
    def reasoning(self) -> str:
        """What was thought, as far as it is kept."""
        return str(self._reasoning)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in the provider's order."""
        return tuple(
            ToolCall(id=one.call, name=one.name, arguments=str(one.arguments) or "{}")
            for _, one in sorted(self._calls.items())
        )

    def take(self, event: ProviderEvent) -> Delta | None:
        """Keep an event; returns what is to be said of it. `full` says that it was the last."""
        if isinstance(event, TextDelta):
            return self._take_text(event.text)
        if isinstance(event, ReasoningDelta):
            return self._take_reasoning(event.text)
        if isinstance(event, ToolDelta):
            return self._take_call(event)
        if isinstance(event, Counted):
            self.usage = event.usage
        elif isinstance(event, InThread):
            self.thread = event.id
        elif isinstance(event, Ended):
            self.finish = "content_filter" if self.refusal else event.finish
        elif isinstance(event, Refusal):
            self.finish, self.refusal = "content_filter", event.reason or "the provider refused"
        return None

    def _take_text(self, text: str) -> Delta | None:
        fitting = _cut(text[: MOST_TEXT - self._characters], MOST_BYTES - self._bytes)
        self._text.add(fitting)
        self._characters += len(fitting)
        self._bytes += _size(fitting)
        if fitting != text:
            self._end()
        return Delta(text=fitting) if fitting else None

    def _take_reasoning(self, text: str) -> Delta | None:
        self._thought += len(text)
        size = _size(text)
        if self._kept + size <= MOST_REASONING:
            self._reasoning.add(text)
        self._kept += size
        if self._thought >= MOST_THOUGHT:
            self._end()
        return Delta(text=text, kind="reasoning") if text else None

    def _take_call(self, event: ToolDelta) -> Delta | None:
        self._bytes += _size(event.text + event.name + event.call) + 64
        if self._bytes > MOST_BYTES:
            # Half a call is none.
            self._calls.pop(event.index, None)
            self._end()
            return None
        one = self._calls.setdefault(event.index, _Call())
        one.call, one.name = event.call or one.call, event.name or one.name
        one.arguments.add(event.text)
        return Delta(
            text=event.text, kind="tool", index=event.index, call=event.call, name=event.name
        )

    def _end(self) -> None:
        self.full, self.finish = True, "length"


def _cut(text: str, most: int) -> str:
    """As much of a text as takes at most so many bytes, or a little less."""
    while text and (size := _size(text)) > most:
        text = text[: len(text) * max(most, 0) // size]
    return text


def _size(text: str) -> int:
    """Bytes of a text as JSON. A lone surrogate, which is no text, cannot come from JSON."""
    return len(msgspec.json.encode(text))
