"""JSON objects out of bytes: lines, arrays, single ones, and what is none."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.models.faults import UpstreamFault
from actors.models.objects import LONGEST, Objects, decode
from tests.unit.provider_double import cut

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3), max_size=5)


def find(*chunks: bytes) -> list[Any]:
    objects = Objects()
    return [decode(one) for chunk in chunks for one in objects.feed(chunk)]


def test_an_object_is_given_at_its_last_brace() -> None:
    assert find(b'{"a":"}"}') == [{"a": "}"}]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1}\n{"b":2}\n',
        b'[{"a":1},\r\n{"b":2}]',
        b"\n" * 60 + b'{\n  "a": 1\n}{"b": 2}',
        b'[\n{"a":1}\n,\n{"b":2}\n]\n',
    ],
)
def test_lines_arrays_and_blank_lines_frame_objects_alike(raw: bytes) -> None:
    assert find(raw) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("raw", [b"nonsense", b'{"a":1} x', b'"a"', b"1", b"}", b'{"a\n{"a":1}\n'])
def test_what_is_no_object_is_a_fault(raw: bytes) -> None:
    with pytest.raises(UpstreamFault) as caught:
        find(raw)

    assert caught.value.code == "garbled"


def test_an_object_without_an_end_is_a_fault() -> None:
    with pytest.raises(UpstreamFault) as caught:
        find(b'{"a":"', *([b"x" * 60_000] * (LONGEST // 60_000 + 1)))

    assert caught.value.code == "too_long"


def test_an_object_that_is_cut_is_told() -> None:
    objects = Objects()

    assert list(objects.feed(b'{"a":{}')) == []
    assert objects.cut


@given(OBJECTS, st.booleans(), st.booleans(), st.lists(st.integers(0, 10_000), max_size=20))
def test_it_does_not_matter_where_objects_are_cut(
    objects: list[Any], array: bool, indented: bool, places: Iterable[int]
) -> None:
    text = [json.dumps(one, indent=1 if indented else None) for one in objects]
    raw = ("[" + ",\n".join(text) + "]" if array else "\n".join(text)).encode()

    assert find(*cut(raw, places)) == objects


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (b'{"a": NaN, "b": -Infinity}', {"a": None, "b": None}),
        (b'{"a": "x\ny"}', {"a": "x\ny"}),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (rb'{"a": "\ud83d"}', {"a": "\ufffd"}),
        (rb'{"a": ["\ud83d\ude00", {"\udc00": 1}]}', {"a": ["😀", {"\ufffd": 1}]}),
    ],
)
def test_what_providers_write_though_json_forbids_it_is_read(text: bytes, meant: Any) -> None:
    assert decode(text) == meant


@pytest.mark.parametrize("text", [b"", b"{", b"nope", b"[" * 100_000, b"1" * 10_000])
def test_what_cannot_be_read_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|Exceeds|nested"):
        decode(text)
