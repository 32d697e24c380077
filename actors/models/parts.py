"""What an utterance's parts are to a provider: text, images, recordings, documents.

A text file is put into the text, because every provider reads text.
"""

import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from actors.models.faults import UpstreamFault
from schemas.model import Attachment, FileRef, Image, Part, Text

Load = Callable[[FileRef], Awaitable[bytes]]

AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav"} | {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
_TEXTUAL = re.compile(
    r"text/.*|application/(?:json|xml|yaml|x-yaml|toml|javascript|x-ndjson|sql|.*\+(?:json|xml))"
)
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*?(;base64)?,(.*)", re.S)


class Blob(msgspec.Struct, frozen=True):
    """Bytes that are no text, and what they are."""

    media: str
    data: bytes
    name: str = ""
    detail: str = ""

    @property
    def is_image(self) -> bool:
        return self.media.startswith("image/")

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode()

    @property
    def data_url(self) -> str:
        return f"data:{self.media};base64,{self.base64}"


class Link(msgspec.Struct, frozen=True):
    """An image that the provider is to fetch."""

    url: str
    detail: str = ""


Piece = str | Blob | Link


async def load_pieces(parts: Sequence[Part], load: Load) -> list[Piece]:
    """Parts with the bytes of their files. Raises UpstreamFault for what cannot be read."""
    return [await _load_piece(part, load) for part in parts]


def as_text(parts: Sequence[Part]) -> str:
    """What parts say without their files."""
    return "".join(part.text for part in parts if isinstance(part, Text))


def refuse(piece: Blob | Link, provider: str) -> UpstreamFault:
    """The fault of a piece that a provider does not take."""
    if isinstance(piece, Link):
        return UpstreamFault("bad_request", f"{provider} fetches no images; upload the image")
    named = f"{piece.name!r} ({piece.media})" if piece.name else piece.media
    return UpstreamFault("bad_request", f"{provider} takes no files such as {named}")


async def _load_piece(part: Part, load: Load) -> Piece:
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Image) and part.file is None:
        return _read_url(part)
    file = part.file
    assert file is not None
    data = await load(file)
    detail = part.detail if isinstance(part, Image) else ""
    if isinstance(part, Attachment) and _TEXTUAL.fullmatch(file.media.partition(";")[0].strip()):
        return f"{file.name or 'file'}:\n\n{data.decode('utf-8', 'replace')}\n"
    return Blob(file.media, data, file.name, detail)


def _read_url(image: Image) -> Piece:
    if not image.url.startswith("data:"):
        return Link(image.url, image.detail)
    found = _DATA_URL.fullmatch(image.url)
    if found is None:
        raise UpstreamFault("bad_request", "an image's data URL cannot be read")
    try:
        raw = unquote_to_bytes(found[3])
        data = base64.b64decode(raw, validate=True) if found[2] else raw
    except ValueError:
        raise UpstreamFault("bad_request", "an image's data URL holds no base64") from None
    return Blob(found[1] or "image/png", data, detail=image.detail)
