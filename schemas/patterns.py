"""Patterns that cannot take long: regular expressions whose worst case is counted beforehand.

What is counted are the steps of a backtracking matcher from one place of a text, if every
attempt fails as late as it can.
"""

import importlib
import re
import unicodedata
from typing import Any, NamedTuple

MOST_MATCHED = 1000
"""Characters of a text in which patterns are looked for."""
MOST_STEPS = 20_000
"""From each place of the text, for all patterns of a ruleset together."""
LONGEST_PATTERN = 200

# The standard library's own reader: a second one would understand patterns a little differently.
_reader: Any = importlib.import_module("re._parser")

_ONE = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "CATEGORY"})
_STRANGE = {
    "ASSERT": "looks ahead or behind",
    "ASSERT_NOT": "looks ahead or behind",
    "GROUPREF": "refers back to a group",
    "GROUPREF_EXISTS": "refers back to a group",
    "ATOMIC_GROUP": "has an atomic group",
    "POSSESSIVE_REPEAT": "has a possessive quantifier",
}
TOO_MANY = "has too many ways to fit: use at most one * or +, else {0,20}, and none inside another"


class _Cost(NamedTuple):
    """In how many `ways` something may fit, and after how many `steps` all of them have failed."""

    ways: int
    steps: int


class Pattern(NamedTuple):
    """A pattern that is ready to be looked for, and what it costs."""

    text: str
    compiled: re.Pattern[str]
    steps: int


def read_pattern(text: str) -> Pattern:
    """Read a pattern. Raises ValueError for one that is none, or may take long."""
    if not text or len(text) > LONGEST_PATTERN:
        raise ValueError(f"has {len(text)} characters, expected 1 to {LONGEST_PATTERN}")
    plain = unicodedata.normalize("NFKC", text)
    if plain != text:
        raise ValueError(f"write it as {plain!r}: so it is compared with what is said")
    try:
        steps = _sequence(_reader.parse(text, re.IGNORECASE)).steps
        compiled = re.compile(text, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if compiled.search(""):
        raise ValueError("would fit every text")
    return Pattern(text, compiled, steps)


def _sequence(items: Any) -> _Cost:
    """Each way of an item is tried with all that follow it."""
    ways = steps = 1
    for operation, argument in items:
        cost = _item(str(operation), argument)
        steps += ways * cost.steps
        ways *= cost.ways
        _check(_Cost(ways, steps))
    return _Cost(ways, steps)


def _item(operation: str, argument: Any) -> _Cost:
    if operation in _ONE:
        return _Cost(1, 1)
    if operation == "SUBPATTERN":
        return _sequence(argument[-1])
    if operation == "BRANCH":
        found = [_sequence(each) for each in argument[1]]
        return _Cost(sum(one.ways for one in found), sum(one.steps for one in found))
    if operation in ("MAX_REPEAT", "MIN_REPEAT"):
        return _repeat(*argument)
    raise ValueError(_STRANGE.get(operation, "is not understood") + ", which is not taken here")


def _repeat(least: int, most: int, body: Any) -> _Cost:
    """As many ways as there are numbers of repetitions, each with all the ways of the body."""
    one = _sequence(body)
    most = min(int(most), MOST_MATCHED)
    ways = steps = 0
    each = 1
    for number in range(most + 1):
        ways += each if number >= least else 0
        if number < most:
            steps += each * one.steps
            each *= one.ways
        _check(_Cost(ways, steps))
    return _Cost(max(ways, 1), steps)


def _check(cost: _Cost) -> None:
    if max(cost) > MOST_STEPS:
        raise ValueError(TOO_MANY)
