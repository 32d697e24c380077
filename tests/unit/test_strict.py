"""JSON is taken only if no two programs could read it in two ways."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.problem import Refusal, problem
from edge.strict import CLOSER, DEPTH, MOST_MARKS, check_json

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
SCRAPS = st.sampled_from(
    [
        *("{", "}", "[", "]", ",", ":", '"a"', '"b"', '"', "\\", r"\u0000", r"\ud83d", r"\ude00"),
        *("1", "0", "-", ".", "e", "999", "1" * 20, "NaN", "null", "true", " ", "\n", "\x01", "é"),
    ]
)


def refusal_of(raw: bytes) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        check_json(raw)
    return refusal.value


def is_refused(raw: bytes) -> bool:
    try:
        check_json(raw)
    except Refusal:
        return True
    return False


@given(VALUES, st.booleans())
def test_everything_that_json_can_say_is_taken(value: Any, ascii: bool) -> None:
    assert not is_refused(json.dumps(value, ensure_ascii=ascii).encode())
    assert not is_refused(msgspec.json.encode(value))


@given(st.lists(SCRAPS, max_size=12).map("".join))
def test_what_is_taken_is_read_alike_by_others(text: str) -> None:
    raw = text.encode()
    if not is_refused(raw):
        assert msgspec.json.decode(raw) == json.loads(raw)
        assert CLOSER.decode(text) == json.loads(raw)


@given(st.binary(max_size=40))
def test_any_bytes_are_taken_or_refused(raw: bytes) -> None:
    refused = is_refused(raw)

    assert refused or isinstance(json.loads(raw), object)


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"", "the body is empty, expected a JSON document"),
        (b" \r\n", "the body is empty, expected a JSON document"),
        (b'{"a":"\xff"}', "byte 6 is not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "byte 6 is not UTF-8"),
        (b"\xef\xbb\xbf{}", "the body begins with a byte order mark, expected none"),
        ('{"a":1}'.encode("utf-16"), "the body begins with a byte order mark, expected none"),
        (b'{"a":[1,NaN]}', "/a/1: NaN is not a JSON number"),
        (b"-Infinity", "the body: -Infinity is not a JSON number"),
        (b'{"a":1e999}', "/a: the number is too large for 64-bit floats"),
        (b'{"a":-1E+999}', "/a: the number is too large for 64-bit floats"),
        (b'{"a":1' + b"0" * 400 + b".5}", "/a: the number is too large for 64-bit floats"),
        (b'{"a":' + b"9" * 5000 + b"}", "/a: the integer has more than 4300 digits"),
        (b'{"a":{"b":1,"c":2,"b":3}}', "/a/b: key 'b' is in the object twice"),
        (rb'{"a":1,"\u0061":2}', "/a: key 'a' is in the object twice"),
        (b'{"a":1,}', "expecting property name enclosed in double quotes at byte 7, found '}'"),
        (b"[1,]", "expecting value at byte 3, found ']'"),
        (b"{} {}", "extra data at byte 3, found '{'"),
        (b"[1] // one", "extra data at byte 4, found '/'"),
        (b"/**/1", "expecting value at byte 0, found '/'"),
        (b"{'a':1}", 'expecting property name enclosed in double quotes at byte 1, found "\'"'),
        ('["é", x]'.encode(), "expecting value at byte 7, found 'x'"),
        (b'["a', "unterminated string starting at byte 1, found '\"'"),
        (b'["a\n"]', "invalid control character at byte 3, found '\\n'"),
        (b"[1", "expecting ',' delimiter at byte 2, the document ends there"),
        (b"[01]", "expecting ',' delimiter at byte 2, found '1'"),
        (b"[+1]", "expecting value at byte 1, found '+'"),
        (rb'{"a":["\ud800"]}', "/a/0: the text has half a surrogate pair"),
        (rb'{"a":"\ude00\ud83d"}', "/a: the text has half a surrogate pair"),
        (rb'{"a":"x\u0000"}', "/a: the text has a NUL character"),
        (rb'{"a":{"\u0000":1}}', "/a: key '\\x00' has a NUL character"),
        (rb'{"a/b":{"~":"\u0000"}}', "/a~1b/~0: the text has a NUL character"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(raw: bytes, detail: str) -> None:
    refusal = refusal_of(raw)

    assert (refusal.status, refusal.code) == (400, "invalid_json")
    assert refusal.detail == detail


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"a":"\ud83d\ude00"}',
        rb'{"a":"\\u0000 \\ud800"}',
        rb'{"a":"3e978e03","b":"NaN","c":"1e999"}',
        b'{"a":9223372036854775807,"b":-9223372036854775808}',
        b'{"a":1e-999}',
        b'{"a":1.7976931348623157e308}',
        b'{"a":' + b"0.1" + b"1" * 5000 + b"}",
        b'{"a":{"x":1},"b":{"x":1}}',
        b"null",
        b'{"":0}',
    ],
)
def test_what_only_looks_doubtful_is_taken(raw: bytes) -> None:
    assert not is_refused(raw)


@pytest.mark.parametrize("integer", [2**63, -(2**63) - 1, 2**70, 10**4000])
def test_an_integer_beyond_64_bits_is_a_field_of_the_wrong_kind(integer: int) -> None:
    refusal = refusal_of(b'{"a":[0,%d]}' % integer)

    assert (refusal.status, refusal.code) == (422, "invalid_field")
    assert refusal.members["errors"][0]["pointer"] == "/a/1"
    assert refusal.detail.startswith("/a/1: expected an integer of 64 bits")


@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}"), (r'{"\\\"[":[', "]}")])
def test_nesting_ends_at_the_limit(pair: tuple[str, str]) -> None:
    opening, closing = pair
    levels = DEPTH // opening.count("[" if opening == "[" else "{")
    levels = levels // 2 if closing == "]}" else levels
    allowed = opening * levels + "1" + closing * levels
    deeper = f"[{allowed}]"

    assert not is_refused(allowed.encode())
    assert re.fullmatch(
        f"arrays and objects are nested deeper than {DEPTH} at byte [0-9]+",
        refusal_of(deeper.encode()).detail,
    )


def test_depth_is_counted_outside_of_strings() -> None:
    raw = json.dumps({"a": "[" * 1000, 'b"\\': '{"' * 1000 + "\\" * 3}).encode()

    assert not is_refused(raw)
    assert not is_refused(b"[" + b"[]," * 1000 + b"[]]")


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b'"\\' * 100_000])
def test_depth_without_end_is_refused(raw: bytes) -> None:
    assert refusal_of(raw).code == "invalid_json"


@pytest.mark.parametrize("value", [b"1", b"{}", b'"a"', b'"[,"', rb'"\\\""'])
def test_a_document_has_only_so_many_values(value: bytes) -> None:
    refusal = refusal_of(b"[" + (value + b",") * MOST_MARKS + b"1]")

    assert (refusal.status, refusal.code) == (413, "too_many_values")


def test_values_are_counted_outside_of_strings() -> None:
    assert not is_refused(json.dumps([r"[,\",{"] * 9 + ['[{,"\\' * MOST_MARKS]).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b'{"' + b"k" * 9000 + b'":1,"' + b"k" * 9000 + b'":2}',
        b'{"' + b"k" * 9000 + rb'":"\u0000"}',
        b'{"' + rb"\ud800" * 900 + b'":1}',
        b'{"a":' + b"9" * 3000 + b"}",
    ],
)
def test_a_refusal_repeats_little_of_the_body(raw: bytes) -> None:
    assert len(bytes(problem(refusal_of(raw)).body)) < 700
