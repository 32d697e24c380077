"""Which schemas and patterns of answers are taken, and what is said of what does not fit."""

import re
from typing import Any

import pytest

from actors.patterns import SHORTEST_TEXT, read_pattern
from actors.schema import DIALECT, MOST_BYTES, MOST_PARTS, AnswerSchema, find_excess

REFUND: dict[str, Any] = {
    "$schema": DIALECT,
    "type": "object",
    "properties": {
        "amount": {"type": "number", "minimum": 0, "maximum": 500},
        "currency": {"$ref": "#/$defs/currency"},
        "lines": {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"}},
    },
    "required": ["amount"],
    "additionalProperties": False,
    "$defs": {"currency": {"enum": ["EUR", "USD"]}},
}


@pytest.mark.parametrize(
    "answer",
    [
        {"amount": 5},
        {"amount": 0.5, "currency": "EUR", "lines": ["AB-1", "CD-22"]},
    ],
)
def test_an_answer_that_fits_has_no_fault(answer: Any) -> None:
    assert AnswerSchema(REFUND).find_fault(answer) == ""


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (5, ': 5 is not right: type is "object"'),
        ({}, ': {} is not right: required is ["amount"]'),
        ({"amount": -1}, "/amount: -1 is not right: minimum is 0"),
        ({"amount": "5"}, '/amount: "5" is not right: type is "number"'),
        ({"amount": 1, "currency": "GBP"}, '/currency: "GBP" is not right: enum is ["EUR","USD"]'),
        ({"amount": 1, "lines": ["AB-1", "x"]}, "/lines/1: 'x' does not match '^[A-Z]{2}-[0-9]+$'"),
        (
            {"amount": 1, "a/b": 2},
            ': {"amount":1,"a/b":2} is not right: additionalProperties is false',
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_place_and_what_was_expected(
    answer: Any, fault: str
) -> None:
    found = AnswerSchema(REFUND).find_fault(answer)

    assert found == fault


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "https://example.com/schema.json"}, "nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
        ({"properties": {"a": {"$ref": "other.json#/a"}}}, "/properties/a/$ref"),
        ({"$ref": "#"}, "expected a place in this very schema"),
        ({"$ref": "#/$defs/none"}, "there is no '#/$defs/none'"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "to itself"),
        ({"$dynamicRef": "#x"}, "$dynamicRef is not taken"),
        ({"$id": "https://example.com/"}, "$id is not taken"),
        ({"unevaluatedProperties": False}, "/unevaluatedProperties"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "expected 'https://json-schema"),
        ({"type": "strnig"}, "/type"),
        ({"properties": {"a": {"minimum": "1"}}}, "/properties/a/minimum"),
        ({"properties": {"a": 5}}, "/properties/a: 5 is not a schema"),
        ({"properties": []}, "/properties"),
        ({"description": "x" * MOST_BYTES}, "at most 16384"),
        ({"allOf": [True] * 10 + [{"type": "object"}] * MOST_PARTS}, "more than 400 parts"),
        (nested(40), "deeper than 16 levels"),
        ({"pattern": "(a+)+$"}, "/pattern: the pattern '(a+)+$' repeats a group"),
        ({"patternProperties": {"(x*)*": True}}, "repeats a group"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_the_place_in_it(
    schema: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        AnswerSchema(schema)


def test_references_that_double_at_each_step_are_counted_before_they_are_followed() -> None:
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(7)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**doubling, "d7": {"type": "string"}}}

    with pytest.raises(ValueError, match="more than 400 parts"):
        AnswerSchema(schema)


def test_what_is_referred_to_beside_other_words_counts_with_them() -> None:
    schema = AnswerSchema(
        {"$ref": "#/$defs/a~1b", "maxLength": 3, "$defs": {"a/b": {"minLength": 2}}}
    )

    assert schema.find_fault("abc") == ""
    assert "minLength" in schema.find_fault("a")
    assert "maxLength" in schema.find_fault("abcd")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (["x"] * (MOST_PARTS + 1), "parts, at most 400"),
        ("x" * MOST_BYTES, "at most 16384"),
        (nested(20), "deeper than 16 levels"),
    ],
)
def test_an_answer_that_is_too_much_is_not_even_checked(answer: Any, why: str) -> None:
    assert why in AnswerSchema({}).find_fault(answer)
    assert why in find_excess(answer)


@pytest.mark.parametrize(
    ("source", "fits", "fits_not"),
    [
        ("^[^@ ]+@[^@ ]+\\.[a-z]{2,}$", "ann@example.com", "ann@example"),
        ("^#[0-9a-fA-F]{6}$", "#00ff7f", "#00ff7"),
        ("^(?:EUR|USD) ?\\d+(?:,\\d{2})?$", "EUR 5,20", "GBP 5"),
        ("\\d", "abc7", "abc"),
        ("^\\d$", "7", "٧"),
        ("^a$", "a", "a\n"),
        ("^(a|b|)$", "b", "c"),
        ("[]a]", "]", "b"),
        ("a{2}", "baab", "aba"),
        ("^\\u0041\\x42$", "AB", "ab"),
    ],
)
def test_a_pattern_means_what_it_means_in_json_schema(
    source: str, fits: str, fits_not: str
) -> None:
    pattern = read_pattern(source)

    assert re.search(pattern.python, fits)
    assert not re.search(pattern.python, fits_not)
    assert pattern.room >= SHORTEST_TEXT


@pytest.mark.parametrize(
    "source",
    [
        "(a+)+",
        "(a|aa)*",
        "^(a?){30}$",
        "^(\\w+\\s?)*$",
        "(?=a)b",
        "(?!a)b",
        "(?<=a)b",
        "(?P<n>a)",
        "(?i)a",
        "(a)\\1",
        "a++",
        ".*.*.*.*.*x",
        "a?" * 40 + "a" * 40,
        "a{0,1000}b{0,1000}c{0,1000}",
        "a{5000}",
        "(",
        ")",
        "[a",
        "a{2",
        "*a",
        "\\p{L}",
        "\\",
        "a" * 300,
    ],
)
def test_a_pattern_that_could_hang_or_cannot_be_read_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"pattern"):
        read_pattern(source)


@pytest.mark.parametrize(
    ("source", "letter"),
    [
        ("^a*a*a*b$", "a"),
        (".*.*b", "a"),
        ("^\\w+\\w+\\d+!$", "7"),
        ("a*b", "a"),
        ("^(a|a)a*!", "a"),
    ],
)
def test_the_worst_text_for_a_pattern_that_is_taken_ends_soon(source: str, letter: str) -> None:
    pattern = read_pattern(source)

    assert re.search(pattern.python, letter * pattern.room) is None


def test_an_answer_too_long_for_its_pattern_is_refused_instead_of_tried() -> None:
    schema = AnswerSchema({"pattern": "^a*a*a*b$"})

    assert "the most its patterns are tried on" in schema.find_fault("a" * 1000)
    assert "the most its patterns are tried on" in schema.find_fault({"a" * 1000: 1})
