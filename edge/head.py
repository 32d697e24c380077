"""The head of a request, read from raw bytes: what HTTP allows, and less where it is ambiguous.

The parser behind (llhttp) forgives what a smuggler needs, so it only sees what passed here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from edge.hosts import read_host
from edge.limits import Limits
from edge.problem import Refusal, quote

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
WITHOUT_BODY = frozenset({"GET", "HEAD", "TRACE"})

REQUEST_LINE = re.compile(rb"([A-Z][A-Z_-]{0,31}) ([\x21-\x7e]+) HTTP/1\.([01])")
ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)(.*)")
NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:")
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
# 18 digits fit a signed 64-bit integer, with which every layer can count.
LENGTH = re.compile(rb"[0-9]{1,18}")
ESCAPE_FAULT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
REWRITTEN = (b"content-length:", b"transfer-encoding:")
READ = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade", b"connection"})
# Room for the longest method and the version around the longest URL.
REQUEST_LINE_REST = 48


@dataclass(frozen=True)
class Head:
    """A request that may be answered. `raw` is what the parser gets of it.

    The body has `length` bytes, unless it is `chunked`. `host` is canonical, and None only in
    HTTP/1.0. `raw` names its target by path, and asks for an upgrade only if `websocket` is set.
    """

    method: str
    host: str | None
    length: int
    chunked: bool
    websocket: bool
    raw: bytes


class HeadScanner:
    """Reads one head from the front of a buffer that grows.

    Each byte is looked at once, however slowly they come.
    """

    def __init__(self, limits: Limits, *, upgrades: bool = False) -> None:
        self._limits = limits
        self._upgrades = upgrades
        self._start = 0
        self._searched = 0
        self._request_line: re.Match[bytes] | None = None
        self._lines: list[bytes] = []
        self._fields: dict[bytes, list[bytes]] = {}

    @property
    def target(self) -> str:
        """What the request asks for, as far as it is known; else empty."""
        return self._request_line[2].decode() if self._request_line else ""

    def scan(self, buffer: bytearray) -> Head | None:
        """Remove the head from `buffer` and return it, None as long as it is incomplete.

        Raises Refusal 400 for a head that HTTP/1.1 does not allow or that can be read in two
        ways, 405 for a method nobody has, 414 and 431 for one that is too long, 421 for one that
        names two hosts.
        """
        while (end := buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(buffer[self._start : end])
            self._start = self._searched = end + 1
            self._check_size(end + 1)
            if not line.endswith(b"\r"):
                raise Refusal(400, "invalid_request", "a line of the head ends without CR")
            if self._take(line[:-1]):
                del buffer[: self._start]
                return self._finish()
        self._searched = len(buffer)
        self._check_size(len(buffer))
        self._check_beginning(buffer)
        return None

    def _check_size(self, size: int) -> None:
        longest = self._limits.url_bytes + REQUEST_LINE_REST
        if self._request_line is None and size > longest:
            raise Refusal(414, "uri_too_long", f"the request line is longer than {longest} bytes")
        longest = self._limits.header_bytes
        if size > longest:
            raise Refusal(431, "headers_too_large", f"the head is longer than {longest} bytes")

    def _check_beginning(self, buffer: bytearray) -> None:
        # TLS and binary protocols have no line ends to wait for.
        if self._request_line is None and buffer[self._start : self._start + 1].strip(b"\r"):
            first = buffer[self._start]
            if not 0x41 <= first <= 0x5A:
                raise _not_a_request_line(bytes(buffer[self._start :]))

    def _take(self, line: bytes) -> bool:
        """Take one line. Return whether it was the empty one at the end."""
        if self._request_line is None:
            # RFC 9112 2.2: an empty line before the request is forgiven, once.
            if line or self._start > 2:
                self._request_line = self._read_request_line(line)
            return False
        if line:
            self._read_field(line)
        return not line

    def _read_request_line(self, line: bytes) -> re.Match[bytes]:
        found = REQUEST_LINE.fullmatch(line)
        if found is None:
            raise _not_a_request_line(line)
        longest = self._limits.url_bytes
        if len(found[2]) > longest:
            raise Refusal(414, "uri_too_long", f"the URL is longer than {longest} bytes")
        return found

    def _read_field(self, line: bytes) -> None:
        found = FIELD.fullmatch(line)
        if found is None:
            raise self._not_a_field(line)
        if len(self._lines) >= self._limits.headers:
            detail = f"the request has more than {self._limits.headers} headers"
            raise Refusal(431, "headers_too_large", detail)
        self._lines.append(line)
        name = found[1].lower()
        if name in READ:
            self._fields.setdefault(name, []).append(found[2].strip(b" \t"))

    def _not_a_field(self, line: bytes) -> Refusal:
        # The value is not quoted, nor what has no name: it may be a credential.
        if name := NAME.match(line):
            detail = f"header {quote(name[0][:-1])} has control characters in its value"
        else:
            detail = f"header {len(self._lines) + 1} is not 'name: value' on one line"
        return Refusal(400, "invalid_header", detail)

    def _finish(self) -> Head:
        assert self._request_line is not None
        method, target, minor = self._request_line.groups()
        authority, path = _split_target(target)
        self._check_query(path)
        _check_escapes(path)
        host = self._host(authority, required=minor != b"0")
        length, chunked = self._framing(chunks=minor != b"0")
        if method.decode() not in METHODS:
            raise _unknown_method(method)
        if method.decode() in WITHOUT_BODY and (length or chunked):
            raise Refusal(400, "unexpected_body", f"a {method.decode()} request takes no body")
        websocket = self._websocket(method, length, chunked)
        line = b"%b %b HTTP/1.%b" % (method, path, minor)
        lines = (line, *self._kept(websocket), *self._ending(length, chunked), b"", b"")
        return Head(method.decode(), host, length, chunked, websocket, b"\r\n".join(lines))

    def _check_query(self, path: bytes) -> None:
        longest = self._limits.query_keys
        if path.partition(b"?")[2].count(b"&") >= longest:
            raise Refusal(414, "uri_too_long", f"the query has more than {longest} keys")

    def _host(self, authority: bytes | None, *, required: bool) -> str | None:
        found = self._fields.get(b"host", [])
        if len(found) > 1:
            raise Refusal(400, "invalid_host", f"the request has {len(found)} Host headers")
        if not found and required:
            raise Refusal(400, "invalid_host", "the request has no Host header")
        host = read_host(found[0]) if found else None
        if authority is None:
            return host
        # RFC 9112 3.2.2 lets the target decide; then whoever reads the header reads a lie.
        named = read_host(authority)
        if host not in (named, None):
            detail = f"the URL names host {quote(named)} and the Host header another one"
            raise Refusal(421, "misdirected_request", detail)
        return named

    def _framing(self, *, chunks: bool) -> tuple[int, bool]:
        """Return the length of the body, and whether it comes in chunks instead."""
        lengths = self._fields.get(b"content-length", [])
        codings = self._fields.get(b"transfer-encoding", [])
        if len(lengths) + len(codings) > 1:
            detail = "the request has more than one Content-Length or Transfer-Encoding"
            raise Refusal(400, "invalid_framing", detail)
        if codings:
            return 0, _read_coding(codings[0], chunks)
        if lengths and not LENGTH.fullmatch(lengths[0]):
            detail = f"Content-Length is {quote(lengths[0], 40)}, expected up to 18 digits"
            raise Refusal(400, "invalid_framing", detail)
        return (int(lengths[0]) if lengths else 0), False

    def _websocket(self, method: bytes, length: int, chunked: bool) -> bool:
        wanted = [value.lower() for value in self._fields.get(b"upgrade", [])]
        plain = method == b"GET" and not length and not chunked
        return self._upgrades and plain and wanted == [b"websocket"] and self._connection_upgrade()

    def _connection_upgrade(self) -> bool:
        tokens = b",".join(self._fields.get(b"connection", [])).lower().split(b",")
        return b"upgrade" in {token.strip() for token in tokens}

    def _kept(self, websocket: bool) -> Iterable[bytes]:
        # An upgrade that nobody does makes llhttp read the body as the next request.
        dropped = REWRITTEN if websocket else (*REWRITTEN, b"upgrade:")
        return (line for line in self._lines if not line.lower().startswith(dropped))

    def _ending(self, length: int, chunked: bool) -> Iterable[bytes]:
        """Where the body ends, in the one spelling that every parser understands."""
        if chunked:
            yield b"Transfer-Encoding: chunked"
        elif b"content-length" in self._fields:
            yield b"Content-Length: %d" % length


def _not_a_request_line(line: bytes) -> Refusal:
    first = quote(line.partition(b" ")[0], 24)
    detail = f"the request begins with {first}, expected 'METHOD /path HTTP/1.1' in ASCII"
    return Refusal(400, "invalid_request", detail)


def _unknown_method(method: bytes) -> Refusal:
    detail = f"method {quote(method.decode())} is not known, expected one of {', '.join(METHODS)}"
    return Refusal(405, "method_not_allowed", detail, headers={"Allow": ", ".join(METHODS[:-1])})


def _split_target(target: bytes) -> tuple[bytes | None, bytes]:
    """Return the authority, if the target has one, and the path with its query."""
    absolute = ABSOLUTE.fullmatch(target)
    authority = absolute[1] if absolute else None
    path = absolute[2] if absolute else target
    if absolute and not path.startswith(b"/"):
        path = b"/" + path
    if not path.startswith(b"/") or b"#" in path:
        raise Refusal(400, "invalid_request", "the target of the request must be '/path?query'")
    return authority, path


def _check_escapes(target: bytes) -> None:
    # Whoever decodes it later replaces what is not UTF-8, and two names become one.
    if b"%" not in target:
        return
    path, _, query = target.partition(b"?")
    if ESCAPE_FAULT.search(target):
        raise Refusal(400, "invalid_parameter", "the URL has a '%' without two hex digits")
    for part, raw in (("path", path), ("query", query)):
        try:
            text = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise Refusal(400, "invalid_parameter", f"the {part} is not UTF-8") from None
        if "\0" in text or (part == "path" and CONTROL.search(text)):
            raise Refusal(400, "invalid_parameter", f"the {part} has control characters")


def _read_coding(coding: bytes, allowed: bool) -> bool:
    if coding.lower() != b"chunked" or not allowed:
        shown = quote(coding, 40)
        detail = f"Transfer-Encoding is {shown}, expected 'chunked' alone, in HTTP/1.1"
        raise Refusal(400, "invalid_framing", detail)
    return True
