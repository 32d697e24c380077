"""Bodies end where they say, however their bytes arrive."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.framing import Chunked, Counted
from edge.limits import Limits
from edge.problem import Refusal

PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


def chunked(pieces: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    body = b"".join(b"%X%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return body + b"0\r\n" + trailer + b"\r\n"


def content(written: bytes) -> bytes:
    """The content of the chunks that a parser gets, none of which has an extension."""
    found = b""
    while size := CHUNK.match(written):
        end = size.end() + int(size[1], 16)
        found += written[size.end() : end]
        written = written[end + 2 :]
    return found


def take(body: Chunked | Counted, raw: bytes, step: int) -> tuple[bytes, bytes]:
    """Return what a body took of `raw` as it came in steps, and what it left."""
    buffer, taken = bytearray(), b""
    for at in range(0, len(raw), step):
        buffer += raw[at : at + step]
        if not body.done:
            taken += body.take(buffer)
    return taken, bytes(buffer)


@given(st.binary(max_size=50), st.integers(0, 60), st.integers(1, 9))
def test_a_counted_body_takes_its_length_and_no_more(raw: bytes, length: int, step: int) -> None:
    body = Counted(length)
    taken, left = take(body, raw, step)

    assert (taken, left) == (raw[:length], raw[length:])
    assert body.received == len(taken)
    assert body.done == (len(raw) >= length)


@given(
    PIECES,
    st.sampled_from([b"", b";a", b" ; a=b", b';a="b;c"']),
    st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC:\r\n"]),
    st.binary(max_size=20),
    st.integers(1, 9),
)
def test_chunks_become_our_own_without_extensions_and_trailers(
    pieces: list[bytes], extension: bytes, trailer: bytes, rest: bytes, step: int
) -> None:
    body = Chunked(Limits())
    taken, left = take(body, chunked(pieces, extension, trailer) + rest, step)

    assert body.done
    assert content(taken) == b"".join(pieces)
    assert taken.endswith(b"0\r\n\r\n")
    assert left == rest
    assert body.received == sum(map(len, pieces))


@given(st.binary(max_size=60), st.integers(1, 9))
def test_what_is_not_chunks_is_refused_alike_however_it_arrives(raw: bytes, step: int) -> None:
    assert outcome(raw, step) == outcome(raw, len(raw) or 1)


def outcome(raw: bytes, step: int) -> object:
    try:
        taken, left = take(Chunked(Limits()), raw, step)
    except Refusal as refusal:
        return refusal.status
    return content(taken), left


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"g\r\n", 400),
        (b"\r\n", 400),
        (b" 1\r\n", 400),
        (b"1 \r\n", 400),
        (b"0x1\r\n", 400),
        (b"+1\r\n", 400),
        (b"1_0\r\n", 400),
        (b"fffffffff\r\n", 400),
        (b"1\n", 400),
        (b"1;a\rb\r\n", 400),
        (b"1;" + b"a" * 300, 400),
        (b"1\r\nabc", 400),
        (b"1\r\na\nb", 400),
        (b"1\r\na\r\r\n", 400),
        (b"0\r\nA : b\r\n", 400),
        (b"0\r\nA\r\n", 400),
        (b"0\r\n" + b"A: b\r\n" * 3000, 431),
    ],
)
def test_faulty_chunks_are_refused(raw: bytes, status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        take(Chunked(Limits()), raw, len(raw))

    assert refusal.value.status == status
