"""Requests on one connection, and connections beside each other, over the real wire."""

import socket
from collections.abc import Iterator

import pytest

from edge.limits import Limits
from edge.problem import Answering, Answers
from tests.unit.lobby import SHORT, Lobby, get, post
from tests.unit.serving import PATIENCE, Peer, served


@pytest.fixture(scope="module")
def lobby() -> Lobby:
    return Lobby()


@pytest.fixture(scope="module")
def port(lobby: Lobby) -> Iterator[int]:
    with served(lobby.app()) as port:
        yield port


def test_an_absolute_target_is_served_by_its_path(port: int) -> None:
    with Peer(port) as peer:
        answer = peer.ask(get(b"http://localhost:8000/a/b?c=d"))

    assert (answer.json["path"], answer.json["query"]) == ("/a/b", "c=d")


def test_one_empty_line_before_a_request_is_forgiven(port: int) -> None:
    with Peer(port) as peer:
        assert peer.ask(b"\r\n" + get()).status == 200


def test_http_1_0_is_answered_without_host_and_the_connection_ends(port: int) -> None:
    with Peer(port) as peer:
        answer = peer.ask(b"GET /x HTTP/1.0\r\n\r\n")
        rest = peer.rest()

    assert (answer.status, answer.headers["connection"], rest) == (200, "close", b"")


def test_what_is_allowed_may_be_as_large_as_the_limits(port: int) -> None:
    target = b"/" + b"a" * 3000 + b"?" + b"&".join([b"b=1"] * 100)
    many = b"".join(b"A%d: %b\r\n" % (n, b"c" * 100) for n in range(63))
    with Peer(port) as peer:
        answer = peer.ask(get(target, many))

    assert answer.status == 200
    assert len(answer.json["headers"]) == 64


def test_requests_in_a_row_are_answered_in_order(port: int) -> None:
    body = b"GET /no HTTP/1.1\r\n\r\n"
    length = b"Content-Length: %d\r\n" % len(body)
    chunks = b"Transfer-Encoding: chunked\r\n"
    with Peer(port) as peer:
        peer.send(
            get(b"/1")
            + post(length, body, b"/2")
            + post(chunks, b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: z\r\n\r\n", b"/3")
            + get(b"/4", b"Connection: close\r\n")
        )
        answers = [peer.answer().json for _ in range(4)]
        rest = peer.rest()

    assert [answer["path"] for answer in answers] == ["/1", "/2", "/3", "/4"]
    assert [answer["body"] for answer in answers] == ["", body.decode(), "abcde", ""]
    assert rest == b""


def test_requests_are_read_byte_by_byte(port: int) -> None:
    chunks = b"Transfer-Encoding: chunked\r\n"
    raw = (
        get(b"/1")
        + post(b"Content-Length: 5\r\n", path=b"/2")
        + post(chunks, b"a\r\n0123456789\r\n0\r\n\r\n", b"/3")
    )
    with Peer(port) as peer:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in raw:
            peer.send(bytes([byte]))
        answers = [peer.answer().json for _ in range(3)]

    assert [answer["path"] for answer in answers] == ["/1", "/2", "/3"]
    assert [answer["body"] for answer in answers] == ["", "hello", "0123456789"]


def test_a_later_request_on_a_connection_is_looked_at_as_the_first_one(
    port: int, lobby: Lobby
) -> None:
    lobby.seen.clear()
    with Peer(port) as peer:
        peer.send(get(b"/1") + post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"))
        answers = [peer.answer(), peer.answer()]
        rest = peer.rest()

    assert [answer.status for answer in answers] == [200, 400]
    assert lobby.seen == ["GET /1"]
    assert rest == b""


def test_trailers_do_not_become_headers(port: int) -> None:
    body = b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\nHost: evil.example\r\n\r\n"
    with Peer(port) as peer:
        answer = peer.ask(post(b"Transfer-Encoding: chunked\r\n", body))

    assert answer.json["headers"] == {"host": "localhost", "transfer-encoding": "chunked"}


def test_a_body_behind_an_upgrade_nobody_does_is_not_the_next_request(port: int) -> None:
    body = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n" % len(body)
    with Peer(port) as peer:
        first = peer.ask(post(upgrade, body, b"/1"))
        second = peer.ask(get(b"/2"))

    assert first.json["body"] == body.decode()
    assert second.json["path"] == "/2"


def test_a_body_that_is_refused_before_it_was_asked_for_leaves_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = Answers()
    app = Answering(Lobby().app(), answers)
    head = b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
    with served(app) as port, Peer(port) as peer:
        answer = peer.ask(post(head, b"x\r\n"))
        rest = peer.rest()

    assert (answer.status, rest) == (400, b"")
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


def test_a_large_body_arrives_whole(port: int) -> None:
    body = bytes(range(256)) * 4000
    with Peer(port) as peer:
        answer = peer.ask(post(b"Content-Length: %d\r\n" % len(body), body))

    assert answer.json["body"].encode("latin-1") == body


def test_one_byte_chunks_arrive_whole(port: int) -> None:
    body = b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
    with Peer(port) as peer:
        answer = peer.ask(post(b"Transfer-Encoding: chunked\r\n", body))

    assert answer.json["body"] == "x" * 50_000


def test_a_client_that_waits_is_told_to_continue(port: int) -> None:
    with Peer(port) as peer:
        peer.send(post(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b""))
        told = peer.answer()
        answer = peer.ask(b"hello")

    assert told.status == 100
    assert answer.json["body"] == "hello"


def test_an_answer_before_the_end_of_the_body_can_be_read_by_who_still_sends(port: int) -> None:
    with Peer(port) as peer:
        peer.send(post(b"Content-Length: 1000000\r\n", b"x" * 1000, b"/early"))
        # As much again after the answer: a reset would show here.
        answer = peer.answer()
        peer.send(b"x" * 900_000)
        rest = peer.rest()

    assert (answer.status, answer.headers["connection"], rest) == (413, "close", b"")


def test_a_stream_hears_of_a_client_that_left(port: int, lobby: Lobby) -> None:
    lobby.left.clear()
    with Peer(port) as peer:
        peer.send(get(b"/stream"))
        peer.begun()
        peer.chunk()

    assert lobby.left.wait(PATIENCE)


def test_one_connection_too_many_is_answered_503() -> None:
    limits = Limits(connections=2)
    with served(Lobby().app(), limits=limits) as port, Peer(port) as first, Peer(port) as second:
        before = [first.ask(get()).status, second.ask(get()).status]
        with Peer(port) as third:
            refusal = third.ask(get())
            rest = third.rest()
        after = [first.ask(get()).status, second.ask(get()).status]

    assert (before, after, rest) == ([200, 200], [200, 200], b"")
    assert (refusal.status, refusal.code) == (503, "too_many_connections")
    assert refusal.headers["retry-after"] == "1"


def test_a_place_that_becomes_free_is_given_to_the_next_one() -> None:
    with served(Lobby().app(), limits=Limits(connections=1)) as port:
        with Peer(port) as first:
            assert first.ask(get(more=b"Connection: close\r\n")).status == 200
            assert first.rest() == b""
        with Peer(port) as second:
            answer = second.ask(get())

    assert answer.status == 200


def test_stopping_ends_idle_connections_and_finishes_answers() -> None:
    lobby = Lobby()
    with served(lobby.app()) as port:
        idle, busy = Peer(port), Peer(port)
        idle.ask(get())
        busy.send(get(b"/stream"))
        busy.begun()
        first = busy.chunk()
        lobby.release()
        rest = [busy.chunk(), busy.chunk()]
    with idle, busy:
        ends = [idle.rest(), busy.rest()]

    assert [first, *rest, *ends] == [b"hello", b"goodbye", b"", b"", b""]


def test_a_websocket_passes_with_what_it_sent_too_early() -> None:
    shake = (
        b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    with served(Lobby().app(), ws="websockets-sansio", limits=SHORT) as port, Peer(port) as peer:
        peer.send(get(b"/ws", shake) + b"\x81\x82\0\0\0\0hi")
        status, _ = peer.begun()
        first = peer.read(4)
        with Peer(port) as idle:
            assert idle.rest() == b""  # the deadlines pass
        peer.send(b"\x81\x83\0\0\0\0you")
        second = peer.read(5)

    assert status == 101
    assert (first, second) == (b"\x81\x02hi", b"\x81\x03you")
