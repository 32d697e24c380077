"""When a person is called without anybody asking for one: rules, as data.

A ruleset is an option of the session's deployment, so it changes without a restart; each
escalation names the rule, the version and the evidence.
"""

from typing import Literal

import msgspec

from schemas.ownership import Severity

MOST_RULES = 64
MOST_WORDS = 500
LONGEST_WORD = 100

KEYWORDS = ("人工", "真人", "客服", "投诉", "无法解决", "转人工", "接人工")
FAILURE_WORDS = ("抱歉", "很抱歉", "无法", "不清楚", "不太清楚", "无法回答", "不能确定")
THRESHOLD = 3


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One rule; rules are tried in their order, the first that fires calls a person.

    `vip` fires for a VIP. `words` fires when what the customer says has one of `words` (case and
    width do not matter) or matches one of `patterns` (re2-like: no backtracking to speak of).
    `failures` fires after `threshold` answers in a row that failed, were refused or have one of
    `words`; a good answer begins the count anew. `unless` are words that keep a rule from firing.
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
