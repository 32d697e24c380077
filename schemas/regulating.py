"""Tells from what is said, and from how answers end, whether a person is to be called.

Pure: the same rules fire in a conversation and when a ruleset is tried on recorded ones.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import msgspec

from schemas.conversation import TaskEnded
from schemas.model import Text, Utterance
from schemas.ownership import IN_MANUAL, MOST_EVIDENCE, Cause, Customer, Escalation
from schemas.patterns import MOST_MATCHED, Pattern, read_pattern
from schemas.regulator import Rule, Ruleset, plain

MOST_HEARD = 8 * 1024
"""Characters of what is said in which words are looked for."""
AROUND = 200
"""Characters of evidence on either side of what fired, in a text that is too long to keep."""
NOBODYS_FAULT = frozenset({"aborted", "superseded", IN_MANUAL})
"""Why a task ended without an answer that no model owed."""


class Count(NamedTuple):
    """How many answers in a row have failed by now, and whether these are enough."""

    failures: int
    escalation: Escalation | None = None


class _Found(NamedTuple):
    """What of a rule fits a text, and where it begins in it."""

    what: str
    at: int


class _Ready:
    """A rule, ready to be applied."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.patterns: tuple[Pattern, ...] = tuple(read_pattern(one) for one in rule.patterns)
        self._words = tuple((word, plain(word)) for word in rule.words)
        self._unless = tuple(plain(word) for word in rule.unless)

    def is_for(self, customer: Customer) -> bool:
        """Whether it is for customers of this language; for all whose language is not known."""
        wanted, spoken = self.rule.language.lower(), customer.language.lower().replace("_", "-")
        return not (wanted and spoken) or f"{spoken}-".startswith(f"{wanted}-")

    def find_word(self, heard: str) -> _Found | None:
        """The first of its words that is in a text."""
        found = ((word, heard.find(folded)) for word, folded in self._words)
        return next((_Found(word, at) for word, at in found if at >= 0), None)

    def find_pattern(self, text: str) -> _Found | None:
        """The first of its patterns that fits a text."""
        for pattern in self.patterns:
            if match := pattern.compiled.search(text[:MOST_MATCHED]):
                return _Found(pattern.text, match.start())
        return None

    def is_kept(self, heard: str) -> bool:
        """Whether a text has a word that keeps the rule from firing."""
        return any(word in heard for word in self._unless)


class Regulator:
    """The rules of one ruleset, tried in their order."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.version = ruleset.version or version_of(ruleset)
        self._rules = () if ruleset.switched_off else tuple(_Ready(one) for one in ruleset.rules)

    def on_said(self, text: str, customer: Customer) -> Escalation | None:
        """Why a person is called by what a customer says; None if nobody is."""
        heard = plain(text[:MOST_HEARD])[:MOST_HEARD]
        shape = unicodedata.normalize("NFKC", text[:MOST_MATCHED])
        for ready in self._for(customer, "vip", "words"):
            if ready.is_kept(heard):
                continue
            if ready.rule.kind == "vip":
                if customer.vip:
                    return self._call(ready, "vip", "the customer is a VIP", text)
            elif found := ready.find_word(heard):
                said = f"the customer said {found.what!r}"
                return self._call(ready, "keyword", said, _evidence(text, heard, found.at))
            elif found := ready.find_pattern(shape):
                said = f"what the customer said fits {found.what!r}"
                return self._call(ready, "rule", said, _evidence(text, shape, found.at))
        return None

    def on_ended(self, ended: TaskEnded, failures: int, customer: Customer) -> Count:
        """How many answers have failed in a row with this one, and why that calls a person."""
        if ended.code in NOBODYS_FAULT:
            return Count(failures)
        ready = next(iter(self._for(customer, "failures")), None)
        why = _failure(ready, ended)
        if not why:
            return Count(0)
        failures += 1
        if ready is None or failures < ready.rule.threshold:
            return Count(failures)
        text = f"{failures} answers in a row were none: the last {why}"
        evidence = ended.excerpt or ended.code or ended.outcome
        return Count(failures, self._call(ready, "fail_loop", text, evidence))

    def _for(self, customer: Customer, *kinds: str) -> Iterable[_Ready]:
        return (one for one in self._rules if one.rule.kind in kinds and one.is_for(customer))

    def _call(self, ready: _Ready, reason: Cause, details: str, evidence: str) -> Escalation:
        return Escalation(
            reason=reason,
            severity=ready.rule.severity,
            rule=ready.rule.name,
            version=self.version,
            evidence=evidence[:MOST_EVIDENCE],
            details=details,
        )


def words_of(said: Utterance) -> str:
    """What a message says, without its files."""
    return "\n".join(part.text for part in said.content if isinstance(part, Text))


def version_of(ruleset: Ruleset) -> str:
    """What a ruleset without a version is called: by what it says, however that was written."""
    said = msgspec.json.encode(ruleset.rules, order="deterministic")
    return hashlib.sha256(said).hexdigest()[:12]


@lru_cache(maxsize=32)
def regulator_of(ruleset: Ruleset) -> Regulator:
    """The regulator of a ruleset, made once."""
    return Regulator(ruleset)


def _failure(ready: _Ready | None, ended: TaskEnded) -> str:
    """In which way an answer is none; nothing if it is good."""
    if ended.outcome != "answered":
        return f"was {ended.outcome}" if ended.outcome == "refused" else "failed"
    heard = plain(ended.excerpt)
    found = ready.find_word(heard) if ready and not ready.is_kept(heard) else None
    return f"says {found.what!r}" if found else ""


def _evidence(text: str, looked: str, at: int) -> str:
    """The text itself, or what stands around the place in the form it was looked at."""
    if len(text) <= MOST_EVIDENCE:
        return text
    return looked[max(at - AROUND, 0) : at + AROUND]
