"""The ring of answers an instance has given: enough to answer a repeat as the first was."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from runtime.ask import REUSED
from schemas.base import Message
from schemas.envelope import encode
from schemas.record import Answer, Refusal, Replied

RING = 256
RING_BYTES = 32 * 1024
RING_AGE = timedelta(hours=24)
ANSWER_LIMIT = 8 * 1024
DETAIL_LIMIT = 1000
CODE_LIMIT = 100
TOLD_LIMIT = 2 * 1024


def make_answer(message_id: str, result: Any) -> Answer:
    """The answer a handler's result makes; raises TypeError or ValueError if it cannot be one."""
    if result is None:
        return Answer(id=message_id)
    if not isinstance(result, Message):
        raise TypeError(f"a handler returned {result!r:.200}, expected a message or None")
    data = encode(result)
    if len(data) > ANSWER_LIMIT:
        raise ValueError(f"an answer of {len(data)} bytes, at most {ANSWER_LIMIT}")
    return Answer(id=message_id, data=msgspec.Raw(data))


def make_refusal(message_id: str, refusal: Refusal) -> Answer:
    """The answer a refusal makes, cut to a size that fits any record."""
    cut = Refusal(
        code=clip(refusal.code, CODE_LIMIT),
        detail=clip(refusal.detail, DETAIL_LIMIT),
        status=refusal.status if isinstance(refusal.status, int) else 409,
        told=_told(refusal),
    )
    return Answer(id=message_id, refusal=cut)


def _told(refusal: Refusal) -> dict[str, Any]:
    """What else it tells; nothing if that cannot be stored: the refusal itself matters more."""
    try:
        return refusal.told if len(encode(refusal.told)) <= TOLD_LIMIT else {}
    except (TypeError, ValueError, OverflowError, RecursionError):
        return {}


def clip(text: object, most: int) -> str:
    """Any object as text that can be stored: not too long, and encodable."""
    shown = str(text)
    cut = shown if len(shown) <= most else f"{shown[:most]}… ({len(shown)} characters)"
    return cut.encode("utf-8", "replace").decode()


def same_again(earlier: Replied, bodyhash: str) -> Answer:
    """The answer to a repeat: as before, or a refusal if it is another request."""
    if earlier.bodyhash and bodyhash and earlier.bodyhash != bodyhash:
        return Answer(id=earlier.answer.id, refusal=REUSED)
    return earlier.answer


def remember(replies: list[Replied], new: list[Replied], now: datetime) -> list[Replied]:
    """The ring with new answers in it, and without what is too old or too much."""
    if not new and not (replies and now - replies[0].at >= RING_AGE):
        return replies
    kept = [entry for entry in [*replies, *new] if now - entry.at < RING_AGE][-RING:]
    size = sum(map(_size, kept))
    while size > RING_BYTES and len(kept) > 1:
        size -= _size(kept.pop(0))
    return kept


def find_reply(replies: list[Replied], message_id: str) -> Replied | None:
    """The answer given to a message id, if it is still in the ring."""
    for entry in reversed(replies):
        if entry.answer.id == message_id:
            return entry
    return None


def _size(entry: Replied) -> int:
    answer = entry.answer
    refused = len(encode(answer.refusal)) if answer.refusal else 0
    return 120 + len(bytes(answer.data)) + refused + len(answer.id) + len(entry.bodyhash)
