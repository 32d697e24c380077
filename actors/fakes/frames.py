"""What answers are made of before they are bytes, and the shapes in which they become bytes."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

Phase: TypeAlias = Literal["wait", "start", "text", "last", "end"]
"""Of a frame: a sign of life, before the text, a piece of it, a piece that also makes it whole,
or what makes it whole."""
Render: TypeAlias = Callable[["Frame"], bytes]


@dataclass(frozen=True, slots=True)
class Frame:
    """One thing that is said: JSON, and an event's name where there is one. `raw` is bytes."""

    data: bytes
    event: str = ""
    phase: Phase = "text"
    raw: bool = False


@dataclass(frozen=True)
class Whole:
    """An answer in one piece."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    media: str = "application/json"


@dataclass(frozen=True)
class Streamed:
    """An answer in pieces. `mishap` is what this provider says when it fails on the
    way, `close` what stands behind the last."""

    frames: Iterable[Frame]
    render: Render
    mishap: tuple[Frame, ...] = ()
    close: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    media: str = "text/event-stream; charset=utf-8"


Answer: TypeAlias = Whole | Streamed


def frame(data: Any, phase: Phase = "text", event: str = "") -> Frame:
    """A frame that says something in JSON."""
    return Frame(encode(data), event, phase)


def encode(data: Any) -> bytes:
    return msgspec.json.encode(data)


class EventStream:
    """Server-sent events, as a provider writes them or as switches want them written."""

    def __init__(self, switches: dict[str, str], newline: bytes = b"\n") -> None:
        forms = {"crlf": b"\r\n", "cr": b"\r"}
        self._newline = next((forms[name] for name in forms if name in switches), newline)
        self._colon = b":" if "no-space" in switches else b": "
        self._switches = switches
        self._number = 0

    def __call__(self, frame: Frame) -> bytes:
        self._number += 1
        if frame.raw:
            return self._begin() + frame.data
        return self._begin() + self._newline.join(self._lines(frame)) + self._newline * 2

    def _begin(self) -> bytes:
        """What stands before a frame."""
        said = b""
        if "bom" in self._switches and self._number == 1:
            said += b"\xef\xbb\xbf"
        if "comments" in self._switches:
            said += b": keep-alive" + self._newline * 2
        if "ids" in self._switches and self._number == 1:
            said += self._field(b"retry", b"3000") + self._newline * 2
        return said

    def _lines(self, frame: Frame) -> Iterator[bytes]:
        if "ids" in self._switches:
            yield self._field(b"id", b"%d" % self._number)
        if frame.event:
            yield self._field(b"event", frame.event.encode())
        for line in self._data(frame.data):
            yield self._field(b"data", line)

    def _data(self, data: bytes) -> list[bytes]:
        if "multi-line" not in self._switches or data[:1] not in b"{[" or data == b"[DONE]":
            return [data]
        return msgspec.json.format(data, indent=1).split(b"\n")

    def _field(self, name: bytes, value: bytes) -> bytes:
        return name + self._colon + value


class Lines:
    """One JSON value in each line."""

    def __init__(self, switches: dict[str, str]) -> None:
        self._newline = b"\r\n" if "crlf" in switches else b"\n"

    def __call__(self, frame: Frame) -> bytes:
        return frame.data if frame.raw else frame.data + self._newline


class Elements:
    """One JSON array, whose elements are the frames."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, frame: Frame) -> bytes:
        before = b",\r\n" if self._begun else b"["
        self._begun = True
        return frame.data if frame.raw else before + frame.data


def halves(data: bytes) -> list[bytes]:
    """Bytes, parted within the first character of several bytes, if there is one."""
    found = re.search(rb"[\xc0-\xf7]", data)
    return [data[: found.end()], data[found.end() :]] if found else [data]
