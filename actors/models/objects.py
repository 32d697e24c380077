"""JSON objects out of bytes, however they were cut: in lines, in an array, or a single one.

Objects are found by their braces, so that white space between and within them does not matter.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from actors.models.faults import UpstreamFault

LONGEST = 1024 * 1024
"""Bytes of one object."""

_BETWEEN = re.compile(rb"[\s,\[\]]*")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_STRING = re.compile(rb'["\\\n]')


class Objects:
    """Takes bytes in any pieces, and gives each object as soon as its last brace is there."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._depth = 0
        self._quoted = self._escaped = False

    @property
    def cut(self) -> bool:
        """Whether an object has begun that has not ended."""
        return self._depth > 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take some bytes; raises UpstreamFault for what is no object, or one without an end."""
        start = place = 0
        while place < len(chunk):
            if not self._depth:
                start = place = _begin(chunk, place)
                if place == len(chunk):
                    break
            place = self._advance(chunk, place)
            if not self._depth:
                found = bytes(self._held) + chunk[start:place]
                self._held.clear()
                _check(len(found))
                yield found
        if self._depth:
            self._held += chunk[start:]
            _check(len(self._held))

    def _advance(self, chunk: bytes, place: int) -> int:
        """Go on to behind the next byte that matters."""
        if self._escaped:
            self._escaped = False
            return place + 1
        found = (_STRING if self._quoted else _STRUCTURE).search(chunk, place)
        if found is None:
            return len(chunk)
        byte = found[0]
        if byte == b'"':
            self._quoted = not self._quoted
        elif byte == b"\\":
            self._escaped = True
        elif byte == b"\n":
            # A line that was cut, and the next one: else all that follows would be part of it.
            raise UpstreamFault("garbled", "a JSON text has a line end within a string")
        else:
            self._depth += 1 if byte in b"{[" else -1
        return found.end()


def decode(text: str | bytes) -> Any:
    """What a JSON text says. Raises ValueError.

    Takes what some providers write though JSON forbids it: NaN, raw control characters, bytes
    that are no UTF-8 and halves of characters, which become U+FFFD.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        pass
    try:
        return _mend(json.loads(text, strict=False, parse_constant=lambda _: None))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _mend(value: Any) -> Any:
    """The same without halves of characters, which are no text."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mend(one) for one in value]
    if isinstance(value, dict):
        return {_mend(name): _mend(one) for name, one in value.items()}
    return value


def _begin(chunk: bytes, place: int) -> int:
    """Where the next object begins, or the end of the chunk."""
    found = _BETWEEN.match(chunk, place)
    place = found.end() if found else place
    if place < len(chunk) and chunk[place] != ord("{"):
        raise UpstreamFault("garbled", "between JSON objects there is something else")
    return place


def _check(size: int) -> None:
    if size > LONGEST:
        raise UpstreamFault("too_long", f"a JSON object has more than {LONGEST} bytes")
