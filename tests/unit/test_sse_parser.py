"""Server-sent events out of bytes, by the rules browsers follow."""

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.models.faults import UpstreamFault
from actors.models.sse import LONGEST_FRAME, LONGEST_LINE, Frame, Parser, Stray
from tests.unit.provider_double import cut


def parse(*chunks: bytes) -> list[Frame | Stray]:
    parser = Parser()
    return [*(item for chunk in chunks for item in parser.feed(chunk)), *parser.end()]


def data(*chunks: bytes) -> list[str]:
    return [item.data for item in parse(*chunks) if isinstance(item, Frame)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_in_three_ways(end: bytes) -> None:
    assert data(end.join([b"data: a", b"", b"data: b", b"", b""])) == ["a", "b"]


def test_a_line_end_of_two_characters_may_be_cut() -> None:
    assert data(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == ["a\nb"]


def test_an_event_is_given_at_its_blank_line_without_waiting_for_more() -> None:
    parser = Parser()

    assert list(parser.feed(b"data: a\r\n\r")) == [Frame("a")]


def test_lines_of_data_are_joined() -> None:
    assert data(b"data: a\ndata:\ndata: b\n\n") == ["a\n\nb"]


def test_one_space_after_the_colon_goes() -> None:
    assert data(b"data:a\n\ndata: b\n\ndata:  c\n\n") == ["a", "b", " c"]


def test_a_field_without_a_colon_is_empty() -> None:
    assert data(b"data\n\n") == [""]


def test_a_byte_order_mark_is_dropped_once() -> None:
    assert data(b"\xef\xbb", b"\xbfdata: a\n\n") == ["a"]
    assert parse(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n") == [Stray("\ufeffdata: a")]


def test_comments_are_no_events() -> None:
    assert parse(b": keep-alive\n\n:\n\n: x\ndata: a\n\n") == [Frame("a")]


def test_an_event_without_data_is_none_but_its_id_stays() -> None:
    assert parse(b"event: ping\n\nid: 7\n\ndata: a\n\ndata: b\n\n") == [
        Frame("a", "", "7"),
        Frame("b", "", "7"),
    ]


def test_an_id_with_a_null_is_ignored_and_an_empty_one_clears() -> None:
    assert parse(b"id: 7\nid: a\0b\ndata: a\n\nid\ndata: b\n\n") == [
        Frame("a", "", "7"),
        Frame("b"),
    ]


def test_a_retry_counts_if_it_is_a_number() -> None:
    parser = Parser()
    list(parser.feed(b"retry: 3000\n\nretry: 4s\n\nretry: -1\n\nretry: \xd9\xa3\n\n"))

    assert parser.retry == 3000


def test_the_event_is_named_and_forgotten_after_it() -> None:
    assert parse(b"event: error\ndata: a\n\ndata: b\n\n") == [Frame("a", "error"), Frame("b")]


def test_characters_may_be_cut_anywhere() -> None:
    raw = "data: 天気 🌦\n\n".encode()

    assert data(*(raw[n : n + 1] for n in range(len(raw)))) == ["天気 🌦"]


def test_what_is_no_utf8_is_replaced() -> None:
    assert data(b"data: a\xff\n\n") == ["a\ufffd"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_nothing_else_ends_a_line(separator: str) -> None:
    assert data(f"data: a{separator}b\n\n".encode()) == [f"a{separator}b"]


@pytest.mark.parametrize("rest", [b"data: a", b"data: a\n", b"da", b"data: x\n\ndata: a\r\n"])
def test_an_event_that_is_cut_is_none_and_that_is_told(rest: bytes) -> None:
    parser = Parser()
    items = [*parser.feed(rest), *parser.end()]

    assert parser.cut
    assert Frame("a") not in items


def test_a_stream_that_ends_behind_a_blank_line_is_not_cut() -> None:
    parser = Parser()
    list(parser.feed(b": x\n\ndata: a\n\n"))

    assert not parser.cut


def test_bare_json_between_events_is_handed_on() -> None:
    assert parse(b'data: a\n\n{\n  "error": 1\n}') == [
        Frame("a"),
        Stray("{"),
        Stray('  "error": 1'),
        Stray("}"),
    ]


@pytest.mark.parametrize("piece", [b"a" * 1000, b"a" * (3 * LONGEST_LINE)])
def test_a_line_without_an_end_is_a_fault(piece: bytes) -> None:
    with pytest.raises(UpstreamFault) as caught:
        parse(*[piece] * 2000)

    assert caught.value.code == "too_long"


def test_an_event_without_an_end_is_a_fault() -> None:
    line = b"data: " + b"a" * 10_000 + b"\n"
    with pytest.raises(UpstreamFault) as caught:
        parse(*[line] * (2 * LONGEST_FRAME // 10_000))

    assert caught.value.code == "too_long"


def test_a_line_may_come_byte_by_byte_and_be_as_long_as_is_allowed() -> None:
    raw = b"data: " + b"a" * (LONGEST_LINE - 6) + b"\n\n"

    assert len(data(*(raw[n : n + 7] for n in range(0, len(raw), 7)))[0]) == LONGEST_LINE - 6


PIECES = st.sampled_from(
    [b"data: a", b"data:{}", b"data", b": c", b"event: e", b"id: 1", b"retry: 5", b"\xef\xbb\xbf"]
    + [b"{", b"x: y", "data: é🌦".encode(), b"\xf0\x9f"]
    + 2 * [b"\n", b"\r", b"\r\n", b"\n\n"]
)


@given(st.lists(PIECES, max_size=40).map(b"".join), st.lists(st.integers(0, 10_000), max_size=20))
@example(b"data: a\r\n\r\n", [8, 10])
def test_it_does_not_matter_where_a_stream_is_cut(raw: bytes, places: Iterable[int]) -> None:
    assert parse(*cut(raw, places)) == parse(raw)


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed(raw: bytes) -> None:
    parse(raw)
