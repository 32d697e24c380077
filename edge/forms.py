"""A multipart form as it arrives: one part after the other, and none of them held as a whole.

Source: RFC 7578, and RFC 2046 5.1.1 for boundaries. The parser is the library `multipart`.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser
from starlette.requests import ClientDisconnect, Request

from edge.body import read_body
from edge.problem import Refusal, quote

MEDIA = "multipart/form-data"
PAIRS = "application/x-www-form-urlencoded"

PARAMETERS = re.compile(r'(?:\s*;\s*[A-Za-z0-9_-]+=(?:"[^"\\\r\n]*"|[^\s;"]+))*\s*;?\s*')
BOUNDARIES = re.compile(r';\s*boundary=(?:"([^"\\\r\n]*)"|([^\s;"]+))', re.IGNORECASE)
BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")

UNENCODED = frozenset({"", "identity", "binary", "8bit", "7bit"})
MOST_SILENT = 64 * 1024
"""Bytes that may belong to no part: before the first one, or behind the last one."""
HEADER_BYTES = 4 * 1024
HEADERS = 8


@dataclass(frozen=True)
class FormLimits:
    """How much one form may hold: bytes in all, parts, and characters of a part's name."""

    total: int
    parts: int
    name: int = 64


class Part:
    """One part. `filename` is what its sender calls a file, None for a plain field.

    `media` is what its sender says it is, in lower case; nothing if it says nothing.
    """

    def __init__(self, segment: MultipartSegment, events: AsyncIterator[object]) -> None:
        self.name: str = segment.name or ""
        self.filename: str | None = segment.filename
        self.media: str = segment.content_type or ""
        self._events = events
        self._ended = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """The content, piece by piece as it arrives. It can be read once."""
        while not self._ended:
            event = await anext(self._events)
            if event is None:
                self._ended = True
            else:
                assert isinstance(event, bytes)
                yield event

    async def text(self, limit: int) -> str:
        """The content as text. Raises Refusal 413 if it is longer than `limit` bytes, else 422."""
        content = b""
        async for piece in self.pieces():
            content += piece
            check_length(self.name, len(content), limit)
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise invalid_field(self.name, "is not UTF-8") from None


async def read_form(request: Request, limits: FormLimits) -> AsyncIterator[Part]:
    """Read the parts of a form; each must be read before the next is asked for.

    Raises Refusal 400 `invalid_multipart` for what is no form, or not a whole one, 413
    `body_too_large` or `too_many_parts`, 415 for a part that is encoded.
    """
    events = _read_events(request, limits)
    async for event in events:
        assert isinstance(event, MultipartSegment)
        _check_segment(event, limits)
        part = Part(event, events)
        yield part
        async for _ in part.pieces():
            pass


async def read_pairs(request: Request, limits: FormLimits) -> list[tuple[str, str]]:
    """Read a form of text fields only, which is not in parts (WHATWG URL 5.1).

    Raises Refusal 400 `invalid_form`, 413 `body_too_large` or `too_many_parts`.
    """
    raw = await read_body(request, limits.total)
    if raw.count(b"&") >= limits.parts:
        detail = f"the form has more than {limits.parts} fields"
        raise Refusal(413, "too_many_parts", detail, limit=limits.parts)
    try:
        text = raw.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise Refusal(400, "invalid_form", "the form is not URL-encoded UTF-8") from None


async def _read_events(request: Request, limits: FormLimits) -> AsyncIterator[object]:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > limits.total:
        raise _too_large(limits)
    with _told():
        parser = PushMultipartParser(
            _read_boundary(request.headers.get("content-type", "")),
            max_header_size=HEADER_BYTES,
            max_header_count=HEADERS,
            max_segment_count=limits.parts,
        )
        received = silent = 0
        async for chunk in request.stream():
            received, silent = received + len(chunk), silent + len(chunk)
            if received > limits.total:
                raise _too_large(limits)
            if chunk:
                for event in parser.parse(chunk):
                    silent = 0
                    yield event
            if silent > MOST_SILENT:
                raise _invalid(f"{silent} bytes belong to no part")
        parser.close()


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the parser and the connection raise into what a client is told."""
    try:
        yield
    except ParserLimitReached as error:
        code = "too_many_parts" if "count" in str(error) else "part_too_large"
        raise Refusal(413, code, f"the form is not taken: {error}") from None
    except MultipartError as error:
        raise _invalid(str(error)) from None
    except ClientDisconnect:
        raise Refusal(400, "body_incomplete", "the connection ended before the body") from None


def _read_boundary(content_type: str) -> str:
    """Return the boundary that a Content-Type names. Raises Refusal 400."""
    rest = content_type[len(content_type.partition(";")[0]) :]
    found = BOUNDARIES.findall(rest) if PARAMETERS.fullmatch(rest) else []
    boundary = "".join(found[0]) if len(found) == 1 else ""
    if not BOUNDARY.fullmatch(boundary):
        detail = f"Content-Type is {quote(content_type)}"
        raise _invalid(f"{detail}, expected one boundary of 1 to 70 characters")
    return boundary


def _check_segment(segment: MultipartSegment, limits: FormLimits) -> None:
    name = segment.name or ""
    if not name:
        raise _invalid("a part has no name")
    if len(name) > limits.name:
        raise Refusal(413, "part_too_large", f"{quote(name)} is too long for the name of a field")
    if (segment.content_type or "").startswith("multipart/"):
        raise _invalid(f"{quote(name)} holds parts of its own")
    for header in ("Content-Encoding", "Content-Transfer-Encoding"):
        value = str(segment.header(header, ""))
        if value.strip().lower() not in UNENCODED:
            detail = f"{quote(name)} has the {header} {quote(value)}, expected none"
            raise Refusal(415, "unsupported_media_type", detail)


def invalid_field(name: str, reason: str) -> Refusal:
    """Return the refusal of one field of a form, which it names."""
    faults = [{"detail": reason, "pointer": f"/{name}"}]
    return Refusal(422, "invalid_field", f"{name}: {reason}", errors=faults)


def check_length(name: str, size: int, limit: int) -> None:
    """Raise Refusal 413 for a field of more than `limit` bytes."""
    if size > limit:
        detail = f"{quote(name)} is longer than {limit} bytes; what is longer can be sent as a file"
        raise Refusal(413, "field_too_large", detail, limit=limit)


def _too_large(limits: FormLimits) -> Refusal:
    detail = f"the form is longer than {limits.total} bytes"
    return Refusal(413, "body_too_large", detail, limit=limits.total)


def _invalid(reason: str) -> Refusal:
    return Refusal(400, "invalid_multipart", f"the form cannot be read: {reason}")
