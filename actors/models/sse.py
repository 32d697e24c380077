"""Server-sent events out of bytes, however they were cut: WHATWG HTML, section 9.2.

Lines that belong to no event are handed on: some providers fail by writing bare JSON.
"""

import re
from collections.abc import Iterator

import msgspec

from actors.models.faults import UpstreamFault

LONGEST_LINE = 1024 * 1024
LONGEST_FRAME = 4 * LONGEST_LINE
"""Bytes of one line, and characters of the data of one event."""

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Frame(msgspec.Struct, frozen=True):
    """One event. `id` is the last one that was said, as browsers have it."""

    data: str
    event: str = ""
    id: str = ""


class Stray(msgspec.Struct, frozen=True):
    """A line that is no comment and no field of an event."""

    line: str


class Parser:
    """Takes bytes in any pieces, and gives each event as soon as its blank line is there."""

    def __init__(self) -> None:
        self.retry: int | None = None
        """Milliseconds after which the server wants to be asked again, if it said so."""
        self._open = bytearray()
        self._after_cr = False
        self._first = True
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._id = ""

    @property
    def cut(self) -> bool:
        """Whether something has begun that has not ended: at the end it is lost."""
        return bool(self._data or self._open)

    def feed(self, chunk: bytes) -> Iterator[Frame | Stray]:
        """Take some bytes; raises UpstreamFault where a line or an event has no end."""
        for line in self._split(chunk):
            yield from self._take(line)

    def end(self) -> Iterator[Stray]:
        """No more will come. An event without its blank line is no event; `cut` tells of it."""
        if self._open:
            last = self._decode(bytes(self._open))
            if last[:1] not in (":", "") and last.partition(":")[0] not in _FIELDS:
                yield Stray(last)

    def _split(self, chunk: bytes) -> Iterator[bytes]:
        if not chunk:
            return
        after_cr, self._after_cr = self._after_cr, chunk.endswith(b"\r")
        if after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        # Joined once per line that ends, never once per piece: lines may come byte by byte.
        if b"\n" in chunk or b"\r" in chunk:
            *lines, rest = _LINE_END.split(bytes(self._open) + chunk)
            self._open = bytearray(rest)
            for line in lines:
                _check(len(line), LONGEST_LINE, "a line")
                yield line
        else:
            self._open += chunk
        _check(len(self._open), LONGEST_LINE, "a line")

    def _decode(self, line: bytes) -> str:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        return line.decode("utf-8", "replace")

    def _take(self, raw: bytes) -> Iterator[Frame | Stray]:
        line = self._decode(raw)
        if not line:
            yield from self._dispatch()
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            if name not in _FIELDS:
                yield Stray(line)
            else:
                self._set(name, value.removeprefix(" "))

    def _set(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
            self._size += len(value) + 1
            _check(self._size, LONGEST_FRAME, "an event")
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 10:
            self.retry = int(value)

    def _dispatch(self) -> Iterator[Frame]:
        data, event = self._data, self._event
        self._data, self._event, self._size = [], "", 0
        if data:
            yield Frame("\n".join(data), event, self._id)


_FIELDS = frozenset({"data", "event", "id", "retry"})


def _check(size: int, most: int, what: str) -> None:
    if size > most:
        raise UpstreamFault("too_long", f"{what} of the stream has more than {most} bytes")
