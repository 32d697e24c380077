"""The rules that the environment seeds, and which of them go before."""

from typing import Any

import msgspec
import pytest

from runtime.actor_table import ActorTable
from runtime.errors import ConfigError
from runtime.system import load_class
from runtime.terminal.manifest import deployment_of
from runtime.terminal.rules_environment import SESSION_TYPE, read_rules, with_rules
from schemas.regulator import FAILURE_WORDS, KEYWORDS, Ruleset

GIVEN = {"REGULATOR_KEYWORDS": "真人， real person ,help", "REGULATOR_FAIL_THRESHOLD": "2"}


def session(name: str = "session", **options: Any) -> ActorTable:
    return ActorTable(name=name, type=SESSION_TYPE, options=options)


def rules_of(table: ActorTable) -> Ruleset:
    deployment = deployment_of(table, load_class(table.name, table.type))
    return msgspec.convert(deployment.options["regulator"], Ruleset)


@pytest.mark.promise("FD-56", "FD-57")
def test_the_environment_changes_the_words_and_the_number_of_what_is_shipped() -> None:
    (found,) = with_rules([session(turns=5)], GIVEN)
    vip, keywords, failures = rules_of(found).rules

    assert found.options["turns"] == 5
    assert vip == Ruleset().rules[0]
    assert keywords.words == ("真人", "real person", "help")
    assert (failures.words, failures.threshold) == (FAILURE_WORDS, 2)


def test_failure_words_alone_leave_the_others_as_they_are() -> None:
    (found,) = with_rules([session()], {"REGULATOR_AI_FAIL_KEYWORDS": "sorry"})
    _, keywords, failures = rules_of(found).rules

    assert (keywords.words, failures.words, failures.threshold) == (KEYWORDS, ("sorry",), 3)


def test_what_is_configured_goes_before_and_others_are_left_alone() -> None:
    own = session(regulator={"version": "own"})
    other = session("completion")

    assert with_rules([own, other], GIVEN) == [own, other]
    assert with_rules([session()], {"REGULATOR_KEYWORDS": " "}) == [session()]
    assert read_rules({}) is None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("REGULATOR_FAIL_THRESHOLD", "many", "'many': expected a number, such as 3"),
        ("REGULATOR_FAIL_THRESHOLD", "0", "threshold 0: expected 1 to 100"),
        ("REGULATOR_KEYWORDS", "x" * 101, "has more than 100 characters"),
    ],
)
def test_rules_that_cannot_be_are_refused_with_the_variables(
    name: str, value: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_rules({name: value})

    assert name in str(refused.value)
    assert reason in str(refused.value)
