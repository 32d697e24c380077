"""Rules that are tried on recorded conversations: heard as they were, up to the first call."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ConfigError
from runtime.terminal.rules import describe, read_ruleset
from schemas.conversation import MessageAnswered, MessageSaid
from schemas.model import Text, Utterance
from schemas.ownership import Customer, Escalation
from schemas.regulating import Regulator
from schemas.regulator import Rule, Ruleset
from schemas.rehearsing import Case, Rehearsal, Report

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
RULES = Ruleset(
    version="v1",
    rules=(
        Rule(name="help", kind="words", words=("help",)),
        Rule(name="twice", kind="failures", words=("sorry",), threshold=2),
    ),
)


def said(text: str, role: Any = "user") -> MessageSaid:
    return MessageSaid(batch="b", message=Utterance(role=role, content=(Text(text),)))


def answered(text: str, task: str = "b-1", **more: Any) -> MessageAnswered:
    return MessageAnswered(batch="b", task=task, run="r", attempt=1, model="m", text=text, **more)


def hear(*messages: MessageSaid | MessageAnswered) -> Rehearsal:
    rehearsal = Rehearsal(Regulator(RULES), Customer())
    for n, message in enumerate(messages):
        rehearsal.hear(message, NOON + timedelta(minutes=n))
    rehearsal.end(NOON + timedelta(hours=1))
    return rehearsal


def test_the_first_message_that_fires_is_the_call_and_nothing_is_heard_after_it() -> None:
    heard = hear(said("hi"), answered("hello"), said("HELP me"), said("help again"))

    assert heard.would is not None
    assert (heard.would.rule, heard.would.version, heard.would.evidence) == (
        "help",
        "v1",
        "HELP me",
    )
    assert heard.would.at == NOON + timedelta(minutes=2)
    assert heard.messages == 2


def test_failures_are_counted_by_the_last_answer_of_each_task() -> None:
    moved = answered("", outcome="refused"), answered("Here you are.")
    good = hear(said("x"), answered("sorry"), said("a"), *moved, said("b"), answered("sorry"))
    bad = hear(said("x"), answered("sorry"), said("y"), answered("", outcome="failed"))

    assert good.would is None
    assert bad.would is not None
    assert (bad.would.rule, bad.would.reason) == ("twice", "fail_loop")


def test_only_what_customers_say_is_looked_at() -> None:
    assert hear(said("help", role="tool")).would is None


def test_a_report_says_how_many_by_which_rule_and_how_it_was_then() -> None:
    def by(rule: str) -> Escalation:
        return Escalation(reason="keyword", rule=rule, evidence="so \\n it was", at=NOON)

    report = Report(
        version="v1",
        conversations=8,
        messages=30,
        cases=[
            Case(conversation="a", would=by("help"), did=Escalation(reason="manual")),
            Case(conversation="b", would=by("help")),
            Case(conversation="c", did=by("old")),
        ],
    )
    lines = list(describe(report, "7d", 2))

    assert lines[0] == (
        "rules v1, tried on 8 conversations with 30 messages of customers, of the last 7d"
    )
    assert lines[1] == "a person would have been called in 2 (25.0 %): help 2"
    assert lines[2] == "a person was called in 2 (25.0 %): manual 1, old 1"
    assert lines[3] == "in both: 1; only by these rules: 1; only then: 1"
    assert [line.split()[2:5] for line in lines[6:8]] == [["b", "help", "-"], ["c", "-", "old"]]
    assert lines[8] == "1 older ones are not shown; see --limit"
    assert list(describe(Report(version="v"), "1d", 5))[1] == "a person would have been called in 0"


def test_rules_are_read_by_themselves_or_from_what_is_deployed(tmp_path: Path) -> None:
    alone, whole, none = tmp_path / "a.toml", tmp_path / "b.toml", tmp_path / "c.toml"
    alone.write_text('version = "v1"\n[[rules]]\nname = "vip"\nkind = "vip"\n')
    head = '[[actor]]\nname = "session"\ntype = "actors.session:Session"\n'
    whole.write_text(head + '[actor.options.regulator]\nversion = "v2"\n')
    none.write_text(head)

    assert read_ruleset(alone) == Ruleset(version="v1", rules=(Rule(name="vip", kind="vip"),))
    assert read_ruleset(whole) == Ruleset(version="v2")
    with pytest.raises(ConfigError, match="no actor in it has an option `regulator`"):
        read_ruleset(none)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rules]]\nname = 'a'\nkind = 'words'\n", "1: rules: rule 'a': fires on nothing"),
        ("version = 5\n", "1: version: 5: expected a text in quotes"),
        ("[[rules]]\nname = 'a'\nkind = 'wods'\n", "3: rules.kind: 'wods': expected one of vip,"),
        ("[[rules]]\nnam = 'a'\n", "2: rules.nam: unknown key; did you mean 'name'?"),
    ],
)
def test_rules_that_cannot_be_are_refused_with_their_line(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_ruleset(path)

    assert str(refused.value).startswith(f"{path}:{said}")
