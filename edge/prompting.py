"""A request of OpenAI's as a prompt: its messages, and what they carry along.

What is wrong with a request is found before anything of it is stored.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from edge.kinds import HEAD, agrees, shown_name, sniff
from edge.openai_shapes import (
    SETTINGS,
    AudioPart,
    ChatMessage,
    ChatRequest,
    ContentPart,
    FilePart,
    ImagePart,
    RefusalPart,
    TextPart,
)
from edge.problem import Refusal, quote
from schemas.model import Attachment, FileRef, Image, Part, Role, Text, ToolCall

MOST_FILES = 64
LONGEST_URL = 8 * 1024
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
DATA_URL = re.compile(r"data:([^,;]*)(?:;[^,;]*)*;base64,")
AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg"}


@dataclass(frozen=True)
class Carried:
    """A file that came inside of the request, to be stored."""

    content: bytes
    media: str
    name: str
    detail: str = ""


@dataclass(frozen=True)
class Named:
    """A file that was stored before, by its id; `place` is where the request names it."""

    id: str
    place: str


Piece: TypeAlias = Part | Carried | Named


@dataclass(frozen=True)
class Draft:
    """A message whose files are not stored yet."""

    role: Role
    pieces: tuple[Piece, ...]
    name: str = ""
    calls: tuple[ToolCall, ...] = ()
    call: str = ""
    reasoning: str = ""


def read_settings(request: ChatRequest) -> dict[str, Any]:
    """Return how to answer, as a prompt says it: only what the client said."""
    given = {name: getattr(request, name) for name in SETTINGS}
    if request.functions and not request.tools:
        given["tools"] = [{"type": "function", "function": each} for each in request.functions]
        given["tool_choice"] = _tool_choice(request.function_call)
    return {n: msgspec.to_builtins(value) for n, value in given.items() if value is not None}


def _tool_choice(function_call: str | dict[str, Any] | None) -> Any:
    if isinstance(function_call, dict):
        return {"type": "function", "function": function_call}
    return function_call


def draft(request: ChatRequest) -> list[Draft]:
    """Return the messages of a request.

    Raises Refusal 400 `invalid_field` for one that lacks what its role needs, for a file that is
    none or of a type that is not taken, and for too many of them.
    """
    drafts: list[Draft] = []
    for number, message in enumerate(request.messages):
        drafts.append(_Message(message, f"messages[{number}]", drafts).draft())
    files = sum(not isinstance(p, Text) for each in drafts for p in each.pieces)
    if files > MOST_FILES:
        raise invalid("messages", f"has {files} files, at most {MOST_FILES}")
    return drafts


def invalid(place: str, reason: str) -> Refusal:
    """The refusal of a request for what stands at a place of it."""
    return Refusal(400, "invalid_field", f"{place}: {reason}", param=place)


class _Message:
    """One message on its way to become a draft; `before` are those in front of it."""

    def __init__(self, message: ChatMessage, place: str, before: list[Draft]) -> None:
        self._message = message
        self._place = place
        self._before = before

    def draft(self) -> Draft:
        message = self._message
        role: Role = "tool" if message.role == "function" else message.role
        pieces = tuple(self._pieces())
        calls = self._calls()
        if not pieces and not calls and role != "assistant":
            raise invalid(f"{self._place}.content", f"required for a message of role {role!r}")
        return Draft(
            role=role,
            pieces=pieces,
            name=message.name or "",
            calls=calls,
            call=self._answered_call() if role == "tool" else "",
            reasoning=message.reasoning_content or "",
        )

    def _calls(self) -> tuple[ToolCall, ...]:
        message = self._message
        if message.role != "assistant":
            return ()
        given = [(call.id, call.function) for call in message.tool_calls or ()]
        if message.function_call and not given:
            given = [(f"call_{len(self._before)}", message.function_call)]
        return tuple(ToolCall(id=i, name=f.name, arguments=f.arguments) for i, f in given)

    def _answered_call(self) -> str:
        """The call that a result belongs to. Functions, which had no ids, are called by name."""
        if self._message.tool_call_id:
            return self._message.tool_call_id
        if self._message.role == "function":
            for earlier in reversed(self._before):
                for call in earlier.calls:
                    if call.name == self._message.name:
                        return call.id
            raise invalid(f"{self._place}.name", "expected the name of a function called before")
        raise invalid(f"{self._place}.tool_call_id", "required for a message of role 'tool'")

    def _pieces(self) -> Iterator[Piece]:
        content = self._message.content
        if isinstance(content, str):
            yield Text(content)
        elif content is not None:
            for number, part in enumerate(content):
                yield self._piece(part, f"{self._place}.content[{number}]")
        if self._message.refusal and not content:
            yield Text(self._message.refusal)

    def _piece(self, part: ContentPart, place: str) -> Piece:
        if isinstance(part, TextPart):
            return Text(part.text)
        if isinstance(part, RefusalPart):
            return Text(part.refusal)
        if self._message.role not in ("user", "tool", "function"):
            detail = f"a message of role {self._message.role!r} takes text only"
            raise invalid(f"{place}.type", detail)
        if isinstance(part, ImagePart):
            return _image(part, place)
        return _audio(part, place) if isinstance(part, AudioPart) else _file(part, place)


def _image(part: ImagePart, place: str) -> Piece:
    given = part.image_url
    url, detail = (given, "") if isinstance(given, str) else (given.url, given.detail or "")
    place = f"{place}.image_url" if isinstance(given, str) else f"{place}.image_url.url"
    if url[:5].lower() == "data:":
        content, said = _decode(url, place)
        kind = _kind(content, said, place)
        if kind not in IMAGES:
            raise invalid(place, f"is {kind}, expected one of {', '.join(IMAGES)}")
        return Carried(content, kind, "", detail)
    if not url.lower().startswith(("https://", "http://")):
        raise invalid(place, f"is {quote(url, 40)}, expected an https: or a data: URL")
    if len(url) > LONGEST_URL:
        raise invalid(place, f"is longer than {LONGEST_URL} characters")
    return Image(url=url, detail=detail)


def _audio(part: AudioPart, place: str) -> Piece:
    place = f"{place}.input_audio.data"
    content, _ = _decode(part.input_audio.data, place)
    wanted = AUDIO[part.input_audio.format]
    if (kind := _kind(content, wanted, place)) != wanted:
        raise invalid(place, f"is {kind}, expected {wanted}")
    return Carried(content, kind, f"audio.{part.input_audio.format}")


def _file(part: FilePart, place: str) -> Piece:
    given = part.file
    if given.file_id:
        return Named(given.file_id, f"{place}.file.file_id")
    if not given.file_data:
        raise invalid(f"{place}.file", "needs a file_id or file_data")
    place = f"{place}.file.file_data"
    content, said = _decode(given.file_data, place)
    return Carried(content, _kind(content, said, place), shown_name(given.filename or ""))


def _decode(data: str, place: str) -> tuple[bytes, str]:
    """The bytes of a data: URL, or of bare base64, and what their sender says they are."""
    said, start = "", 0
    if data[:5].lower() == "data:":
        found = DATA_URL.match(data[:512])
        if found is None:
            raise invalid(place, "expected data:<type>;base64,<content>")
        said, start = found[1].lower(), found.end()
    try:
        content = base64.b64decode(data[start:], validate=True)
    except (binascii.Error, ValueError):
        raise invalid(place, "is not base64") from None
    if not content:
        raise invalid(place, "is empty")
    return content, said


def _kind(content: bytes, said: str, place: str) -> str:
    kind = sniff(content[:HEAD], whole=len(content) <= HEAD)
    if kind is None:
        raise invalid(place, f"is of no type that is taken here (said to be {quote(said or '?')})")
    if not agrees(said, kind):
        raise invalid(place, f"is said to be {quote(said)}, and is {kind}")
    return kind


def store_as(piece: Carried, ref: FileRef) -> Part:
    """Return the part that a stored file makes."""
    is_image = piece.media.startswith("image/")
    return Image(file=ref, detail=piece.detail) if is_image else Attachment(ref)
