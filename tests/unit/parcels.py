"""Forms as bytes, well-formed and not, a store that only remembers, and files of every kind."""

import zlib
from collections.abc import AsyncIterable, Iterable
from datetime import timedelta
from typing import Any

from starlette.requests import Request

from edge.uploads import Uploads
from runtime.bus import new_id
from runtime.tables import FilesTable
from schemas.model import FileRef

BOUNDARY = "frontier"
FIELDS = frozenset({"prompt", "model"})
FILES = "files"


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    sum = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + sum


def png(width: int = 1, height: int = 1) -> bytes:
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    body = chunk(b"IDAT", zlib.compress(b"\x00\x00"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + b"\x00" * 32 + b"\xff\xd9"
GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + b"\x00" * 20 + b";"
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /S /JavaScript >>\nendobj\n%%EOF\n"
ZIP = b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + b"\x00" * 40
GZIP = b"\x1f\x8b\x08\x00" + b"\x00" * 20
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>"


def part(name: str, content: bytes | str, *, filename: str | None = None, more: str = "") -> bytes:
    """One part, without the boundary before it. `more` are further header lines."""
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'Content-Disposition: form-data; name="{name}"{named}\r\n{more}\r\n'
    return head.encode() + (content.encode() if isinstance(content, str) else content)


def form(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    """A whole form."""
    mark = f"--{boundary}".encode()
    return b"".join(mark + b"\r\n" + each + b"\r\n" for each in parts) + mark + b"--\r\n"


def typed(media: str) -> str:
    return f"Content-Type: {media}\r\n"


def posted(
    body: bytes | Iterable[bytes],
    *,
    content_type: str = f"multipart/form-data; boundary={BOUNDARY}",
    left: bool = False,
    **headers: str,
) -> Request:
    """A request with a body, in the pieces given. `left` says that its client is gone then."""
    waiting = [body] if isinstance(body, bytes) else list(body)

    async def receive() -> dict[str, Any]:
        if left and not waiting:
            return {"type": "http.disconnect"}
        piece = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": piece, "more_body": bool(waiting) or left}

    named = {"content-type": content_type, **headers}
    raw = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in named.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


class Shelf:
    """A store that keeps files in memory, and what became of them."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[FileRef, bytes, str]] = {}
        self.most_pieces = 0
        self.deleted: list[str] = []

    async def put(
        self,
        name: str,
        chunks: AsyncIterable[bytes],
        *,
        media: str,
        ttl: timedelta,
        most: int,
        owner: str = "",
    ) -> FileRef:
        content = b""
        async for piece in chunks:
            self.most_pieces = max(self.most_pieces, len(piece))
            content += piece
        ref = FileRef(id=new_id(), name=name, media=media, size=len(content))
        self.files[ref.id] = (ref, content, owner)
        return ref

    async def delete(self, file: str) -> bool:
        self.deleted.append(file)
        return self.files.pop(file, None) is not None

    def only(self) -> tuple[FileRef, bytes]:
        """The one file that is there."""
        [(ref, content, _)] = self.files.values()
        return ref, content


def uploads(shelf: Shelf, **limits: Any) -> Uploads:
    """What takes forms into a shelf."""
    store: Any = shelf
    return Uploads(store, FilesTable(**limits))
