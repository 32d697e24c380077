"""What a conversation tells of a batch, retold as the choices of a chat completion.

What was sent cannot be taken back: an attempt that supersedes another one whose words were sent
already ends the stream in an error. Two attempts are never glued together.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from edge.chunks import Chunks
from edge.failures import failure_of, meaning_of
from edge.problem import Refusal
from schemas.base import Message, tag_of
from schemas.conversation import (
    BatchFinished,
    BatchOpened,
    RunFinished,
    TaskFinished,
    TaskMoved,
)
from schemas.envelope import UNREADABLE, Envelope
from schemas.model import Finish, Usage
from schemas.record import Delta, RunStarted, RunSuperseded

SUPERSEDED = (
    "the model began anew after a part of its answer was sent; discard that part, and repeat the"
    " request"
)


class Broken(Exception):
    """The answer cannot be given, or not go on; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@dataclass
class Choice:
    """One task as one choice, and how far it has come."""

    index: int
    task: str
    run: str
    attempt: int = 0
    number: int = 0
    begun: bool = False
    calls: set[int] = field(default_factory=set)
    refused: str | None = None
    finish: Finish | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.finish is not None


class Telling:
    """Hears the events of a conversation, and writes what they mean as chunks."""

    def __init__(self, opened: BatchOpened, chunks: Chunks) -> None:
        self.batch = opened.batch
        self.choices = [Choice(n, one.task, one.run) for n, one in enumerate(opened.tasks)]
        self._chunks = chunks
        self._by_task = {choice.task: choice for choice in self.choices}
        self._by_run = {choice.run: choice for choice in self.choices if choice.run}

    @property
    def done(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.done for choice in self.choices)

    def hear(self, name: str, data: bytes) -> bytes:
        """Return what an event adds to the stream. Raises Broken where it cannot go on."""
        known = HEARD.get(name)
        if known is None:
            return b""
        decode, tell = known
        try:
            message = decode(data).data
        except UNREADABLE:
            return b""
        told: bytes = tell(self, message)
        return told

    def write(self, choice: Choice, delta: Delta) -> bytes:
        """Return a piece of a choice, with how it begins before the first one."""
        before = b"" if choice.begun else self._chunks.role(choice.index)
        choice.begun = True
        return before + self._chunks.piece(choice.index, delta)

    def end(self, choice: Choice, finish: Finish, usage: Usage) -> bytes:
        """Return how a choice ends."""
        before = b"" if choice.begun else self._chunks.role(choice.index)
        if choice.refused and not choice.begun:
            before += self._chunks.add(choice.index, "refusal", choice.refused)
        choice.begun, choice.finish, choice.usage = True, finish, usage
        return before + self._chunks.finish(choice.index, finish)

    # -- what is heard ---------------------------------------------------------------------

    def _hear_delta(self, delta: Delta) -> bytes:
        choice = self._speaking(delta.run, delta.attempt)
        if choice is None or delta.n <= choice.number:
            return b""
        choice.number = delta.n
        if delta.kind == "tool" and delta.index in choice.calls and delta.call:
            # The id and the name of a call come once.
            delta = msgspec.structs.replace(delta, call="", name="")
        elif delta.kind == "tool":
            choice.calls.add(delta.index)
        return self.write(choice, delta) if delta.text or delta.call else b""

    def _hear_attempt(self, message: RunStarted | RunSuperseded) -> bytes:
        self._speaking(message.run, message.attempt)
        return b""

    def _hear_run_end(self, finished: RunFinished) -> bytes:
        choice = self._by_run.get(finished.run)
        if choice is not None and finished.outcome == "refused":
            choice.refused = finished.reason or "the model refused to answer"
        return b""

    def _hear_move(self, moved: TaskMoved) -> bytes:
        choice = self._by_task.get(moved.task)
        if choice is None or choice.done or moved.run == choice.run:
            return b""
        self._begin_anew(choice)
        choice.run, choice.attempt = moved.run, 0
        self._by_run[moved.run] = choice
        return b""

    def _hear_end(self, finished: TaskFinished) -> bytes:
        choice = self._by_task.get(finished.task)
        if choice is None or choice.done:
            return b""
        if finished.status == "SUCCESS":
            return self.end(choice, finished.finish, finished.usage)
        if choice.refused is not None or finished.code == "refused":
            choice.refused = choice.refused or finished.reason
            return self.end(choice, "content_filter", finished.usage)
        raise Broken(failure_of(finished))

    def _hear_batch_end(self, finished: BatchFinished) -> bytes:
        if finished.batch == self.batch and not self.done:
            raise Broken(meaning_of("", 0, finished.reason or "the request was given up"))
        return b""

    def _speaking(self, run: str, attempt: int) -> Choice | None:
        """The choice that an attempt speaks for; None if it is over, or nobody's."""
        choice = self._by_run.get(run)
        if choice is None or choice.done or run != choice.run or attempt < choice.attempt:
            return None
        if attempt > choice.attempt:
            self._begin_anew(choice)
            choice.attempt = attempt
        return choice

    def _begin_anew(self, choice: Choice) -> None:
        if choice.begun:
            raise Broken(Refusal(502, "superseded", SUPERSEDED))
        choice.number, choice.refused = 0, None


def _heard(kind: type[Message], tell: Any) -> tuple[str, tuple[Any, Any]]:
    return tag_of(kind), (msgspec.json.Decoder(Envelope[kind]).decode, tell)  # type: ignore[valid-type]  # made here


HEARD: dict[str, tuple[Any, Any]] = dict(
    (
        _heard(Delta, Telling._hear_delta),
        _heard(RunStarted, Telling._hear_attempt),
        _heard(RunSuperseded, Telling._hear_attempt),
        _heard(RunFinished, Telling._hear_run_end),
        _heard(TaskMoved, Telling._hear_move),
        _heard(TaskFinished, Telling._hear_end),
        _heard(BatchFinished, Telling._hear_batch_end),
    )
)
