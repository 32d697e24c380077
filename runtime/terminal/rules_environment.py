"""What the environment says of the rules by which a person is called.

What is configured goes before: an option `regulator` of the session's own.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from runtime.actor_table import ActorTable
from runtime.errors import ConfigError
from runtime.source import quote
from schemas.conversation import SESSION
from schemas.regulator import Rule, Ruleset

log = structlog.get_logger()

SESSION_TYPE = "actors.session:Session"
KEYWORDS = "REGULATOR_KEYWORDS"
FAILURES = "REGULATOR_AI_FAIL_KEYWORDS"
THRESHOLD = "REGULATOR_FAIL_THRESHOLD"
RULES = (KEYWORDS, FAILURES, THRESHOLD)


def with_rules(tables: list[ActorTable], environ: Mapping[str, str]) -> list[ActorTable]:
    """The tables, the session among them with the environment's rules unless it has its own.

    Raises ConfigError for rules that cannot be.
    """
    ruleset = read_rules(environ)
    if ruleset is None:
        return tables
    if not any(_is_session(one) for one in tables):
        log.warning("rules_without_session", expected=f'an actor of the type "{SESSION_TYPE}"')
    return [
        replace(one, options={"regulator": ruleset, **one.options}) if _is_session(one) else one
        for one in tables
    ]


def read_rules(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """A ruleset as a session's options have it; None if the environment says nothing of one.

    It is the one that is shipped, with other words and another threshold. Raises ConfigError
    that names the variables.
    """
    given = {name: environ.get(name, "").strip() for name in RULES}
    if not any(given.values()):
        return None
    try:
        changed = [_change(rule, given) for rule in Ruleset().rules]
        found: dict[str, Any] = msgspec.to_builtins(Ruleset(rules=tuple(changed)))
    except ValueError as error:
        raise ConfigError(f"{', '.join(RULES)}: {error}") from None
    return found


def _change(rule: Rule, given: Mapping[str, str]) -> Rule:
    if rule.kind == "words":
        return replace(rule, words=_split(given[KEYWORDS]) or rule.words)
    if rule.kind == "failures":
        words = _split(given[FAILURES]) or rule.words
        return replace(rule, words=words, threshold=_read_threshold(given[THRESHOLD], rule))
    return rule


def _is_session(table: ActorTable) -> bool:
    return table.name == SESSION and table.type == SESSION_TYPE


def _read_threshold(text: str, rule: Rule) -> int:
    if not text:
        return rule.threshold
    if not re.fullmatch("[0-9]{1,6}", text):
        raise ConfigError(f"{THRESHOLD}: {quote(text)}: expected a number, such as 3")
    return int(text)


def _split(text: str) -> tuple[str, ...]:
    """Words between commas of either width; a space may be part of one."""
    return tuple(one.strip() for one in re.split("[,，;；、]", text) if one.strip())  # both widths
