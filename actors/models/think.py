"""Tells thoughts from answer where a model writes both into one text: <think>…</think>.

Tags count only before the answer begins; in an answer they are what it talks about.
"""

import re
from collections.abc import Iterator
from typing import Literal, TypeAlias

OPENING = "<think>"
CLOSING = "</think>"

Thinks: TypeAlias = Literal["tags", "opened", "never"]
"""What to expect of a text: thoughts in tags, if any; thoughts from its very first character,
whose opening tag is in the model's template; or no thoughts."""
Kind: TypeAlias = Literal["text", "reasoning"]
Piece: TypeAlias = tuple[Kind, str]

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.S)


class ThinkSplitter:
    """Takes a text in any pieces. Holds back only what may be the beginning of a tag, and white
    space around thoughts, which is dropped."""

    def __init__(self, thinks: Thinks = "tags") -> None:
        self._steps = {
            "before": self._begin,
            "entering": self._enter,
            "thinking": self._think,
            "answering": self._answer,
        }
        self._place = {"never": "answering", "tags": "before", "opened": "entering"}[thinks]
        self._opened = thinks == "opened"
        """Whether all that came is thoughts only because they were expected."""
        self._tag_may_come = self._opened
        self._thought: list[str] = []
        self._after_thought = False
        self._held = ""

    def feed(self, text: str) -> Iterator[Piece]:
        """Take a piece; gives what is certain of it."""
        self._held += text
        place = ""
        while place != self._place:
            place = self._place
            yield from self._steps[place]()

    def end(self, *, complete: bool = True) -> Iterator[Piece]:
        """No more will come; `complete` if the model ended by itself.

        Thoughts that were only expected, and never closed, were the answer after all.
        """
        held, self._held = self._held, ""
        if self._place in ("before", "answering"):
            yield from _piece("text", held.lstrip() if self._after_thought else held)
            return
        yield from self._note(held)
        if self._opened and complete:
            yield from _piece("text", "".join(self._thought))

    def _begin(self) -> Iterator[Piece]:
        """Where white space, a tag or the answer may be."""
        text = self._held.lstrip()
        if text.startswith(OPENING):
            self._held, self._place = text[len(OPENING) :], "entering"
        elif not OPENING.startswith(text):
            self._held, self._place = text if self._after_thought else self._held, "answering"
        return iter(())

    def _enter(self) -> Iterator[Piece]:
        """Behind a tag, or where one was left out, and may be there nevertheless."""
        self._held = self._held.lstrip()
        if self._tag_may_come:
            if len(self._held) < len(OPENING) and OPENING.startswith(self._held):
                return iter(())
            self._tag_may_come = False
            self._held = self._held.removeprefix(OPENING).lstrip()
        if self._held:
            self._place = "thinking"
        return iter(())

    def _think(self) -> Iterator[Piece]:
        thought, tag, rest = self._held.partition(CLOSING)
        if tag:
            self._held, self._place = rest, "before"
            self._opened, self._after_thought = False, True
        else:
            kept = _overlap(thought, CLOSING)
            thought, self._held = thought[: len(thought) - kept], thought[len(thought) - kept :]
        yield from self._note(thought)

    def _note(self, thought: str) -> Iterator[Piece]:
        if self._opened:
            self._thought.append(thought)
        yield from _piece("reasoning", thought)

    def _answer(self) -> Iterator[Piece]:
        text, self._held = self._held, ""
        yield from _piece("text", text)


def split_whole(text: str, thinks: Thinks = "tags") -> tuple[str, str]:
    """Thoughts and answer of a text that is there as a whole.

    A closing tag without an opening one ends thoughts, unless it stands in code.
    """
    if thinks == "tags" and not text.lstrip().startswith(OPENING):
        code = [found.span() for found in _CODE.finditer(text)]
        place = text.find(CLOSING)
        if place >= 0 and not any(start <= place < end for start, end in code):
            thinks = "opened"
    if thinks == "opened" and CLOSING not in text:
        thinks = "never"
    splitter = ThinkSplitter(thinks)
    pieces = [*splitter.feed(text), *splitter.end()]
    return _join(pieces, "reasoning"), _join(pieces, "text")


def _join(pieces: list[Piece], kind: Kind) -> str:
    return "".join(text for each, text in pieces if each == kind)


def _piece(kind: Kind, text: str) -> Iterator[Piece]:
    if text:
        yield kind, text


def _overlap(text: str, tag: str) -> int:
    """How many characters at the end of a text may be the beginning of a tag."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0
