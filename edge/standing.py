"""How a conversation stands at one place of its log: what was said, and who is still speaking.

Whoever comes in is told this first, and then what follows that place: nothing is missing between.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request

from edge.batch_shapes import THINKING, HistoryEntry, RunningTask, Snapshot
from edge.feeds import AsOf
from edge.newest import read_newest
from edge.remembered import Remark, Remembered, names_of, read_envelope, read_message
from edge.utterances import file_urls, files_of, text_of
from runtime.bus import Bus
from schemas import subjects
from schemas.conversation import (
    BatchBegan,
    MessageAnswered,
    RunFinished,
    TaskFinished,
    TaskMoved,
    TaskStopped,
)
from schemas.envelope import UNREADABLE
from schemas.model import conversation_topic, history_topic
from schemas.ownership import ManualMessage
from schemas.record import Delta, RunStarted, RunSuperseded
from schemas.session import SessionState

MOST_MESSAGES = 200
MOST_BYTES = 8 * 1024 * 1024
COMMIT = 1000
"""Messages that one commit holds at most: so far back a batch may have begun in the same one."""

Spoken = (
    BatchBegan
    | TaskMoved
    | RunStarted
    | RunSuperseded
    | Delta
    | RunFinished
    | TaskStopped
    | TaskFinished
)
_decode_spoken = msgspec.json.Decoder(Spoken).decode


class Standing:
    """Tells how conversations stand."""

    def __init__(self, bus: Bus, remembered: Remembered) -> None:
        self._bus = bus
        self._remembered = remembered

    async def history(
        self, request: Request, conversation: str, state: SessionState, limit: int
    ) -> list[HistoryEntry]:
        """Return the newest messages, oldest first, and a placeholder for each to come."""
        found = await self._messages(conversation, limit)
        answered = {told.message.run for told in found if isinstance(told.message, MessageAnswered)}
        running = [
            RunningTask(batch_id=live.batch, task_id=live.task, model=live.model, run=run)
            for run, live in state.live.items()
            if run not in answered
        ]
        for entry in state.queued:
            for task in entry.tasks:
                view = RunningTask(
                    batch_id=entry.batch, task_id=task.task, model=task.model, run=""
                )
                running.append(view)
        return _entries(request, found, running)[-limit:]

    async def now(self, conversation: str) -> "Now":
        """Return how a conversation stands, without what was said in it. Raises BusFault."""
        state, written = await self._remembered.written(conversation)
        while written:
            info = await self._bus.api(f"STREAM.INFO.{self._bus.stream}")
            cursor, before = int(info["state"]["last_seq"]), written
            # What has changed since would be told neither with the state nor after the cursor.
            state, written = await self._remembered.written(conversation)
            if written == before:
                floor = await self._floor(state, written)
                return Now(cursor, state, await self._speaking(conversation, floor, cursor))
        return Now(0, state, [])

    async def snapshot(self, request: Request, conversation: str) -> AsOf:
        """Return how a conversation stands, and where. Raises BusFault."""
        state, written = await self._remembered.written(conversation)
        floor = await self._floor(state, written)
        info = await self._bus.api(f"STREAM.INFO.{self._bus.stream}")
        cursor = int(info["state"]["last_seq"])
        newest = await self._messages(conversation, MOST_MESSAGES)
        found = [told for told in newest if told.seq <= cursor]
        running = await self._speaking(conversation, floor, cursor)
        view = Snapshot(
            conversation_id=conversation,
            cursor=cursor,
            messages=_entries(request, found, running),
            running=running,
        )
        return AsOf(cursor, view)

    async def _messages(self, conversation: str, limit: int) -> list["Told"]:
        subject = subjects.event(history_topic(conversation))
        found = []
        for stored in await read_newest(self._bus, subject, limit, MOST_BYTES):
            envelope = read_envelope(stored)
            message = read_message(envelope) if envelope else None
            if envelope and message:
                found.append(Told(stored.seq, envelope.time, message))
        return found

    async def _floor(self, state: SessionState, written: int) -> int:
        """A sequence before which none of the runs has said anything that are live now."""
        floor = written
        for batch in {live.batch for live in state.live.values()}:
            after = await self._remembered.after(batch)
            floor = min(floor, written - COMMIT if after is None else after)
        return max(floor, 0)

    async def _speaking(self, conversation: str, floor: int, cursor: int) -> list[RunningTask]:
        """What is being said at `cursor`, by all that has been said since `floor`."""
        speaking = Speaking()
        async for stored, envelope in self._remembered.read(
            conversation_topic(conversation), floor
        ):
            if stored.seq > cursor:
                break
            try:
                speaking.hear(_decode_spoken(envelope.data))
            except UNREADABLE:
                continue
        return list(speaking.by_task.values())


@dataclass(frozen=True)
class Now:
    """How a conversation stands at a place of the log, and what is being said there."""

    cursor: int
    state: SessionState
    running: list[RunningTask]


class Speaking:
    """Follows who is speaking, as any client has to."""

    def __init__(self) -> None:
        self.by_task: dict[str, RunningTask] = {}
        self._by_run: dict[str, RunningTask] = {}

    def hear(self, said: Any) -> None:
        """Take in one event."""
        match said:
            case BatchBegan():
                for task in said.tasks:
                    self._begin(said.batch, task.task, task.model, task.run)
            case TaskMoved():
                self._begin(said.batch, said.task, said.model, said.run)
            case RunStarted() | RunSuperseded():
                if running := self._by_run.get(said.run):
                    running.attempt, running.n = said.attempt, 0
                    running.text = running.reasoning = ""
            case Delta():
                self._speak(said)
            case RunFinished() | TaskStopped() | TaskFinished():
                self._end(said.task, said.run)

    def _begin(self, batch: str, task: str, model: str, run: str) -> None:
        running = RunningTask(batch_id=batch, task_id=task, model=model, run=run)
        self.by_task[task] = self._by_run[run] = running

    def _speak(self, delta: Delta) -> None:
        running = self._by_run.get(delta.run)
        if running is None or (delta.attempt, delta.n) <= (running.attempt, running.n):
            return
        if delta.attempt > running.attempt:
            running.text = running.reasoning = ""
        running.attempt, running.n = delta.attempt, delta.n
        if delta.kind == "text":
            running.text += delta.text
        elif delta.kind == "reasoning":
            running.reasoning += delta.text

    def _end(self, task: str, run: str) -> None:
        self._by_run.pop(run, None)
        if (running := self.by_task.get(task)) and running.run == run:
            del self.by_task[task]


@dataclass(frozen=True)
class Told:
    """A whole message of a conversation, where and when it was told."""

    seq: int
    at: datetime
    message: Remark


def _entries(
    request: Request, found: Iterable[Told], running: Iterable[RunningTask]
) -> list[HistoryEntry]:
    """Messages as Async-Chat shows them: no failures, and a placeholder for each to come."""
    told = [each for each in found if _succeeded(each.message)]
    asked = _models_by_batch(told, running)
    entries = [_entry(request, each, asked) for each in told]
    waiting = (
        HistoryEntry(
            role="assistant",
            content=THINKING,
            model=each.model,
            is_loading=True,
            batch_id=each.batch_id,
            task_id=each.task_id,
        )
        for each in running
    )
    return [*entries, *waiting]


def _succeeded(message: Remark) -> bool:
    return not isinstance(message, MessageAnswered) or message.outcome == "answered"


def _models_by_batch(
    told: Iterable[Told], running: Iterable[RunningTask]
) -> Mapping[str, list[str]]:
    """Who answered each batch, or is about to."""
    models: dict[str, list[str]] = {}
    for each in told:
        if isinstance(each.message, MessageAnswered):
            models.setdefault(each.message.batch, []).append(each.message.model)
    for one in running:
        models.setdefault(one.batch_id, []).append(one.model)
    return models


def _entry(request: Request, told: Told, asked: Mapping[str, list[str]]) -> HistoryEntry:
    message = told.message
    if isinstance(message, MessageAnswered):
        return HistoryEntry(
            role="assistant",
            content=message.text,
            model=message.model,
            files=file_urls(request, message.files),
            created_at=told.at,
            batch_id=message.batch,
            task_id=message.task,
        )
    if isinstance(message, ManualMessage):
        return HistoryEntry(
            role=message.role,
            content=message.content,
            model=None,
            created_at=told.at,
            name=message.agent.name or message.agent.id if message.agent else None,
            message_id=message.id,
        )
    return HistoryEntry(
        role=message.message.role,
        content=text_of(message.message),
        model=names_of(asked.get(message.batch, ())),
        files=file_urls(request, files_of(message.message)),
        created_at=told.at,
        batch_id=message.batch,
        message_id=None if message.batch else str(told.seq),
    )
