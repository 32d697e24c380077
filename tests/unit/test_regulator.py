"""When a person is called: which rule fires on what, and which rules are refused."""

from typing import Any

import msgspec
import pytest

from actors.session import Session
from runtime.actor import read_options
from runtime.errors import ConfigError
from schemas.conversation import TaskEnded
from schemas.ownership import IN_MANUAL, MOST_EVIDENCE, Customer
from schemas.patterns import MOST_MATCHED, read_pattern
from schemas.regulating import Regulator, version_of
from schemas.regulator import FAILURE_WORDS, KEYWORDS, Rule, Ruleset

ANYBODY = Customer()


def of(*rules: Rule, **more: Any) -> Regulator:
    return Regulator(Ruleset(rules=rules, **more))


def words(*found: str, **more: Any) -> Rule:
    return Rule(name="r", kind="words", words=found, **more)


def ended(excerpt: str = "Gladly.", **more: Any) -> TaskEnded:
    return TaskEnded(batch="b", task="b-1", excerpt=excerpt, **more)


# -- as shipped -------------------------------------------------------------------------------


@pytest.mark.promise("FD-40", "FD-42", "FD-59")
@pytest.mark.parametrize("word", KEYWORDS)
def test_each_of_the_shipped_keywords_calls_a_person(word: str) -> None:
    fired = Regulator(Ruleset()).on_said(f"你好，{word}！", ANYBODY)

    assert fired is not None
    assert (fired.reason, fired.rule, fired.severity) == ("keyword", "keywords", "high")
    assert fired.evidence == f"你好，{word}！"
    assert "the customer said '" in fired.details


@pytest.mark.promise("FD-41", "FD-59")
def test_three_failures_in_a_row_call_a_person_and_a_good_answer_begins_anew() -> None:
    regulator, count, seen = Regulator(Ruleset()), 0, []
    bad = [ended(f"{word}…") for word in FAILURE_WORDS]
    for one in (bad[0], ended(outcome="refused"), ended(), bad[1], ended(outcome="failed"), bad[2]):
        count, escalation = regulator.on_ended(one, count, ANYBODY)
        seen.append((count, escalation is not None))
    assert escalation is not None

    assert seen == [(1, False), (2, False), (0, False), (1, False), (2, False), (3, True)]
    assert (escalation.reason, escalation.rule, escalation.severity) == (
        "fail_loop",
        "failures",
        "medium",
    )
    assert escalation.evidence == "无法…"
    assert escalation.details == "3 answers in a row were none: the last says '无法'"


@pytest.mark.promise("FD-59")
def test_vip_goes_before_keyword() -> None:
    vip = Customer(vip=True)
    fired = Regulator(Ruleset()).on_said("转人工", vip)

    assert fired is not None
    assert (fired.reason, fired.rule) == ("vip", "vip")
    assert Regulator(Ruleset()).on_said("hello", ANYBODY) is None


@pytest.mark.parametrize("code", ["aborted", "superseded", IN_MANUAL])
def test_what_was_stopped_is_no_failure_and_no_success(code: str) -> None:
    count = Regulator(Ruleset()).on_ended(ended("", outcome="failed", code=code), 2, ANYBODY)

    assert (count.failures, count.escalation) == (2, None)


def test_a_ruleset_that_is_switched_off_fires_never() -> None:
    regulator = Regulator(Ruleset(switched_off=True))

    assert regulator.on_said("人工", Customer(vip=True)) is None
    assert regulator.on_ended(ended(outcome="failed"), 9, ANYBODY).escalation is None


# -- how texts are compared -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "said", "fires"),
    [
        ("Human", "a HUMAN, please", True),
        ("human", "ＨＵＭＡＮ", True),
        ("ＨＵＭＡＮ", "human", True),
        ("straße", "STRASSE", True),
        ("ﬁn", "the FIN", True),
        ("é", "e\u0301", True),
        ("人工", "人 工", False),
        ("human", "humid", False),
    ],
)
@pytest.mark.promise("FD-59")
def test_neither_case_nor_width_matters(word: str, said: str, fires: bool) -> None:
    assert (of(words(word)).on_said(said, ANYBODY) is not None) is fires


@pytest.mark.parametrize(
    ("language", "spoken", "fires"),
    [
        ("", "fr", True),
        ("zh", "", True),
        ("zh", "zh", True),
        ("zh", "ZH-cn", True),
        ("zh", "zh_TW", True),
        ("zh-CN", "zh", False),
        ("en", "eng", False),
        ("zh", "en", False),
    ],
)
def test_a_rule_may_be_for_one_language(language: str, spoken: str, fires: bool) -> None:
    regulator = of(words("help", language=language))

    assert (regulator.on_said("help", Customer(language=spoken)) is not None) is fires


def test_words_may_keep_a_rule_from_firing_and_the_next_one_is_tried() -> None:
    regulator = of(
        words("agent", unless=("travel agent",)),
        Rule(name="second", kind="words", words=("travel",)),
    )
    first = regulator.on_said("an AGENT", ANYBODY)
    second = regulator.on_said("my Travel Agent", ANYBODY)

    assert first is not None
    assert second is not None
    assert (first.rule, second.rule) == ("r", "second")


def test_words_that_excuse_an_answer_make_it_a_good_one() -> None:
    rule = Rule(name="f", kind="failures", words=("sorry",), unless=("sorry to hear",), threshold=1)
    excused = of(rule).on_ended(ended("Sorry to hear that: here is how …"), 1, ANYBODY)

    assert (excused.failures, excused.escalation) == (0, None)
    assert of(rule).on_ended(ended("Sorry, no."), 0, ANYBODY).escalation is not None


def test_patterns_fit_what_is_said_whatever_its_case_and_width() -> None:
    rule = Rule(name="refund", kind="words", patterns=(r"order .{0,10}\d{4,8} .{0,20}refund",))
    fired = of(rule).on_said("My ORDER no １２３４５ needs a Refund", ANYBODY)

    assert fired is not None
    assert (fired.reason, fired.rule) == ("rule", "refund")
    assert "fits 'order " in fired.details


def test_evidence_is_what_was_said_or_what_stands_around_it() -> None:
    long = "x" * 3000 + " human " + "y" * 3000
    short = of(words("human")).on_said("A Human!", ANYBODY)
    cut = of(words("human")).on_said(long, ANYBODY)

    assert short is not None
    assert cut is not None
    assert short.evidence == "A Human!"
    assert " human " in cut.evidence
    assert len(cut.evidence) <= MOST_EVIDENCE


# -- versions ---------------------------------------------------------------------------------


def test_a_version_is_the_one_given_or_says_what_the_rules_say() -> None:
    said = of(words("a"), version="2030-01")
    one, same, other = (version_of(Ruleset(rules=(words(word),))) for word in ("a", "a", "b"))
    fired = said.on_said("a", ANYBODY)

    assert fired is not None
    assert fired.version == "2030-01"
    assert one == same == of(words("a")).version
    assert one != other
    assert len(one) == 12


# -- rules that are refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"name": "", "kind": "vip"}, "a name has 1 to 100 characters"),
        ({"kind": "words"}, "fires on nothing; give it words or patterns"),
        ({"kind": "vip", "words": ["a"]}, 'words mean nothing to the kind "vip"'),
        ({"kind": "failures", "patterns": ["a"]}, 'patterns mean nothing to the kind "failures"'),
        ({"kind": "failures", "threshold": 0}, "threshold 0: expected 1 to 100"),
        ({"kind": "words", "words": ["a", " "]}, "words: an empty one would fit every text"),
        ({"kind": "words", "words": ["a"], "unless": [""]}, "unless: an empty one"),
        ({"kind": "words", "words": ["a" * 101]}, "has more than 100 characters"),
        ({"kind": "words", "words": ["a"], "language": "english!"}, "expected one such as zh"),
        ({"kind": "words", "patterns": ["(a"]}, "pattern '(a' is no regular expression: missing )"),
        ({"kind": "words", "patterns": ["(a+)+b"]}, "has too many ways to fit: use at most one *"),
        ({"kind": "words", "patterns": ["a*a*b"]}, "has too many ways to fit"),
        ({"kind": "words", "patterns": ["(a|a)*b"]}, "has too many ways to fit"),
        ({"kind": "words", "patterns": ["(?:a?){30}b"]}, "has too many ways to fit"),
        ({"kind": "words", "patterns": [r"(a)\1"]}, "refers back to a group, which is not taken"),
        ({"kind": "words", "patterns": ["(?=a)a"]}, "looks ahead or behind, which is not taken"),
        ({"kind": "words", "patterns": ["a*"]}, "would fit every text"),
        ({"kind": "words", "patterns": ["（a）"]}, "write it as '(a)'"),
        ({"kind": "words", "patterns": [""]}, "has 0 characters, expected 1 to 200"),
        ({"kind": "words", "patterns": ["(" * 90 + "a" + ")" * 90]}, ""),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_when_it_is_deployed(
    rule: dict[str, Any], reason: str
) -> None:
    good = {"name": "good", "kind": "vip"}
    options = {"regulator": {"rules": [good, {"name": "r", **rule}]}}
    if not reason:
        read_options(Session, "session", options)
        return
    with pytest.raises(ConfigError) as refused:
        read_options(Session, "session", options)

    assert reason in str(refused.value)
    assert "regulator.rules[1]" in str(refused.value)


@pytest.mark.parametrize(
    ("ruleset", "reason"),
    [
        ({"rules": [{"name": "a", "kind": "vip"}] * 2}, "two rules are called 'a'"),
        ({"rules": [{"name": str(n), "kind": "vip"} for n in range(65)]}, "65 rules, expected at"),
        ({"version": "x" * 101}, "at most 100 characters"),
        ({"rule": []}, "unknown field `rule`"),
        (
            {"rules": [{"name": str(n), "kind": "words", "words": ["w"] * 500} for n in range(11)]},
            "the rules have 5500 words in all, expected at most 5000",
        ),
        (
            {"rules": [{"name": "p", "kind": "words", "patterns": [f".*{n}" for n in range(9)]}]},
            "steps, expected at most 20000",
        ),
    ],
)
def test_a_ruleset_that_makes_no_sense_is_refused(ruleset: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_options(Session, "session", {"regulator": ruleset})


@pytest.mark.parametrize("pattern", [".*x", "(?:ab)*c", "(a|b){0,10}c", "a{0,20}a{0,20}a{0,5}c"])
def test_a_pattern_that_is_taken_comes_to_an_end_on_texts_made_against_it(pattern: str) -> None:
    ready = read_pattern(pattern)

    assert [ready.compiled.search(text * (MOST_MATCHED // 2)) for text in ("ab", "aa")] == [
        None
    ] * 2


def test_rules_are_the_same_over_the_wire() -> None:
    ruleset = Ruleset(rules=(words("a", patterns=("b+",), unless=("c",), language="en"),))

    assert msgspec.convert(msgspec.to_builtins(ruleset), Ruleset) == ruleset
