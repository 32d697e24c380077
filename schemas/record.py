"""What the bus remembers: the record of an instance, of a run, and a dead letter."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.base import Message

NOTHING = msgspec.Raw(b"")
"""No data: this very object is left out when encoded. (msgspec has no `Raw | None`.)"""


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was not done. `status` is the HTTP status it means at an edge, `told` what
    else its answer says, in members of their own."""

    code: str
    detail: str = ""
    status: int = 409
    told: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an asker gets: `data` (an encoded message) or a `refusal`, or neither."""

    id: str
    data: msgspec.Raw = NOTHING
    refusal: Refusal | None = None


class Replied(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the ring of answers: enough to answer a repeat as the first was."""

    answer: Answer
    at: datetime
    bodyhash: str = ""


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that is kept of one instance of a keyed actor.

    `done` is the stream sequence of the last message applied, in the stream that was
    created at `stream`. `timers` holds the current generation of each reminder. `parked` is
    the sequence up to which messages past `done` were put aside while the key was paused,
    `killed` the number of the last kill that was done.
    """

    stream: str
    done: int
    key: str
    data: msgspec.Raw = NOTHING
    written: datetime | None = None
    replies: list[Replied] = []
    timers: dict[str, int] = {}
    parked: int = 0
    killed: int = 0


RunState = Literal["open", "claimed", "finished", "stopped"]


class RunRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where a job's execution stands. Its sequence is the lease of whoever wrote it.

    Of its attempts, `failures` ended with an error and `crashes` with their host; `host` is
    the incarnation of the one that made the last.
    """

    job: str
    state: RunState = "open"
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    epoch: int = 0
    host: str = ""
    reason: str = ""


class DeadLetter(Message, tag="dead.letter"):
    """A message nobody could handle: where it came from, why, and the message itself.

    `body` is the envelope as text where it is UTF-8; `body_base64` otherwise.
    """

    subject: str
    sequence: int
    reason: str
    attempts: int = 0
    body: str = ""
    body_base64: str = ""


class Settled(Message, tag="dead.settled"):
    """What became of the dead letter at a sequence: nothing more can become of it."""

    letter: int
    action: Literal["replayed", "edited", "discarded"]
    by: str


class RunFailed(Message, tag="run.failed"):
    """The result of a job that could not be done."""

    run: str
    reason: str
    attempts: int


class RunStarted(Message, tag="run.started"):
    """An attempt holds the run and may speak."""

    run: str
    attempt: int


class RunSuperseded(Message, tag="run.superseded"):
    """A newer attempt holds the run; what the older ones said is to be discarded."""

    run: str
    attempt: int


class Delta(Message, tag="run.delta"):
    """A piece of what an attempt is saying; pieces are numbered from 1 per attempt.

    Of a `tool` call, `index` tells calls of one answer apart; the first piece of each has its
    id (`call`) and `name`, and `text` is a piece of its arguments, which are JSON.
    """

    text: str
    kind: Literal["text", "reasoning", "tool"] = "text"
    index: int = 0
    call: str = ""
    name: str = ""
    run: str = ""
    attempt: int = 0
    n: int = 0


class Alarm(Message, tag="system.alarm"):
    """Something an operator should see; of whom, and for which message, if it is about one."""

    what: str
    detail: str
    actor: str = ""
    seq: int = 0


class Audited(Message, tag="system.audited"):
    """What an operator did, to what, and who it was."""

    action: str
    target: str
    by: str
    detail: str = ""
