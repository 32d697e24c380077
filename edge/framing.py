"""Where the body of a request ends, decided by us and not by the parser behind.

Each body takes its bytes from the front of a buffer and writes them as the parser gets them.
"""

import re
from enum import Enum, auto

from edge.limits import Limits
from edge.problem import Refusal

# RFC 9112 7.1: the size, and extensions that nobody uses and everybody has to skip.
PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")
LONGEST_CHUNK_LINE = 256


class Counted:
    """A body of `length` bytes. `received` counts those that have come."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.received = 0

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self.received == self._length

    def take(self, buffer: bytearray) -> bytes:
        """Remove from `buffer` what belongs to the body, and return it."""
        piece = bytes(buffer[: self._length - self.received])
        del buffer[: len(piece)]
        self.received += len(piece)
        return piece


class Part(Enum):
    """What a chunked body continues with."""

    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    NOTHING = auto()


class Chunked:
    """A body in chunks. `received` counts the bytes of its content.

    What is passed on are chunks of our own, so that the parser cannot read them differently:
    without extensions, and without trailers, which would be added to the headers of a request
    that somebody has decided about already.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._part = Part.SIZE
        self._left = 0
        self._trailer_bytes = 0
        self.received = 0

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self._part is Part.NOTHING

    def take(self, buffer: bytearray) -> bytes:
        """Remove from `buffer` what belongs to the body, and return its content in chunks.

        Raises Refusal 400 for chunks that are not written as they must be, 431 for trailers
        without end.
        """
        pieces: list[bytes] = []
        while buffer and not self.done:
            if self._part is Part.DATA:
                pieces.append(self._content(buffer))
            elif whole := self._whole_chunks(buffer):
                pieces += whole
            elif (line := self._line(buffer)) is None:
                break
            else:
                self._read(line)
        return _one_chunk(b"".join(pieces)) + (b"0\r\n\r\n" if self.done else b"")

    def _whole_chunks(self, buffer: bytearray) -> list[bytes]:
        # Only for speed: somebody may send one byte in each chunk.
        pieces: list[bytes] = []
        at = 0
        while self._part is Part.SIZE and (found := PLAIN_SIZE.match(buffer, at)):
            begin = found.end()
            end = begin + int(found[1], 16)
            if begin == end or buffer[end : end + 2] != b"\r\n":
                break
            pieces.append(bytes(buffer[begin:end]))
            at = end + 2
        del buffer[:at]
        self.received += sum(map(len, pieces))
        return pieces

    def _content(self, buffer: bytearray) -> bytes:
        piece = bytes(buffer[: self._left])
        del buffer[: len(piece)]
        self.received += len(piece)
        self._left -= len(piece)
        if not self._left:
            self._part = Part.DATA_END
        return piece

    def _line(self, buffer: bytearray) -> bytes | None:
        end = buffer.find(b"\n")
        longest = self._longest()
        if end > longest or (end < 0 and len(buffer) > longest):
            raise self._too_long()
        if end < 0:
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        if not line.endswith(b"\r"):
            raise Refusal(400, "invalid_framing", "a line of the chunked body ends without CR")
        return line[:-1]

    def _longest(self) -> int:
        if self._part is Part.TRAILER:
            return self._limits.header_bytes - self._trailer_bytes
        return LONGEST_CHUNK_LINE if self._part is Part.SIZE else 1

    def _too_long(self) -> Refusal:
        if self._part is Part.TRAILER:
            return Refusal(431, "headers_too_large", "the trailers of the body are too long")
        return Refusal(400, "invalid_framing", f"the chunked body has no valid {self._expected()}")

    def _expected(self) -> str:
        return "size of a chunk" if self._part is Part.SIZE else "end of a chunk"

    def _read(self, line: bytes) -> None:
        if self._part is Part.SIZE:
            self._begin(line)
        elif self._part is Part.DATA_END:
            if line:
                raise self._too_long()
            self._part = Part.SIZE
        elif not line:
            self._part = Part.NOTHING
        else:
            self._skip(line)

    def _begin(self, line: bytes) -> None:
        found = CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise self._too_long()
        self._left = int(found[1], 16)
        self._part = Part.DATA if self._left else Part.TRAILER

    def _skip(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if not TRAILER.fullmatch(line):
            raise Refusal(400, "invalid_framing", "a trailer of the body is not 'name: value'")


def _one_chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content) if content else b""
