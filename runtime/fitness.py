"""Whether a job can be done, its result be sent, and when it is to be tried again."""

import random
from typing import Any

from runtime.answers import clip
from runtime.errors import Retry
from runtime.turn import MOST_BYTES, TURN_BYTES
from schemas.base import Message
from schemas.envelope import Envelope, encode
from schemas.subjects import ACTOR_NAME

FIRST_RETRY = 0.5
LAST_RETRY = 60.0


def retry_delay(error: BaseException, attempt: int) -> float:
    """Seconds until the next attempt: doubling, with chance in it, or what was asked for."""
    if isinstance(error, Retry):
        return error.after.total_seconds()
    return float(min(LAST_RETRY, FIRST_RETRY * 2 ** (attempt - 1)) * random.uniform(0.8, 1.2))


def find_unfit(envelope: Envelope[Any]) -> str:
    """Why a job that can be read cannot be done, or nothing."""
    if envelope.expires is not None and envelope.expires.tzinfo is None:
        return "unreadable: its deadline has no time zone"
    if envelope.source and not ACTOR_NAME.fullmatch(envelope.source.partition("/")[0]):
        return f"unreadable: {clip(envelope.source, 80)!r} cannot be sent a result"
    return ""


def check_result(result: Any, method: Any, *, beside: int = 0) -> Message:
    """What a job ended with, if it can be sent with events of `beside` bytes.

    Raises TypeError or ValueError.
    """
    if not isinstance(result, Message):
        raise TypeError(f"{method.__qualname__} ended with {result!r}, expected a message")
    if (size := len(encode(result))) > MOST_BYTES:
        raise ValueError(f"a result of {size} bytes, at most {MOST_BYTES}")
    if beside and size + beside > TURN_BYTES:
        raise ValueError(f"a result of {size} bytes, events of {beside}; at most {TURN_BYTES}")
    return result
