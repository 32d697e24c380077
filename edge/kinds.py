"""What kind of file bytes are, by how they begin, and under which name a file may be shown.

Source of the signatures: WHATWG MIME Sniffing, section 6. What a sender says is only compared.
"""

import codecs
import re
import struct
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

HEAD = 1024
"""Bytes at the beginning that decide; a whole file may be shorter."""
TEXT = "text/plain"
LONGEST_NAME = 255
MOST_PIXELS = 100_000_000

# Control characters do not stand in text, but for tab, line ends, form feed and escape.
BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")

SIGNATURES: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n....IHDR", re.DOTALL)),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL)),
    ("application/pdf", re.compile(rb"%PDF-\d")),
    ("audio/wav", re.compile(rb"RIFF....WAVE", re.DOTALL)),
    ("audio/mpeg", re.compile(rb"ID3|\xff[\xfb\xf3\xf2]")),
    ("audio/flac", re.compile(rb"fLaC")),
    ("audio/ogg", re.compile(rb"OggS\x00")),
)

# How the width and the height of a picture are packed, of those that have a fixed place for them.
SIZES: Mapping[str, struct.Struct] = MappingProxyType(
    {"image/png": struct.Struct(">16xII"), "image/gif": struct.Struct("<6xHH")}
)


def sniff(head: bytes, *, whole: bool = False) -> str | None:
    """Return the kind of a file that begins with `head`; None if it is none that is known.

    `whole` says that nothing comes after it.
    """
    for kind, signature in SIGNATURES:
        if signature.match(head):
            return kind
    return TEXT if head and TextCheck().takes(head, last=whole) else None


class TextCheck:
    """Reads a text piece by piece, and knows whether it still is one."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def takes(self, piece: bytes, *, last: bool = False) -> bool:
        """Whether a piece goes on in UTF-8, without control characters.

        Only the `last` one may not end within a character.
        """
        try:
            self._decoder.decode(piece, final=last)
        except UnicodeDecodeError:
            return False
        return BINARY.search(piece) is None


def agrees(said: str, kind: str) -> bool:
    """Whether a kind can be what its sender calls it: the same, or the same sort of thing."""
    sort, _, rest = said.partition("/")
    if said in ("", "application/octet-stream") or said == kind:
        return True
    if kind == TEXT:
        # Text has many names: application/json, application/x-yaml. Pictures made of it are code.
        return sort in ("text", "application") and rest not in ("pdf", "zip", "gzip")
    return sort == kind.partition("/")[0] and sort != "application"


def pixels(kind: str, head: bytes) -> int:
    """How many pixels a picture unpacks to, where its head tells; else 0."""
    size = SIZES.get(kind)
    if size is None or len(head) < size.size:
        return 0
    width, height = size.unpack_from(head)
    return int(width) * int(height)


def shown_name(name: str) -> str:
    """Return a file's name as it may be kept and shown: no folders, nothing that cannot be seen.

    Of a name with nothing to show, nothing is left.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    # Categories C*: what steers a terminal, turns a text around, or is no character.
    seen = "".join(c for c in last if not unicodedata.category(c).startswith("C"))
    short = " ".join(seen.split())[:LONGEST_NAME]
    return "" if short.strip(".") == "" else short
