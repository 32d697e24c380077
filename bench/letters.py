"""What is sent: our messages, and the same 300 bytes for everybody."""

from functools import cache
from typing import Any

from schemas.base import Job, Message, Request
from schemas.envelope import encode, seal

BYTES = 300
"""What each message, job or result is filled up to, envelope included."""

Kind = type[Message]


class Did(Message, tag="bench.did"):
    """The result of a job."""

    text: str


class Do(Job[Did], tag="bench.do"):
    """The job: give back what came."""

    text: str


class Counted(Message, tag="bench.counted"):
    """The answer to `Count`."""

    n: int


class Count(Request[Counted], tag="bench.count"):
    """One turn: count, tell another actor, and tell whoever follows."""

    text: str


class Noted(Message, tag="bench.noted"):
    """What a turn tells another actor, and those who follow it."""

    text: str


class Begin(Message, tag="bench.begin"):
    """Start a job, and take its result."""

    text: str


def letter(kind: Kind, **facts: Any) -> bytes:
    """One sealed message of `kind`, filled up to `BYTES`."""
    return encode(seal(kind(text=_filling(kind, tuple(facts))), **facts))


def plain_letter() -> bytes:
    """A job's very bytes, for contestants that do not seal anything themselves."""
    facts = {"id": "1.1", "source": "sink/k0001", "subject": "k0001", "runid": "0" * 32}
    return letter(Do, **facts)


@cache
def _filling(kind: Kind, names: tuple[str, ...]) -> str:
    lengths = {"id": 3, "runid": 32, "source": 10, "subject": 5}
    facts = {name: "x" * lengths[name] for name in names}
    bare = len(encode(seal(kind(text=""), **facts)))
    return "x" * max(1, BYTES - bare)
