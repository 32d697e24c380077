"""What a fake upstream says if nothing goes wrong, and for whom."""

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from actors.fakes.frames import Answer
from actors.fakes.ledger import Asked
from actors.fakes.switches import number

Text: TypeAlias = str | Sequence[str] | Callable[[Asked], str | Sequence[str]]
THOUGHTS = ("The user ", "wants ", "an answer.")
WIDE = ("é ", "你好", " 🙂")
CREATED = 1769904000


@dataclass(frozen=True)
class Script:
    """`text` is the answer, or its pieces, or what makes them from the request; without one it
    is what the user said last. With `models` there are no others; with a `key` it is asked for."""

    text: Text = ""
    models: tuple[str, ...] = ()
    key: str = ""


class Provider(Protocol):
    """One provider's wire. `base` is the path of its base URL, `menu` its own faults."""

    base: str
    menu: dict[str, str]

    def model_of(self, asked: Asked) -> str | None:
        """The model that is asked, with its switches; None if the request is for something else."""
        ...

    def answer(self, asked: Asked) -> Answer:
        """What comes if nothing goes wrong, or this provider's own faults."""
        ...

    def part_of(self, asked: Asked) -> str:
        """What the menu calls the part of the wire that a request for something else is for."""
        ...

    def failure(self, asked: Asked, status: int, hint: str = "", message: str = "") -> Answer:
        """This provider's error of a status, with a hint when to try again."""
        ...


def pieces(asked: Asked, script: Script, said: str) -> Iterator[str]:
    """The pieces of an answer, made as they are sent. `said` is what the user said last."""
    switches = asked.switches
    if "stamp" in switches:
        made: Iterator[str] = (f"{time.monotonic_ns()} " for _ in itertools.count())
        return itertools.islice(made, _most(asked, 100))
    if "tokens" in switches:
        made = (f"word{place} " for place in itertools.count(1))
        return itertools.islice(made, _most(asked, 100))
    text = script.text(asked) if callable(script.text) else script.text
    parts = cut(text or f"You said: {said}") if isinstance(text, str) else list(text)
    if "utf8" in switches and "".join(parts).isascii():
        parts += WIDE
    return itertools.cycle(parts) if "endless" in switches else iter(parts)


def cut(text: str) -> list[str]:
    """A text in pieces of a word each."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def _most(asked: Asked, default: float) -> int | None:
    return None if "endless" in asked.switches else int(number(asked.switches, "tokens", default))
