"""What a conversation tells, retold as customers' pages read it: data with a `type` at the top.

Pieces of an answer carry the run that said them. Two attempts are never glued together: what an
older one said is taken back by a `reset`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from edge.failures import meaning_of
from edge.following import Event
from edge.utterances import text_of
from schemas.assist import ThreadOpened
from schemas.base import Message, tag_of
from schemas.conversation import (
    MessageSaid,
    TaskFinished,
    TaskMoved,
    TaskStopped,
)
from schemas.envelope import UNREADABLE, Envelope
from schemas.ownership import Assignee, AssigneeChanged, ManualMessage, Mode, ModeChanged
from schemas.record import Delta, RunStarted, RunSuperseded

_encode = msgspec.json.Encoder().encode


def write_event(kind: str, *, cursor: int | None = None, **fields: Any) -> bytes:
    """Return one event as it is written; `cursor` is where a client resumes after it."""
    place = b"" if cursor is None else b"id: %d\n" % cursor
    return b"%bdata: %b\n\n" % (place, _encode({"type": kind, **fields}))


def agent_info(assignee: Assignee | None) -> dict[str, str] | None:
    """An agent as customers may know them."""
    return {"agent_id": assignee.id, "agent_name": assignee.name} if assignee else None


def stamp(at: datetime) -> float:
    """A time as Fiido's clients read it: seconds, to the millisecond."""
    return round(at.timestamp(), 3)


@dataclass
class _Answer:
    """What one run has said. Only one that was heard from its first word is `whole`."""

    run: str
    attempt: int = 0
    number: int = 0
    whole: bool = True
    pieces: list[str] = field(default_factory=list)
    stopped: str = ""

    @property
    def begun(self) -> bool:
        return self.number > 0

    def begin(self, attempt: int) -> None:
        self.attempt, self.number, self.whole = attempt, 0, True
        self.pieces.clear()


class Retelling:
    """Hears the events of a conversation, and writes what they mean to its customer.

    With a `run` only that answer is retold (and what takes its place), until it is `over`.
    """

    def __init__(self, task: str = "", run: str = "") -> None:
        self.mode: Mode | None = None
        """Who may speak, as far as it was heard."""
        self.over = False
        self._task = task
        self._answers: dict[str, _Answer] = {run: _Answer(run)} if run else {}
        self._runs: dict[str, str] = {task: run} if run else {}

    @property
    def run(self) -> str:
        """The run that answers now, or did last; nothing while none has begun."""
        return self._runs.get(self._task, "")

    @property
    def said(self) -> str | None:
        """All that it has said, None if a part of that was not heard."""
        answer = self._answers.get(self.run)
        return "".join(answer.pieces) if answer is not None and answer.whole else None

    def seed(self, task: str, run: str, attempt: int, number: int, text: str) -> None:
        """Take in how far an answer is that was not heard from its beginning."""
        self._runs[task] = run
        self._answers[run] = _Answer(run, attempt, number, pieces=[text])

    def hear(self, event: Event) -> bytes:
        """Return what an event adds; nothing if it is not for customers."""
        known = HEARD.get(event.name)
        if known is None:
            return b""
        decode, tell = known
        try:
            envelope = decode(event.data)
        except UNREADABLE:
            return b""
        told: list[dict[str, Any]] = tell(self, envelope.data, envelope)
        if not told:
            return b""
        # A client that was told half of them would go on behind all of them.
        *first, last = told
        return b"".join(write_event(**one) for one in first) + write_event(**last, cursor=event.seq)

    # -- answers ---------------------------------------------------------------------------

    def _hear_delta(self, delta: Delta, _: Any) -> list[dict[str, Any]]:
        answer, reset = self._speaking(delta.run, delta.attempt)
        if answer is None or delta.n <= answer.number:
            return reset
        if delta.n != answer.number + 1:
            answer.whole = False
        answer.number = delta.n
        if delta.kind != "text" or not delta.text:
            return reset
        answer.pieces.append(delta.text)
        return [*reset, {"kind": "answer", "content": delta.text, "message_id": delta.run}]

    def _hear_attempt(self, said: RunStarted | RunSuperseded, _: Any) -> list[dict[str, Any]]:
        return self._speaking(said.run, said.attempt)[1]

    def _speaking(self, run: str, attempt: int) -> tuple[_Answer | None, list[dict[str, Any]]]:
        """The answer that an attempt speaks for, and what takes back an older one's words."""
        answer = self._answers.get(run)
        if answer is None:
            if self._task:
                return None, []
            answer = self._answers[run] = _Answer(run, attempt)
        if attempt < answer.attempt:
            return None, []
        if attempt == answer.attempt:
            return answer, []
        reset = [_reset(run)] if answer.pieces else []
        answer.begin(attempt)
        return answer, reset

    def _hear_move(self, moved: TaskMoved, _: Any) -> list[dict[str, Any]]:
        if self._task and moved.task != self._task:
            return []
        old = self._answers.pop(self._runs.get(moved.task, ""), None)
        self._runs[moved.task] = moved.run
        self._answers[moved.run] = _Answer(moved.run)
        return [_reset(old.run)] if old is not None and old.pieces else []

    def _hear_stop(self, stopped: TaskStopped, _: Any) -> list[dict[str, Any]]:
        answer = self._answers.get(stopped.run)
        if answer is not None:
            answer.stopped = stopped.reason or "stopped"
        return []

    def _hear_end(self, finished: TaskFinished, _: Any) -> list[dict[str, Any]]:
        if self._task and finished.task != self._task:
            return []
        answer = self._answers.pop(finished.run, None)
        if not self._task:
            self._runs.pop(finished.task, None)
        self.over = self.over or bool(self._task)
        if answer is not None and answer.stopped:
            return [_done(answer, reason=answer.stopped)]
        answer = answer or _Answer(finished.run, whole=False)
        if finished.status == "SUCCESS" or (finished.code == "refused" and answer.pieces):
            return [_done(answer)]
        refusal = meaning_of(finished.code, finished.http_status, finished.reason)
        said = {"content": refusal.detail, "code": refusal.code, "message_id": finished.run}
        return [{"kind": "error", **said}, _done(answer, reason=refusal.code)]

    # -- people ----------------------------------------------------------------------------

    def _hear_said(self, said: MessageSaid, envelope: Any) -> list[dict[str, Any]]:
        if self._task:
            return []
        text = text_of(said.message)
        return [{"kind": "user_message", "content": text, "timestamp": stamp(envelope.time)}]

    def _hear_manual(self, said: ManualMessage, envelope: Any) -> list[dict[str, Any]]:
        agent = said.agent
        return [
            {
                "kind": "manual_message",
                "role": said.role,
                "content": said.content,
                "timestamp": stamp(envelope.time),
                "agent_id": agent.id if agent else None,
                "agent_name": agent.name if agent else None,
                "id": said.id,
            }
        ]

    def _hear_mode(self, changed: ModeChanged, envelope: Any) -> list[dict[str, Any]]:
        self.mode = changed.mode
        told = _status(changed, changed.reason, envelope.time)
        if changed.notice:
            told["notice"] = changed.notice
        if changed.mode == "bot_active":
            return [told]
        # It was stopped in the same commit: nothing of it comes any more.
        stopped = [one for one in self._answers.values() if one.stopped]
        for one in stopped:
            del self._answers[one.run]
            self.over = self.over or bool(self._task)
        return [told, *(_done(one, reason=one.stopped) for one in stopped)]

    def _hear_assignee(self, changed: AssigneeChanged, envelope: Any) -> list[dict[str, Any]]:
        told = _status(changed, changed.reason or "assignee", envelope.time)
        return [{**told, "notice": changed.notice} if changed.notice else told]

    def _hear_thread(self, opened: ThreadOpened, _: Any) -> list[dict[str, Any]]:
        return [{"kind": "conversation", "conversation_id": opened.thread}]


def _reset(run: str) -> dict[str, Any]:
    return {"kind": "reset", "message_id": run}


def _done(answer: _Answer, reason: str = "") -> dict[str, Any]:
    told: dict[str, Any] = {"kind": "done", "content": "", "message_id": answer.run}
    if answer.whole:
        told["full"] = "".join(answer.pieces)
    return {**told, "reason": reason} if reason else told


def _status(changed: ModeChanged | AssigneeChanged, reason: str, at: datetime) -> dict[str, Any]:
    return {
        "kind": "status_change",
        "status": changed.mode,
        "reason": reason,
        "agent_info": agent_info(changed.assignee),
        "timestamp": stamp(at),
    }


def _heard(kind: type[Message], tell: Any) -> tuple[str, tuple[Any, Any]]:
    return tag_of(kind), (msgspec.json.Decoder(Envelope[kind]).decode, tell)  # type: ignore[valid-type]  # made here


HEARD: dict[str, tuple[Any, Any]] = dict(
    (
        _heard(Delta, Retelling._hear_delta),
        _heard(RunStarted, Retelling._hear_attempt),
        _heard(RunSuperseded, Retelling._hear_attempt),
        _heard(TaskMoved, Retelling._hear_move),
        _heard(TaskStopped, Retelling._hear_stop),
        _heard(TaskFinished, Retelling._hear_end),
        _heard(MessageSaid, Retelling._hear_said),
        _heard(ManualMessage, Retelling._hear_manual),
        _heard(ModeChanged, Retelling._hear_mode),
        _heard(AssigneeChanged, Retelling._hear_assignee),
        _heard(ThreadOpened, Retelling._hear_thread),
    )
)
