"""The form of messages on the connection: what arrives, header blocks, and what is sent."""

import re
from collections.abc import Mapping
from datetime import datetime

MAX_SUBJECT = 512

_STATUS = b"NATS/1.0 "
_FIRST = "NATS/1.0\r\n"


class Packet:
    """Bytes that arrived: `subject`, `reply`, `data`, and headers parsed when asked for."""

    __slots__ = ("_parsed", "data", "raw_headers", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, raw_headers: bytes) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.raw_headers = raw_headers
        self._parsed: dict[str, str] | None = None

    @property
    def size(self) -> int:
        """Bytes of it, without its subject."""
        return len(self.data) + len(self.raw_headers)

    @property
    def status(self) -> str:
        """The server's status (`404`, `408`, `423`…), or nothing for a message."""
        raw = self.raw_headers
        return raw[9:12].decode("ascii", "replace") if raw.startswith(_STATUS) else ""

    @property
    def reason(self) -> str:
        """The words behind the status: `Request Timeout`, `Consumer Deleted`…"""
        line = self.raw_headers.partition(b"\r\n")[0]
        return line[12:].decode("utf-8", "replace").strip() if self.status else ""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields by their exact name; the last of a repeated one wins."""
        if self._parsed is None:
            self._parsed = parse_headers(self.raw_headers)
        return self._parsed


def parse_headers(raw: bytes) -> dict[str, str]:
    """Read a NATS header block; what is not a field is skipped, never an error."""
    fields: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields[name] = value.strip()
    return fields


def format_headers(fields: Mapping[str, str], before: str = "") -> bytes:
    """Write a NATS header block; the lines `before` the fields are taken as they are.

    Raises ValueError for a field that would break out of its line.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    # Counted over all of them at once: this is done for every message that is stored.
    if lines.count("\n") != len(fields) or lines.count("\r") != len(fields):
        name = next(one for one in fields if re.search("[\r\n]", f"{one}{fields[one]}"))
        raise ValueError(f"header {name}: {fields[name]!r} contains a line end")
    return f"{_FIRST}{before}{lines}\r\n".encode()


def frame_publish(subject: str, data: bytes, reply: str, headers: bytes) -> bytes:
    """Return the bytes of one publish; raises ValueError for an illegal subject."""
    target = f"{checked(subject)} {checked(reply)}" if reply else checked(subject)
    size = len(headers) + len(data)
    if headers:
        head = f"HPUB {target} {len(headers)} {size}\r\n".encode()
        return b"".join((head, headers, data, b"\r\n"))
    return b"".join((f"PUB {target} {size}\r\n".encode(), data, b"\r\n"))


def checked(subject: str) -> str:
    """Return a subject that keeps to its place in the protocol; raises ValueError for others.

    One with a blank would reach the server as two, and one that is too long ends the connection.
    """
    # What is printable encodes to UTF-8, and the only white space in it is the blank.
    legal = subject and subject.isprintable() and " " not in subject
    if not legal or len(subject.encode()) > MAX_SUBJECT:
        raise ValueError(
            f"subject {subject[:100]!r} ({len(subject)} characters): expected at most"
            f" {MAX_SUBJECT} bytes, printable and without blanks"
        )
    return subject


def read_stamp(stamp: str) -> datetime:
    """Read a server's time, whose nanoseconds are cut to the microseconds that Python knows."""
    whole, dot, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}{dot}{fraction[:6].ljust(6, '0') if dot else ''}+00:00")
