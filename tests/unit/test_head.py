"""The head scanner: the same answer however the bytes arrive, and stricter than the parser."""

from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.head import Head, HeadScanner
from edge.limits import Limits
from edge.problem import Refusal

TOKENS = st.sampled_from(
    [
        *(b"GET ", b"POST ", b"/", b"/x?a=b", b"http://h/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"),
        *(b"Host: h\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"A:b\r\n", b" b\r\n", b"A : b\r\n"),
        *(b"\r\n", b"\n", b"\r", b"\0", b"\xff", b":", b" ", b"%", b"%41", b"%ff", b"#", b"a"),
    ]
)
HEADS = st.lists(TOKENS, max_size=12).map(b"".join) | st.binary(max_size=60)
LIKELY = HEADS.map(lambda more: b"GET /x HTTP/1.1\r\nHost: h\r\n" + more + b"\r\n\r\n")


class Recorder:
    """What the parser makes of a request."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.done = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.done = True


def scan(*pieces: bytes, **options: Any) -> Head | Refusal | None:
    scanner, buffer = HeadScanner(Limits(), **options), bytearray()
    for piece in pieces:
        buffer += piece
        try:
            if head := scanner.scan(buffer):
                return head
        except Refusal as refusal:
            return refusal
    return None


def told(found: Head | Refusal | None) -> object:
    return (found.status, found.code) if isinstance(found, Refusal) else found


@given(HEADS | LIKELY, st.integers(1, 7))
@example(b"\x16\x03\x01", 1)
@example(b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 1)
def test_a_head_is_read_alike_however_it_arrives(raw: bytes, step: int) -> None:
    pieces = [raw[at : at + step] for at in range(0, len(raw), step)]

    assert told(scan(*pieces)) == told(scan(raw))


@given(HEADS | LIKELY)
def test_what_the_scanner_takes_the_parser_reads_in_the_same_way(raw: bytes) -> None:
    head = scan(raw)
    seen = Recorder()
    parser = httptools.HttpRequestParser(seen)
    if isinstance(head, Head):
        parser.feed_data(head.raw)
        lengths = [value for name, value in seen.headers if name.lower() == b"content-length"]

        assert seen.done
        assert parser.get_method().decode() == head.method
        assert seen.url == head.raw.split(b" ")[1]
        codings = [value for name, value in seen.headers if name.lower() == b"transfer-encoding"]

        assert lengths in ([], [b"%d" % head.length])
        assert sum(map(int, lengths)) == head.length
        assert codings == [b"chunked"] * head.chunked
        assert not parser.should_upgrade()


def test_only_the_head_is_taken_from_the_buffer() -> None:
    buffer = bytearray(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\nrest")
    head = HeadScanner(Limits()).scan(buffer)

    assert head is not None
    assert head.raw == b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
    assert buffer == b"rest"


@pytest.mark.parametrize("upgrades", [False, True])
def test_an_upgrade_is_passed_on_only_where_it_is_done(upgrades: bool) -> None:
    more = b"Connection: keep-alive\r\nConnection: UPGRADE\r\nUpgrade: WebSocket\r\n\r\n"
    head = scan(b"GET /x HTTP/1.1\r\nHost: h\r\n" + more, upgrades=upgrades)

    assert isinstance(head, Head)
    assert head.websocket is upgrades
    assert (b"Upgrade:" in head.raw) is upgrades


@pytest.mark.parametrize(
    "more",
    [b"Upgrade: h2c\r\n", b"Upgrade: websocket\r\nContent-Length: 1\r\n", b"Upgrade: a\r\n" * 2],
)
def test_nothing_but_a_plain_websocket_is_upgraded(more: bytes) -> None:
    raw = b"POST /x HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n" + more + b"\r\n"
    head = scan(raw, upgrades=True)

    assert isinstance(head, Head)
    assert not head.websocket
    assert b"Upgrade" not in head.raw


@pytest.mark.parametrize(
    ("written", "passed"),
    [
        (b"content-LENGTH:\t005 \t", b"Content-Length: 5"),
        (b"Transfer-encoding:ChunkeD\t", b"Transfer-Encoding: chunked"),
    ],
)
def test_the_parser_is_told_in_one_spelling_where_the_body_ends(
    written: bytes, passed: bytes
) -> None:
    head = scan(b"POST / HTTP/1.1\r\n" + written + b"\r\nHost: h\r\n\r\n")

    assert isinstance(head, Head)
    assert head.raw == b"POST / HTTP/1.1\r\nHost: h\r\n" + passed + b"\r\n\r\n"


def test_an_absolute_target_becomes_its_path() -> None:
    head = scan(b"GET http://h:80?a=b HTTP/1.1\r\nHost: H\r\n\r\n")

    assert isinstance(head, Head)
    assert head.raw.startswith(b"GET /?a=b HTTP/1.1\r\n")
    assert head.host == "h"


def test_a_line_of_spaces_takes_no_long_look() -> None:
    spaces = b"A: " + b" " * 16_000 + b"b\r\n"
    heads = [scan(b"GET / HTTP/1.1\r\nHost: h\r\n" + spaces + b"\r\n") for _ in range(100)]

    assert all(isinstance(head, Head) for head in heads)
