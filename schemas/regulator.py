"""When a person is called without anybody asking for one: rules, as data.

A ruleset is an option of the session's deployment, so it changes without a restart; each
escalation names the rule, the version and the evidence.
"""

import re
import unicodedata
from typing import Literal

import msgspec

from schemas.ownership import Severity
from schemas.patterns import MOST_STEPS, read_pattern

MOST_RULES = 64
MOST_WORDS = 500
MOST_WORDS_IN_ALL = 5000
"""Of a ruleset: each is looked for in every message, while others wait."""
LONGEST_WORD = 100
MOST_PATTERNS = 50
MOST_THRESHOLD = 100

KEYWORDS = ("人工", "真人", "客服", "投诉", "无法解决", "转人工", "接人工")
FAILURE_WORDS = ("抱歉", "很抱歉", "无法", "不清楚", "不太清楚", "无法回答", "不能确定")
THRESHOLD = 3

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,4}")


def plain(text: str) -> str:
    """A text as words are looked for in it: neither width nor case matters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded)


def _check_words(which: str, words: tuple[str, ...]) -> None:
    if len(words) > MOST_WORDS:
        raise ValueError(f"{len(words)} {which}, expected at most {MOST_WORDS}")
    for word in words:
        if not plain(word).strip():
            raise ValueError(f"{which}: an empty one would fit every text; remove it")
        if len(word) > LONGEST_WORD:
            raise ValueError(f"{which}: {word[:40]!r}… has more than {LONGEST_WORD} characters")


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One rule; rules are tried in their order, the first that fires calls a person.

    `vip` fires for a VIP. `words` fires when what the customer says has one of `words` (case and
    width do not matter) or matches one of `patterns` (which cannot take long: schemas/patterns.py).
    `failures` fires after `threshold` answers in a row that failed, were refused or have one of
    `words`; a good answer begins the count anew. `unless` are words that keep a rule from firing.
    Of several `failures` the first that is for the customer's language counts.
    """

    name: str
    kind: Literal["vip", "words", "failures"]
    words: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    threshold: int = THRESHOLD
    severity: Severity = "medium"
    language: str = ""
    """Only for customers of this language, if it is known; all if it is empty."""

    def __post_init__(self) -> None:
        try:
            self._check_sense()
            self._check_texts()
        except ValueError as error:
            raise ValueError(f"rule {self.name[:40]!r}: {error}") from None

    def _check_sense(self) -> None:
        if not (1 <= len(self.name) <= LONGEST_WORD and self.name.isprintable()):
            raise ValueError(f"a name has 1 to {LONGEST_WORD} characters, all of them printable")
        if self.kind == "words" and not (self.words or self.patterns):
            raise ValueError("fires on nothing; give it words or patterns")
        if self.kind != "words" and self.patterns:
            raise ValueError(
                f'patterns mean nothing to the kind "{self.kind}"; use the kind "words"'
            )
        if self.kind == "vip" and self.words:
            raise ValueError('words mean nothing to the kind "vip"; use the kind "words"')
        if not 1 <= self.threshold <= MOST_THRESHOLD:
            raise ValueError(f"threshold {self.threshold}: expected 1 to {MOST_THRESHOLD}")

    def _check_texts(self) -> None:
        if self.language and not _LANGUAGE.fullmatch(self.language):
            raise ValueError(f"language {self.language[:40]!r}: expected one such as zh or en-GB")
        for which in ("words", "unless"):
            _check_words(which, getattr(self, which))
        if len(self.patterns) > MOST_PATTERNS:
            raise ValueError(f"{len(self.patterns)} patterns, expected at most {MOST_PATTERNS}")
        for text in self.patterns:
            try:
                read_pattern(text)
            except ValueError as error:
                raise ValueError(f"pattern {text[:80]!r} {error}") from None


class Ruleset(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The rules of a desk. `version` is what an escalation quotes; empty means a hash of it."""

    version: str = ""
    rules: tuple[Rule, ...] = (
        Rule(name="vip", kind="vip", severity="high"),
        Rule(name="keywords", kind="words", words=KEYWORDS, severity="high"),
        Rule(name="failures", kind="failures", words=FAILURE_WORDS),
    )
    switched_off: bool = False

    def __post_init__(self) -> None:
        if len(self.rules) > MOST_RULES:
            raise ValueError(f"{len(self.rules)} rules, expected at most {MOST_RULES}")
        names = [rule.name for rule in self.rules]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two rules are called {twice!r}; give each a name of its own")
        if len(self.version) > LONGEST_WORD or not self.version.isprintable():
            raise ValueError(f"version {self.version[:40]!r}: at most {LONGEST_WORD} characters")
        words = sum(len(rule.words) + len(rule.unless) for rule in self.rules)
        if words > MOST_WORDS_IN_ALL:
            raise ValueError(
                f"the rules have {words} words in all, expected at most {MOST_WORDS_IN_ALL}"
            )
        steps = sum(read_pattern(one).steps for rule in self.rules for one in rule.patterns)
        if steps > MOST_STEPS:
            raise ValueError(
                f"the patterns of all rules may take {steps} steps, expected at most {MOST_STEPS};"
                " use fewer, or {0,20} instead of *"
            )
