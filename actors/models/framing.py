"""The JSON objects that an answer's body is made of, whichever way it frames them.

Content types are not relied on: servers send events as text/plain and errors as event streams.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from actors.models.objects import Objects, decode
from actors.models.sse import Frame, Parser, Stray
from actors.models.wording import Discretion

DONE = ("[DONE]", '"[DONE]"')
PING = "ping"
_BOM = b"\xef\xbb\xbf"
_TITLE = re.compile(rb"<title[^>]*>(.{0,300}?)</title", re.I | re.S)


class Arrived(msgspec.Struct, frozen=True):
    """One object of an answer, and the name of its event, if it came as one."""

    body: dict[str, Any]
    event: str = ""


class Framing:
    """Takes a body in any pieces, and gives its objects: of events, of lines or of an array."""

    def __init__(self, discretion: Discretion) -> None:
        self.closed = False
        """Whether [DONE] was said, quoted or not; nothing after it counts."""
        self.silent = True
        """Whether nothing at all has come but white space."""
        self._discretion = discretion
        self._head = b""
        self._sse: Parser | None = None
        self._objects = Objects()

    @property
    def cut(self) -> bool:
        """Whether the body has ended within something."""
        return self._objects.cut or (self._sse is not None and self._sse.cut)

    def feed(self, chunk: bytes) -> Iterator[Arrived]:
        """Take some bytes; raises UpstreamFault for what is neither events nor JSON."""
        if self.silent:
            chunk = self._begin(chunk)
        if self._sse is not None:
            yield from self._unframe(self._sse.feed(chunk))
        elif chunk:
            yield from map(self._read, self._objects.feed(chunk))

    def end(self) -> Iterator[Arrived]:
        """No more will come: what is left that has no end of line."""
        if self._sse is not None:
            yield from self._unframe(self._sse.end())

    def _begin(self, chunk: bytes) -> bytes:
        """What there is from the first byte on that is no white space, which tells the frame."""
        head = self._head + chunk
        if _BOM.startswith(head[:3]) and len(head) < 3:
            self._head = head
            return b""
        head = head.removeprefix(_BOM).lstrip()
        self._head = b""
        if head:
            self.silent = False
            if head.startswith(b"<"):
                raise self._discretion.fault("garbled", describe_page(head))
            if not head.startswith((b"{", b"[")):
                self._sse = Parser()
        return head

    def _unframe(self, items: Iterator[Frame | Stray]) -> Iterator[Arrived]:
        for item in items:
            if self.closed:
                continue
            if isinstance(item, Stray):
                yield from self._take_stray(item.line)
            elif item.data.strip() in DONE:
                self.closed = True
            elif item.data.strip() and item.event.lower() != PING:
                yield self._read(item.data, item.event)

    def _take_stray(self, line: str) -> Iterator[Arrived]:
        """JSON that somebody wrote between events; anything else is ignored, as browsers do."""
        if self._objects.cut or line.lstrip().startswith(("{", "[{")):
            yield from map(self._read, self._objects.feed(line.encode() + b"\n"))

    def _read(self, text: str | bytes, event: str = "") -> Arrived:
        try:
            body = decode(text)
        except ValueError:
            said = self._discretion.quote(text)
            raise self._discretion.fault("garbled", f"expected JSON, not {said}") from None
        if isinstance(body, list) and len(body) == 1:
            body = body[0]
        if not isinstance(body, dict):
            said = self._discretion.quote(text)
            raise self._discretion.fault("garbled", f"expected a JSON object, not {said}")
        return Arrived(body, event)


def describe_page(page: bytes) -> str:
    """What an HTML page says of itself, for a reason."""
    title = _TITLE.search(page)
    named = f": {title[1].decode('utf-8', 'replace').strip()}" if title else ""
    return f"an HTML page instead of an answer{named}"
