"""A file of deployments: what it says, and everything that is wrong with it, by line."""

from datetime import timedelta
from pathlib import Path

import pytest

from runtime.errors import ConfigError
from runtime.terminal.manifest import Manifest, read_manifest
from schemas.deployment import Deployment

GREETER = "[[actor]]\nname = 'a'\ntype = 'actors.greeter:Greeter'\n"
CHILD = "[[actor]]\nname = 'a'\ntype = 'actors.child:Child'\n"
OPTIONS = "options = { kind = 'callable', call = 'actors.commands:run'"


def read(folder: Path, text: str) -> Manifest:
    path = folder / "plan.toml"
    path.write_text(text)
    return read_manifest(path)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        read(folder, text)
    prefix = f"{folder / 'plan.toml'}:"
    return [line.removeprefix(prefix) for line in str(refused.value).splitlines()]


def test_a_file_says_what_is_deployed(tmp_path: Path) -> None:
    found = read(tmp_path, CHILD + OPTIONS + " }\ndeadline = '90s'\nattempts = 2\n")

    assert found.hints == []
    assert found.deployments == [
        Deployment(
            name="a",
            type="actors.child:Child",
            kind="worker",
            options={"kind": "callable", "call": "actors.commands:run"},
            deadline=timedelta(seconds=90),
            attempts=2,
            handles=("relay.execute",),
        )
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("x = \n", "not valid TOML"),
        ("[log]\nlevel = 'info'\n", "actor: expected at least one table [[actor]]"),
        ("[actor]\nname = 'a'\n", "1: actor: expected at least one table [[actor]]"),
        ("actor = [3]\n", "1: actor: expected at least one table [[actor]]"),
        ("[edgy]\n" + GREETER, "1: edgy: unknown key; did you mean 'edge'?"),
        (GREETER + "concurency = 3\n", "4: actor.concurency: unknown key; did you mean"),
        (GREETER + "concurrency = 0\n", "4: actor.concurrency: 0: expected a whole number >= 1"),
        (GREETER + "concurrency = 1001\n", "1001: expected a whole number <= 1000"),
        (GREETER + "attempts = 'x'\n", "4: actor.attempts: 'x': expected a whole number"),
        (GREETER + "lifetime = '1ms'\n", "4: actor.lifetime: is shorter than a second"),
        (GREETER + "lifetime = '4000d'\n", "4: actor.lifetime: '4000d' is too long"),
        (GREETER + "deadline = 5\n", "4: actor.deadline: 5 is not a duration"),
        (GREETER + "options = 5\n", "4: actor.options: 5: expected a table"),
        (GREETER + "options = { x = 1 }\n", "4: actor.options: Greeter takes no options"),
        (GREETER.replace("'a'", "'a.b'"), "2: actor.name: 'a.b': expected a lower-case letter"),
        (GREETER.replace("'a'", "3"), "2: actor.name: 3: expected a text in quotes"),
        (GREETER + GREETER, "5: actor.name: 'a' is given twice"),
        ("[[actor]]\nname = 'a'\n", "1: actor.type: is missing, and has no default"),
        (GREETER.replace(":Greeter", ""), "3: actor.type: 'actors.greeter': expected"),
        (GREETER.replace("Greeter", "Gone"), "3: actor.type: cannot load type"),
        (GREETER.replace("actors.", "no_such."), "No module named 'no_such'"),
        (GREETER.replace("actors.greeter:Greeter", "json:JSONDecoder"), "neither an Actor nor"),
        (CHILD, "1: actor.options: Object missing required field `kind`"),
        (CHILD + OPTIONS + ", more = 1 }\n", "4: actor.options: Object contains unknown field"),
        (CHILD + OPTIONS + ", x = inf }\n", "4: actor.options.x: inf: expected a number"),
        (CHILD + OPTIONS + ", x = [{ y = 2020-01-01 }] }\n", "a date or time; write it in quotes"),
        (CHILD + OPTIONS + ", x = 9223372036854775808 }\n", "a whole number beyond 64 bits"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    found = faults(tmp_path, text)

    assert len(found) == 1
    assert said in found[0]


def test_all_that_is_wrong_is_said_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "[[actor]]\nname = 'A'\ntype = 'no_such:Thing'\nattempts = 0\nmail_ttl = 'soon'\n"
        + GREETER
        + GREETER
        + "[nothing]\n"
    )
    found = faults(tmp_path, text)

    assert [line.partition(":")[0] for line in found] == ["2", "3", "4", "5", "10", "12"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raise RuntimeError('not today')\n", "RuntimeError: not today"),
        ("def (\n", "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("from runtime import Actor\nclass Thing(Actor): ...\n", "Thing must annotate `state:`"),
    ],
)
def test_a_module_may_fail_in_any_way_and_is_read_again_once_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, said: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / f"mine_{len(broken)}.py"
    text = f"[[actor]]\nname = 'a'\ntype = '{module.stem}:Thing'\n"
    module.write_text(broken)
    found = faults(tmp_path, text)
    # Of another length, or its compiled form would pass for it within the same second.
    module.write_text("from actors.greeter import Greeter as Thing  # mended, and much longer\n")

    assert len(found) == 1
    assert said in found[0]
    assert read(tmp_path, text).deployments[0].kind in ("keyed", "worker")


def test_what_is_allowed_and_perhaps_not_meant_is_hinted_at(tmp_path: Path) -> None:
    master = "[[actor]]\nname = 'm'\ntype = 'actors.master:Master'\nattempts = 3\n"
    hints = read(tmp_path, "[edge]\nlisten = 7\n" + master).hints

    assert hints == [
        f"{tmp_path}/plan.toml: [edge] passed over: read when a process starts",
        f"{tmp_path}/plan.toml:6: actor.attempts: means nothing here: a keyed actor does no jobs",
    ]


def test_a_bad_rule_of_a_ruleset_is_said_with_its_own_line(tmp_path: Path) -> None:
    text = """[[actor]]
name = "session"
type = "actors.session:Session"

[actor.options.regulator]
version = "7"

[[actor.options.regulator.rules]]
name = "vip"
kind = "vip"

[[actor.options.regulator.rules]]
name = "slow"
kind = "words"
patterns = ["(a+)+b"]
"""
    (found,) = faults(tmp_path, text)

    assert found.startswith("12: actor.options.regulator.rules: rule 'slow': pattern '(a+)+b' has")
    assert "use at most one * or +, else {0,20}" in found
