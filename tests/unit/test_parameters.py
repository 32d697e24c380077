"""Query parameters and headers are read strictly."""

from typing import Any
from urllib.parse import quote

import pytest
from starlette.requests import Request

from edge.parameters import read_cursor, read_idempotency_key, read_int, refuse_credentials
from edge.problem import Refusal


def request(query: str = "", headers: list[tuple[str, str]] | None = None) -> Request:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers or []]
    return Request({"type": "http", "query_string": query.encode(), "headers": raw})


def refusal_of(read: Any, *args: Any, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        read(*args, **options)
    return refusal.value


def limit_of(query: str) -> int:
    return read_int(request(query), "limit", default=100, low=1, high=1000)


@pytest.mark.parametrize(
    ("query", "value"), [("", 100), ("x=5", 100), ("limit=1", 1), ("limit=1000", 1000)]
)
def test_an_integer_is_read(query: str, value: int) -> None:
    assert limit_of(query) == value


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "0",
            "-1",
            "+5",
            "1001",
            "1e9",
            "NaN",
            "0x10",
            "5.0",
            "1_0",
            " 5",
            "5 ",
            "5\n",
            "5\0",
        ),
        *("５０", "٥", "²", "9" * 30, "1" * 10_000),
    ],
)
def test_what_is_not_an_integer_in_range_is_refused(value: str) -> None:
    refusal = refusal_of(limit_of, f"limit={quote(value)}")

    assert (refusal.status, refusal.code) == (400, "invalid_parameter")
    assert refusal.detail.startswith("'limit' is ")
    assert refusal.detail.endswith("expected an integer from 1 to 1000")
    assert len(refusal.detail) < 150


@pytest.mark.parametrize("query", ["limit=5&limit=5", "limit=5&lim%69t=6"])
def test_a_parameter_given_twice_is_refused(query: str) -> None:
    assert refusal_of(limit_of, query).detail == "parameter 'limit' is given more than once"


@pytest.mark.parametrize(
    ("query", "headers", "cursor"),
    [
        ("", [], None),
        ("after=0", [], 0),
        ("after=123", [], 123),
        ("", [("Last-Event-ID", "9223372036854775807")], 2**63 - 1),
        ("after=5", [("Last-Event-ID", "7")], 7),
        ("after=5", [("Last-Event-ID", "")], 5),
    ],
)
def test_a_cursor_is_read_from_the_header_and_else_from_the_query(
    query: str, headers: list[tuple[str, str]], cursor: int | None
) -> None:
    assert read_cursor(request(query, headers)) == cursor


@pytest.mark.parametrize("value", ["", "-1", "x", "1-2", "9223372036854775808", "１", "1 "])
def test_a_cursor_that_cannot_be_one_is_refused(value: str) -> None:
    refusal = refusal_of(read_cursor, request(f"after={quote(value)}"))

    assert (refusal.status, refusal.code) == (400, "invalid_parameter")


@pytest.mark.parametrize(
    "headers",
    [
        [("Last-Event-ID", "x")],
        [("Last-Event-ID", "²")],
        [("Last-Event-ID", "1"), ("Last-Event-ID", "1")],
    ],
)
def test_a_header_that_is_not_one_cursor_is_refused(headers: list[tuple[str, str]]) -> None:
    assert refusal_of(read_cursor, request("after=1", headers)).code == "invalid_parameter"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("8e03978e-40d5", "8e03978e-40d5"),
        ('"8e03978e-40d5"', "8e03978e-40d5"),
        (r'"a\"b\\c"', r'a"b\c'),
        ("a" * 255, "a" * 255),
        ("~!", "~!"),
    ],
)
def test_an_idempotency_key_is_read_bare_or_quoted(value: str, key: str) -> None:
    assert read_idempotency_key(request(headers=[("Idempotency-Key", value)])) == key


def test_no_idempotency_key_is_none() -> None:
    assert read_idempotency_key(request()) is None


@pytest.mark.parametrize(
    "values",
    [
        *(
            [""],
            ['""'],
            ["a b"],
            ["a" * 256],
            ["\x01"],
            ["a\x7f"],
            ["\xe9"],
            ["a", "a"],
            ["a", "b"],
        ),
        *(['"a'], ['"a"b'], ['"a";b=1'], ['"a b"'], [r'"a\b"']),
    ],
)
def test_what_is_not_one_idempotency_key_is_refused(values: list[str]) -> None:
    headers = [("Idempotency-Key", value) for value in values]
    refusal = refusal_of(read_idempotency_key, request(headers=headers))

    assert (refusal.status, refusal.code) == (400, "invalid_idempotency_key")


@pytest.mark.parametrize(
    "name",
    ["api_key", "key", "token", "access_token", "secret", "password", "API-Key", "%74oken", "+key"],
)
def test_a_credential_in_the_url_is_refused_and_not_repeated(name: str) -> None:
    refusal = refusal_of(refuse_credentials, request(f"limit=5&{name}=hunter2"))

    assert (refusal.status, refusal.code) == (400, "credential_in_url")
    assert "hunter2" not in str(refusal)


@pytest.mark.parametrize("query", ["", "after=5&limit=3", "ticket=abc", "keys=1", "q=token"])
def test_other_parameters_are_no_credentials(query: str) -> None:
    refuse_credentials(request(query))
