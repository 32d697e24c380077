"""The model that is always there: it says again what was said to it last, and no more.

Nothing is asked of anybody, so it shows how everything around models works without one.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from actors.models.events import (
    Call,
    Counted,
    Ended,
    ProviderEvent,
    ReasoningDelta,
    Started,
    TextDelta,
)
from schemas.model import Attachment, Image, Text, Usage, Utterance

THOUGHT = "The last message is to be repeated."
NOTHING = "(nothing was said)"
_PIECE = re.compile(r"\S{1,8}\s*|\s+")
"""A word with the space behind it; longer ones, and languages without spaces, in parts."""


class Echo:
    """Repeats the last user message word by word; each piece counts as a token.

    Of `extra` it knows `rate` (tokens per second; without it there is no wait), `delay` (seconds
    before the first) and `reasoning` (true, or the text to think first).
    """

    async def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        """Yield as a provider would, the setting `max_tokens` included."""
        pace = _Pace(call.extra)
        await pace.begin()
        yield Started()
        thought = call.extra.get("reasoning", "")
        thinking = _pieces(THOUGHT if thought is True else str(thought or ""))
        for piece in thinking:
            await pace.wait()
            yield ReasoningDelta(piece)
        answer = _pieces(_last_said(call.messages))
        most = _most(call.settings)
        said = answer if most is None else answer[: max(most - len(thinking), 0)]
        for piece in said:
            await pace.wait()
            yield TextDelta(piece)
        prompt = sum(len(_pieces(_text_of(one))) for one in call.messages)
        completion = len(thinking) + len(said)
        yield Counted(Usage(prompt=prompt, completion=completion, reasoning=len(thinking)))
        yield Ended("stop" if len(said) == len(answer) else "length")

    async def close(self) -> None:
        """There is nothing to close."""


class _Pace:
    """When the next piece is due: by the clock, so that no delay adds up."""

    def __init__(self, extra: dict[str, Any]) -> None:
        self._gap = 1 / extra["rate"] if extra.get("rate") else 0.0
        self._delay = float(extra.get("delay", 0))
        self._due = 0.0

    async def begin(self) -> None:
        if self._delay:
            await asyncio.sleep(self._delay)
        self._due = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        if self._gap:
            self._due += self._gap
            await asyncio.sleep(max(self._due - asyncio.get_running_loop().time(), 0))


def check_extra(extra: dict[str, Any]) -> None:
    """Raise ValueError unless these are what Echo knows."""
    for name, value in extra.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in ("rate", "delay"):
            if not number or not 0 <= value <= 100_000:
                raise ValueError(f"extra.{name}: {value!r}: expected a number from 0 to 100000")
        elif name == "reasoning":
            if not isinstance(value, bool | str):
                raise ValueError(f"extra.reasoning: {value!r}: expected true, false or a text")
        else:
            raise ValueError(f"extra.{name}: echo knows rate, delay and reasoning")


def _pieces(text: str) -> list[str]:
    return _PIECE.findall(text)


def _last_said(messages: tuple[Utterance, ...]) -> str:
    """What the last user message says, and a line for each file in it."""
    said = next((one for one in reversed(messages) if one.role == "user"), None)
    if said is None:
        return NOTHING
    return "\n".join(part for part in (_text_of(said), *_files_of(said)) if part) or NOTHING


def _text_of(message: Utterance) -> str:
    return "".join(part.text for part in message.content if isinstance(part, Text))


def _files_of(message: Utterance) -> Iterator[str]:
    for part in message.content:
        if isinstance(part, Image | Attachment) and part.file is not None:
            file = part.file
            yield f"[{file.name or file.id}, {file.media}, {file.size} bytes]"


def _most(settings: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        if isinstance(most := settings.get(name), int):
            return most
    return None
