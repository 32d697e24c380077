"""How two rosters differ, as a person reads it; and what no person reads."""

from datetime import timedelta
from typing import Any

import pytest

from runtime.terminal.difference import compare, describe, show_duration
from schemas.deployment import Deployment


def one(name: str, **rest: Any) -> Deployment:
    return Deployment(**{"name": name, "type": "x:Y", "kind": "worker"} | rest)


def lines(before: list[Deployment], after: list[Deployment]) -> list[str]:
    return list(describe({d.name: d for d in before}, {d.name: d for d in after}))


def test_what_is_added_changed_removed_and_as_it_was_is_told_apart() -> None:
    before = {"a": one("a"), "b": one("b"), "c": one("c")}
    after = {"b": one("b", attempts=2), "c": one("c"), "d": one("d")}
    found = compare(before, after)

    assert found == (["d"], ["b"], ["a"], ["c"])
    assert found.summary() == "+d ~b -a"
    assert bool(found)
    assert not compare(before, before)


def test_what_the_code_handles_is_no_difference_to_a_person() -> None:
    before, after = one("a"), one("a", handles=("x.y",))

    assert not compare({"a": before}, {"a": after})
    assert lines([before], [after]) == ["= unchanged: a"]
    assert lines([], [after]) == ["+ a  worker", "    type: x:Y"]


def test_what_is_added_is_shown_as_far_as_it_is_not_by_default() -> None:
    new = one("a", options={"url": "http://x", "deep": {"n": 1}}, deadline=timedelta(seconds=90))

    assert lines([], [new]) == [
        "+ a  worker",
        "    type: x:Y",
        '    options.url: "http://x"',
        "    options.deep.n: 1",
        "    deadline: 90s",
    ]


def test_what_changed_is_shown_field_by_field() -> None:
    before = one("a", options={"x": 1, "gone": [1, 2]}, concurrency=4)
    after = one("a", type="x:Z", kind="keyed", options={"x": 2, "new": None}, concurrency=16)

    assert lines([before], [after]) == [
        "~ a",
        "    type: x:Y → x:Z",
        "    kind: worker → keyed",
        "    concurrency: 4 → 16",
        "    options.x: 1 → 2",
        "    options.gone: [1,2] → none",
        "    options.new: none → null",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "secret",
        "api_key",
        "apiKey",
        "TOKEN",
        "auth_token",
        "password",
        "db_passwd",
        "credentials",
        "Authorization",
        "Cookie",
        "X-Signature",
        "passphrase",
    ],
)
def test_secrets_are_not_shown_but_that_they_changed_is(name: str) -> None:
    before = one("a", options={name: "s3cr3t-old", "list": [{name: "s3cr3t-old"}]})
    after = one("a", options={name: "s3cr3t-new", "list": [{name: "s3cr3t-new"}]})
    said = "\n".join([*lines([before], [after]), *lines([], [after])])

    assert "s3cr3t" not in said
    assert f"options.{name}: *** → another one" in said
    assert f'options.list: [{{"{name}":"***"}}] → another one' in said


def test_where_a_secret_is_may_be_shown_and_logins_in_addresses_may_not() -> None:
    said = lines([], [one("a", options={"token_env": "NAME", "url": "http://me:pw@host/"})])

    assert '    options.token_env: "NAME"' in said
    assert '    options.url: "http://***@host/"' in said


@pytest.mark.parametrize(
    "value",
    [
        "https://host/?user=ada&api_key=s3cr3t",
        "https://host/?token=s3cr3t&user=ada",
        ["program", "--user=ada", "--password=s3cr3t"],
        ["program", "--token", "s3cr3t", "--user=ada"],
    ],
)
def test_secrets_within_addresses_and_arguments_are_not_shown(value: object) -> None:
    said = "\n".join(lines([], [one("a", options={"x": value})]))

    assert "s3cr3t" not in said
    assert "***" in said
    assert "user=ada" in said


def test_what_a_terminal_would_obey_is_not_sent_to_it() -> None:
    said = "\n".join(lines([], [one("a", type="x\x1b[31m:Y", options={"k\x1b": "v\x1b"})]))

    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (timedelta(days=30), "30d"),
        (timedelta(hours=36), "36h"),
        (timedelta(minutes=5), "5m"),
        (timedelta(seconds=90), "90s"),
        (timedelta(milliseconds=250), "250ms"),
    ],
)
def test_durations_are_said_as_they_are_written(value: timedelta, said: str) -> None:
    assert show_duration(value) == said
