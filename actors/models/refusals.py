"""Which answers are polite refusals: by phrases per language, from config/refusals.toml.

A good answer may hold such words as well, so they count only where they are what is said.
"""

import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

FILE = Path(__file__).parents[2] / "config" / "refusals.toml"
SHORT = 300
"""Characters of an answer in which a phrase counts wherever it is."""
BEGINNING = 60
"""Characters of a longer one within which a phrase must begin."""
SHOWN = 120
QUOTES = "\"'`“‘«‹「『《"
OWN = "own"
"""What the phrases of a deployment's options are called instead of a language."""


class RefusalOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which answers count as refusals: those of the file in the `languages` named (none: all of
    them) and the `phrases` besides; with `only`, none but these."""

    languages: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    only: bool = False

    def __post_init__(self) -> None:
        known = languages()
        for one in self.languages:
            if one not in known:
                raise ValueError(f"languages: {one!r}: expected some of {', '.join(sorted(known))}")
        if not all(_plain(phrase) for phrase in self.phrases):
            raise ValueError("phrases: an empty one would fit every answer")


@dataclass(frozen=True)
class Rule:
    """A phrase as it is looked for, and as it was written."""

    language: str
    phrase: str
    plain: str


@dataclass(frozen=True)
class Found:
    """Which rule fired, on which piece of the answer."""

    rule: Rule
    text: str

    def __str__(self) -> str:
        return f"refusal rule {self.rule.language}: {self.rule.phrase!r} in {self.text!r}"


class Refusals:
    """The rules of one deployment."""

    def __init__(self, options: bool | RefusalOptions) -> None:
        """True: all of the file; False: none."""
        self._rules = tuple(_rules(options))

    def find(self, answer: str) -> Found | None:
        """The first rule that says that an answer is a refusal, or None."""
        head = _plain(answer[: 4 * SHORT])
        reach = len(head) if len(head) <= SHORT else BEGINNING
        for rule in self._rules:
            at = head.find(rule.plain)
            while 0 <= at < reach:
                if not (at and head[at - 1] in QUOTES):
                    start = max(at - SHOWN // 4, 0)
                    return Found(rule, head[start : start + SHOWN])
                at = head.find(rule.plain, at + 1)
        return None


def languages() -> frozenset[str]:
    """Those that the file has phrases of."""
    return frozenset(_read())


@cache
def _read() -> dict[str, tuple[str, ...]]:
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {language: tuple(table["phrases"]) for language, table in tables.items()}


def _rules(options: bool | RefusalOptions) -> list[Rule]:
    if options is False:
        return []
    given = options if isinstance(options, RefusalOptions) else RefusalOptions()
    known = _read()
    wanted = () if given.only else given.languages or tuple(known)
    pairs = [(OWN, phrase) for phrase in given.phrases]
    pairs += [(language, phrase) for language in wanted for phrase in known[language]]
    return [Rule(language, phrase, _plain(phrase)) for language, phrase in pairs]


def _plain(text: str) -> str:
    """A text without what differs between ways of writing it."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join(text.split())
