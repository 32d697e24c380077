"""What a slow or silent peer gets, and that an answer has no deadline."""

import socket
from collections.abc import Iterator
from datetime import timedelta

import pytest

from edge.limits import Limits
from tests.unit.lobby import LARGE, SHORT, Lobby, get, post, refused
from tests.unit.serving import PATIENCE, Peer, served


@pytest.fixture(scope="module")
def hasty() -> Iterator[int]:
    with served(Lobby().app(), limits=SHORT) as port:
        yield port


@pytest.fixture
def hasty_lobby() -> Iterator[tuple[Lobby, int]]:
    lobby = Lobby()
    with served(lobby.app(), limits=SHORT) as port:
        yield lobby, port


def test_a_connection_that_says_nothing_is_ended(hasty: int) -> None:
    with Peer(hasty) as peer:
        assert peer.rest() == b""


@pytest.mark.parametrize("raw", [b"GET", b"GET /x HTTP/1.1\r\n", get()[:-2] + b"A: "])
def test_half_a_head_is_answered_408(hasty: int, raw: bytes) -> None:
    answer = refused(hasty, raw)

    assert (answer.status, answer.code) == (408, "request_timeout")


def test_half_a_head_after_an_answer_is_answered_408(hasty: int) -> None:
    with Peer(hasty) as peer:
        first = peer.ask(get())
        second = peer.ask(b"GET /x HT")
        rest = peer.rest()

    assert (first.status, second.status, rest) == (200, 408, b"")


@pytest.mark.parametrize(
    "raw",
    [
        post(b"Content-Length: 50\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhel"),
        post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n"),
    ],
)
def test_half_a_body_is_answered_408(hasty: int, raw: bytes) -> None:
    answer = refused(hasty, raw)

    assert (answer.status, answer.code) == (408, "request_timeout")


def test_a_body_that_trickles_is_answered_408(hasty: int) -> None:
    with Peer(hasty) as peer:
        peer.send(post(b"Content-Length: 5000\r\n", b""))
        peer.socket.settimeout(0.02)
        raw = b""
        while not raw:
            peer.send(b"x")
            try:
                raw = peer.socket.recv(20)
            except TimeoutError:
                raw = b""

    assert raw.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_keeps_the_rate_may_take_longer() -> None:
    patient = Limits(header_time=timedelta(seconds=9), body_time=SHORT.body_time, body_rate=1)
    with served(Lobby().app(), limits=patient) as port, Peer(port) as peer, Peer(port) as other:
        # 5 bytes have earned 5 seconds; the other one earned none, and shows the time.
        peer.send(post(b"Content-Length: 10\r\n"))
        late = other.ask(post(b"Content-Length: 10\r\n", b""))
        answer = peer.ask(b"world")

    assert late.status == 408
    assert answer.json["body"] == "helloworld"


def test_the_deadlines_do_not_cut_a_stream(hasty_lobby: tuple[Lobby, int]) -> None:
    lobby, port = hasty_lobby
    with Peer(port) as peer:
        peer.send(get(b"/stream"))
        peer.begun()
        first = peer.chunk()
        pass_deadline(port)
        with Peer(port) as slow:
            assert slow.ask(post(b"Content-Length: 5\r\n", b"")).status == 408  # the other deadline
        lobby.release()
        rest = [peer.chunk(), peer.chunk()]

    assert [first, *rest] == [b"hello", b"goodbye", b""]


def test_a_stream_is_not_cut_by_a_body_that_never_ends(hasty_lobby: tuple[Lobby, int]) -> None:
    lobby, port = hasty_lobby
    with Peer(port) as peer, Peer(port) as slow:
        peer.send(post(b"Content-Length: 5\r\n", b"", b"/stream"))
        peer.begun()
        first = peer.chunk()
        assert slow.ask(post(b"Content-Length: 5\r\n", b"")).status == 408
        lobby.release()
        rest = [peer.chunk(), peer.chunk(), peer.rest()]

    assert [first, *rest] == [b"hello", b"goodbye", b"", b""]


def test_nobody_is_late_with_a_body_that_is_not_wanted_yet(
    hasty_lobby: tuple[Lobby, int],
) -> None:
    lobby, port = hasty_lobby
    half = b"x" * 150_000
    with Peer(port) as peer:
        peer.send(post(b"Content-Length: 300000\r\n", half, b"/late"))
        pass_deadline(port)
        lobby.release()
        answer = peer.ask(half)

    assert len(answer.json["body"]) == 300_000


def test_nobody_is_late_who_was_not_told_to_continue(hasty_lobby: tuple[Lobby, int]) -> None:
    lobby, port = hasty_lobby
    with Peer(port) as peer:
        peer.send(post(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"", b"/late"))
        pass_deadline(port)
        lobby.release()
        told = peer.answer()
        answer = peer.ask(b"hello")

    assert (told.status, answer.status) == (100, 200)


def pass_deadline(port: int) -> None:
    with Peer(port) as idle:
        assert idle.rest() == b""


def flood(peer: Peer) -> None:
    peer.socket.settimeout(0.3)
    for _ in range(1000):
        peer.send(get() * 5000)


@pytest.mark.parametrize("path", [b"/stream", b"/poll"])
def test_requests_behind_an_answer_are_not_read_without_limit(
    hasty_lobby: tuple[Lobby, int], path: bytes
) -> None:
    lobby, port = hasty_lobby
    with Peer(port) as peer:
        peer.send(get(path))
        # The system takes a few MB; then nobody reads any more.
        with pytest.raises(TimeoutError):
            flood(peer)
        peer.socket.settimeout(PATIENCE)
        lobby.release()
        answer = peer.answer()

    assert answer.status == 200


def test_the_next_request_waits_until_the_answer_before_is_read(
    hasty_lobby: tuple[Lobby, int],
) -> None:
    lobby, port = hasty_lobby
    with Peer(port) as peer:
        peer.send(get(b"/large") * 2)
        pass_deadline(port)
        seen = list(lobby.seen)
        answers = [peer.answer(), peer.answer()]

    assert seen == ["GET /large"]
    assert [len(answer.body) for answer in answers] == [LARGE, LARGE]


def test_a_peer_that_does_not_read_its_answer_is_given_up(hasty: int) -> None:
    with Peer(hasty) as peer:
        peer.send(get(b"/large", b"Connection: close\r\n"))
        for _ in range(2):
            pass_deadline(hasty)  # longer than a goodbye
        received = len(peer.rest())

    assert 0 < received < LARGE


def test_a_peer_that_reads_its_answer_slowly_gets_it_whole(hasty: int) -> None:
    with Peer(hasty) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.send(get(b"/large", b"Connection: close\r\n"))
        answer = peer.answer()

    assert len(answer.body) == LARGE
