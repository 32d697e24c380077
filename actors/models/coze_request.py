"""A call as Coze's workflow chat wants it: messages of users and assistants, and nobody else."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from actors.models.events import Call
from actors.models.faults import UpstreamFault
from actors.models.merging import merge
from actors.models.parts import Blob, Link, Piece, as_text, load_pieces
from schemas.model import Utterance

MOST_MESSAGES = 50
RULES = ("system", "developer")

Upload = Callable[[Blob], Awaitable[str]]


async def build(call: Call, conversation: str, news: int | None, upload: Upload) -> bytes:
    """The request's body, with the last `news` messages (None: all); raises UpstreamFault.

    `extra` says app_id or bot_id, and whatever else a deployment adds.
    """
    said = call.messages if news is None else call.messages[-news:]
    body: dict[str, Any] = {
        "workflow_id": call.model,
        "conversation_id": conversation,
        "session_name": call.conversation,
        "additional_messages": await _write_all(call, said, upload),
    }
    if isinstance(parameters := call.settings.get("parameters"), dict):
        body["parameters"] = parameters
    return msgspec.json.encode(merge(body, call.extra))


async def _write_all(call: Call, said: Sequence[Utterance], upload: Upload) -> list[dict[str, str]]:
    rules = "\n\n".join(
        text for one in said if one.role in RULES and (text := as_text(one.content))
    )
    written = []
    for one in [one for one in said if one.role not in RULES][-MOST_MESSAGES:]:
        pieces = await load_pieces(one.content, call.load)
        if rules and one.role == "user":
            pieces, rules = [f"{rules}\n\n", *pieces], ""
        if pieces:
            written.append(await _write(one.role, pieces, upload))
    if not written or written[-1]["role"] != "user":
        raise UpstreamFault("bad_request", "Coze answers users: the last message must be a user's")
    return written


async def _write(role: str, pieces: list[Piece], upload: Upload) -> dict[str, str]:
    """A message. What a tool said is told as the user's, for Coze knows no such role."""
    texts = [piece for piece in pieces if isinstance(piece, str)]
    kind = "text"
    content = "".join(texts)
    if len(texts) < len(pieces):
        kind = "object_string"
        objects = [await _write_piece(piece, upload) for piece in pieces]
        content = msgspec.json.encode(objects).decode()
    who = ("assistant", "answer") if role == "assistant" else ("user", "question")
    return {"role": who[0], "type": who[1], "content": content, "content_type": kind}


async def _write_piece(piece: Piece, upload: Upload) -> dict[str, str]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    if isinstance(piece, Link):
        return {"type": "image", "file_url": piece.url}
    kind = "image" if piece.is_image else "audio" if piece.media.startswith("audio/") else "file"
    return {"type": kind, "file_id": await upload(piece)}
