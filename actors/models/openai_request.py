"""A call as OpenAI's chat completions want it, in the dialect of the server."""

import json
from typing import Any

from actors.models.dialects import Dialect
from actors.models.events import Call
from actors.models.merging import merge
from actors.models.parts import AUDIO, Blob, Link, Load, Piece, as_text, load_pieces, refuse
from schemas.model import ToolCall, Utterance

OURS = frozenset({"model", "messages", "stream", "stream_options", "n"})
"""Settings that are not a client's to choose; each task asks for one answer."""
LENGTHS = frozenset({"max_tokens", "max_completion_tokens"})


async def build(call: Call, dialect: Dialect) -> dict[str, Any]:
    """The request's body. Raises UpstreamFault for what this server does not take."""
    back = _goes_back(call, dialect)
    body = {
        "model": call.model,
        "messages": [await _write(one, dialect, call.load, back) for one in call.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_translate(call.settings, dialect),
    }
    return merge(body, call.extra)


def _translate(settings: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    given = {
        name: value for name, value in settings.items() if name not in OURS and value is not None
    }
    for name in LENGTHS - {dialect.length}:
        if name in given:
            length = given.pop(name)
            given.setdefault(dialect.length, length)
    effort = given.get("reasoning_effort")
    if effort == "none" and dialect.unthinking:
        del given["reasoning_effort"]
        given = merge(given, dialect.unthinking)
    elif isinstance(effort, str):
        given["reasoning_effort"] = dialect.efforts.get(effort, effort)
    return given


async def _write(said: Utterance, dialect: Dialect, load: Load, back: bool) -> dict[str, Any]:
    role = dialect.developer if said.role == "developer" else said.role
    written: dict[str, Any] = {"role": role}
    if said.role == "tool":
        return {**written, "tool_call_id": said.call, "content": as_text(said.content)}
    written["content"] = await _write_content(said, dialect, load)
    if said.name:
        written["name"] = said.name
    if said.calls:
        written["content"] = written["content"] or None
        written["tool_calls"] = [_write_call(call) for call in said.calls]
    if said.reasoning and back:
        written["reasoning_content"] = said.reasoning
    return written


def _goes_back(call: Call, dialect: Dialect) -> bool:
    """Whether reasoning is sent back: once tools were called, that of every later answer too."""
    back = dialect.reasoning_back
    return back == "always" or (back == "with_calls" and any(one.calls for one in call.messages))


def _write_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


async def _write_content(
    said: Utterance, dialect: Dialect, load: Load
) -> str | list[dict[str, Any]]:
    """A string wherever there is only text, for some servers read nothing else."""
    pieces = await load_pieces(said.content, load)
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if len(texts) == len(pieces):
        return "".join(texts)
    return [_write_piece(piece, dialect) for piece in pieces]


def _write_piece(piece: Piece, dialect: Dialect) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    if isinstance(piece, Link):
        if not dialect.remote_images:
            raise refuse(piece, "this server")
        return _write_image(piece.url, piece.detail)
    if piece.is_image:
        return _write_image(piece.data_url, piece.detail)
    return _write_file(piece, dialect)


def _write_image(url: str, detail: str) -> dict[str, Any]:
    image = {"url": url} | ({"detail": detail} if detail else {})
    return {"type": "image_url", "image_url": image}


def _write_file(piece: Blob, dialect: Dialect) -> dict[str, Any]:
    if sound := AUDIO.get(piece.media):
        return {"type": "input_audio", "input_audio": {"data": piece.base64, "format": sound}}
    if not dialect.documents:
        raise refuse(piece, "this server")
    named = {"filename": piece.name or "file", "file_data": piece.data_url}
    return {"type": "file", "file": named}


def read_arguments(text: str) -> dict[str, Any]:
    """A tool call's arguments as the object that other providers want."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = text
    return found if isinstance(found, dict) else {"arguments": found}
