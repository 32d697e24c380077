"""What the gate lets through to the application, and what it says to the rest."""

from collections.abc import Iterator

import pytest

from tests.unit.lobby import HOST, Lobby, get, post, refused
from tests.unit.serving import Peer, served


@pytest.fixture(scope="module")
def lobby() -> Lobby:
    return Lobby()


@pytest.fixture(scope="module")
def port(lobby: Lobby) -> Iterator[int]:
    with served(lobby.app(), hosts=["callboard.example"]) as port:
        yield port


SMUGGLED = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG = b"a" * 20_000

REFUSED = {
    # Two answers to the question where the body ends
    "length and chunks": (post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
    "chunks and length": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400),
    "a smuggled request": (
        post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", SMUGGLED),
        400,
    ),
    "chunked twice": (post(b"Transfer-Encoding: chunked\r\n" * 2), 400),
    "xchunked": (post(b"Transfer-Encoding: xchunked\r\n"), 400),
    "chunked, identity": (post(b"Transfer-Encoding: chunked, identity\r\n"), 400),
    "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n"), 400),
    "chunked in HTTP/1.0": (
        b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (post(b"Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
    "one length twice": (post(b"Content-Length: 5\r\n" * 2), 400),
    "a list of lengths": (post(b"Content-Length: 5, 5\r\n"), 400),
    "a length with a plus": (post(b"Content-Length: +5\r\n"), 400),
    "a negative length": (post(b"Content-Length: -1\r\n"), 400),
    "a length with an underscore": (post(b"Content-Length: 0_5\r\n"), 400),
    "a hexadecimal length": (post(b"Content-Length: 0x5\r\n"), 400),
    "an empty length": (post(b"Content-Length:\r\n"), 400),
    "a huge length": (post(b"Content-Length: 1" + b"0" * 30 + b"\r\n"), 400),
    "GET with a body": (get(more=b"Content-Length: 5\r\n") + b"hello", 400),
    "a chunk without size": (post(b"Transfer-Encoding: chunked\r\n", b"x\r\n"), 400),
    "a chunk of another size": (post(b"Transfer-Encoding: chunked\r\n", b"2\r\nabc\r\n"), 400),
    "a chunk without CR": (post(b"Transfer-Encoding: chunked\r\n", b"2\nab\r\n0\r\n\r\n"), 400),
    "a negative chunk": (post(b"Transfer-Encoding: chunked\r\n", b"-2\r\nab\r\n"), 400),
    "a size without end": (post(b"Transfer-Encoding: chunked\r\n", b"0" * 300), 400),
    "trailers without end": (post(b"Transfer-Encoding: chunked\r\n", b"0\r\nA: " + LONG), 431),
    # Lines
    "bare LF": (b"GET /x HTTP/1.1\nHost: localhost\n\n", 400),
    "bare LF in the headers": (b"GET /x HTTP/1.1\r\nHost: localhost\nA: b\r\n\r\n", 400),
    "a folded header": (get(more=b"A: b\r\n c\r\n"), 400),
    "a space before the colon": (get(more=b"A : b\r\n"), 400),
    "no colon": (get(more=b"Ab\r\n"), 400),
    "no name": (get(more=b": b\r\n"), 400),
    "NUL in a value": (get(more=b"A: b\0c\r\n"), 400),
    "CR in a value": (get(more=b"A: b\rc\r\n"), 400),
    "a name in Latin 1": (get(more=b"\xe4: b\r\n"), 400),
    # Request lines
    "0xFF in the path": (get(b"/\xff"), 400),
    "two spaces": (b"GET  /x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a fragment": (get(b"/x#y"), 400),
    "no slash": (get(b"x"), 400),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "CONNECT": (b"CONNECT localhost:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n", 400),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 400),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a lower-case method": (b"get /x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "an unknown method": (b"FOO /x HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "two empty lines first": (b"\r\n\r\n" + get(), 400),
    "a bad escape": (get(b"/x%zz"), 400),
    "an escaped NUL": (get(b"/x%00"), 400),
    "an escaped line end": (get(b"/x%0d%0a"), 400),
    "half a character": (get(b"/x%c3"), 400),
    "half a character in the query": (get(b"/x?a=%c3"), 400),
    # Hosts
    "no Host": (b"GET /x HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (get(host=HOST * 2), 400),
    "an empty Host": (get(host=b"Host:\r\n"), 400),
    "a Host with a path": (get(host=b"Host: a/?\r\n"), 400),
    "a Host with a user": (get(host=b"Host: me@localhost\r\n"), 400),
    "a foreign Host": (get(host=b"Host: evil.example\r\n"), 421),
    "a name around ours": (get(host=b"Host: localhost.evil.example\r\n"), 421),
    "a foreign URL": (get(b"http://evil.example/x"), 421),
    "a foreign Host behind our URL": (get(b"http://localhost/x", host=b"Host: e.vil\r\n"), 421),
    # Sizes
    "a header of 20 KB": (get(more=b"A: " + LONG + b"\r\n"), 431),
    "a header of 100 KB": (get(more=b"A: " + LONG * 5 + b"\r\n"), 431),
    "a name without end": (b"GET /x HTTP/1.1\r\n" + LONG, 431),
    "500 headers": (get(more=b"A: b\r\n" * 500), 431),
    "5,000 headers": (get(more=b"A: b\r\n" * 5000), 431),
    "65 headers": (get(more=b"A: b\r\n" * 64), 431),
    "a URL of 100 KB": (get(b"/" + LONG * 5), 414),
    "a URL without end": (b"GET /" + LONG, 414),
    "a URL of 4,097 bytes": (get(b"/" + b"a" * 4096), 414),
    "101 keys": (get(b"/x?" + b"&".join([b"a=1"] * 101)), 414),
}


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_could_be_misread_is_refused_with_a_problem_and_the_end_of_the_connection(
    port: int, lobby: Lobby, raw: bytes, status: int
) -> None:
    lobby.bodies.clear()
    answer = refused(port, raw)

    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json["status"] == status
    assert answer.json["detail"]
    assert lobby.bodies == []


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (get(host=b"Host: evil.example\r\n"), "misdirected_request"),
        (get(host=HOST * 2), "invalid_host"),
        (get(more=b"A : b\r\n"), "invalid_header"),
        (get(b"/x%00"), "invalid_parameter"),
        (get(b"/" + LONG), "uri_too_long"),
        (get(more=b"A: " + LONG), "headers_too_large"),
        (post(b"Content-Length: +5\r\n"), "invalid_framing"),
        (get(more=b"Content-Length: 1\r\n"), "unexpected_body"),
        (b"FOO /x HTTP/1.1\r\n" + HOST + b"\r\n", "method_not_allowed"),
        (b"\x16\x03\x01", "invalid_request"),
    ],
)
def test_a_refusal_has_a_stable_code(port: int, raw: bytes, code: str) -> None:
    assert refused(port, raw).code == code


def test_an_unknown_method_is_told_the_known_ones(port: int) -> None:
    answer = refused(port, b"FOO /x HTTP/1.1\r\n" + HOST + b"\r\n")

    assert answer.headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def test_a_refusal_does_not_repeat_a_credential(port: int) -> None:
    answer = refused(port, get(more=b"Authorization : Bearer hunter2\r\n"))

    assert b"hunter2" not in answer.body


def test_a_refused_head_request_has_no_content(port: int) -> None:
    with Peer(port) as peer:
        peer.send(b"HEAD /x HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        raw = peer.rest()

    assert raw.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
    assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:1", "[::1]:8000", "callboard.example."],
)
def test_our_own_names_are_served(port: int, host: str) -> None:
    with Peer(port) as peer:
        answer = peer.ask(get(host=b"Host: " + host.encode() + b"\r\n"))

    assert answer.status == 200


def test_every_name_is_served_if_the_configuration_says_so() -> None:
    with served(Lobby().app(), hosts=["*"]) as port, Peer(port) as peer:
        answer = peer.ask(get(host=b"Host: evil.example\r\n"))

    assert answer.status == 200


@pytest.mark.parametrize(
    "rest", ["Host: evil.example\r\n\r\n", "Host: a\r\nHost: b\r\n\r\n", "a b\r\n\r\n"]
)
def test_below_the_relay_the_gate_speaks_as_the_relay_does(rest: str) -> None:
    with served(Lobby().app()) as port, Peer(port) as peer:
        peer.send(f"GET /api/relay/logs HTTP/1.1\r\n{rest}".encode())
        answer = peer.answer()

    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"status", "msg", "code"}
