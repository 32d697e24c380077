"""What is remembered of conversations: their states, their batches, and what was said in them.

Whoever may not see something is told that it is not there.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from edge.asking import wait_for_bus
from edge.auth import CHAT_ALL, Principal
from edge.problem import Refusal, quote
from edge.session_shapes import case_of, may_handle
from edge.shared import Shared
from runtime.bus import Stored
from runtime.errors import Unavailable
from schemas import subjects
from schemas.base import Address, Topic, tag_of, token
from schemas.conversation import (
    BATCH,
    SESSION,
    BatchState,
    MessageAnswered,
    MessageSaid,
    StartBatch,
    TaskState,
    is_open_to,
)
from schemas.envelope import UNREADABLE, Envelope, decode_any
from schemas.model import history_topic
from schemas.ownership import ManualMessage
from schemas.record import Record
from schemas.session import SessionState

State = TypeVar("State")

NO_CONVERSATION = "Conversation not found"
NO_BATCH = "Batch ID not found"
NO_TASK = "Task not found"

FIRST_MAIL = 16
"""How many of a batch's first messages are looked at for the one that starts it."""
ENDED_AFTER = timedelta(minutes=1)
"""What belongs to a batch stands in the log before it ended, whatever clocks say."""

_decode_record = msgspec.json.Decoder(Record).decode
_decode_start = msgspec.json.Decoder(StartBatch).decode
_decode_answered = msgspec.json.Decoder(MessageAnswered).decode
SAID, ANSWERED, MANUAL = tag_of(MessageSaid), tag_of(MessageAnswered), tag_of(ManualMessage)

Remark = MessageSaid | MessageAnswered | ManualMessage
"""A whole message of a conversation, whoever said it."""
_REMARKS: Mapping[str, type[Remark]] = {
    SAID: MessageSaid,
    ANSWERED: MessageAnswered,
    MANUAL: ManualMessage,
}


class Remembered:
    """Reads what a client may see."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._bus = shared.bus

    async def conversation(self, principal: Principal, conversation: str) -> SessionState:
        """Return a conversation's state. Raises Refusal 404, BusFault."""
        found = await self.find_conversation(conversation)
        if found is None or not may_read(principal, conversation, found):
            raise Refusal(404, "conversation_not_found", NO_CONVERSATION)
        return found

    async def find_conversation(self, conversation: str) -> SessionState | None:
        """Return a conversation's state whoever asks, None if there is none. Raises BusFault."""
        await wait_for_bus(self._bus)
        return await self._state(Address(SESSION, conversation), SessionState)

    async def written(self, conversation: str) -> tuple[SessionState, int]:
        """Return a conversation's state and where it was written; nothing has none."""
        stored = await self._last(Address(SESSION, conversation))
        if stored is None:
            return SessionState(), 0
        state = await self.decode_state(SESSION, stored, SessionState)
        return state or SessionState(), stored.seq

    async def after(self, batch: str) -> int | None:
        """Return a sequence before which nothing of a batch was said, None if it is not known."""
        state = await self._state(Address(BATCH, batch), BatchState)
        return state.after if state and state.conversation else None

    async def batch(
        self, principal: Principal, batch: str, code: str = "batch_not_found", what: str = NO_BATCH
    ) -> BatchState:
        """Return a batch's state. Raises Refusal 404 in these words, BusFault."""
        await wait_for_bus(self._bus)
        found = await self._state(Address(BATCH, batch), BatchState)
        if found is None or not found.conversation:
            found = await self._just_opened(batch)
        if found is None or not may_see(principal, found.owner):
            raise Refusal(404, code, what)
        return found

    async def task(self, principal: Principal, task: str) -> tuple[str, BatchState, TaskState]:
        """Return a task with its batch and the id of that. Raises Refusal 404, BusFault."""
        batch, _, _ = task.rpartition("-")
        found = await self.batch(principal, batch or "-", "task_not_found", NO_TASK)
        if task not in found.tasks:
            raise Refusal(404, "task_not_found", NO_TASK)
        return batch, found, found.tasks[task]

    async def answers(self, batch: str, state: BatchState) -> Mapping[str, MessageAnswered]:
        """Return what was answered in a batch, by task. Raises BusFault."""
        awaited = {id for id, task in state.tasks.items() if task.status == "SUCCESS"}
        found: dict[str, MessageAnswered] = {}
        if not awaited:
            return found
        until = state.finished + ENDED_AFTER if state.finished else None
        async for _, envelope in self.read(history_topic(state.conversation), state.after):
            if envelope.type == ANSWERED:
                said = _decode_answered(envelope.data)
                if said.batch == batch and said.run == state.tasks[said.task].run:
                    found[said.task] = said
            if awaited <= found.keys() or (until and envelope.time > until):
                break
        return found

    async def read(
        self, topic: Topic, after: int
    ) -> AsyncIterator[tuple[Stored, Envelope[msgspec.Raw]]]:
        """Read the events of a topic past a sequence; what cannot be read is passed over."""
        async for page in self._bus.pages(subjects.event(topic), after=after):
            for stored in page:
                if (envelope := read_envelope(stored)) is not None:
                    yield stored, envelope

    async def _just_opened(self, batch: str) -> BatchState | None:
        """What the message that starts a batch says of it, before the batch has read it."""
        stored = subjects.stored_at(Address(BATCH, batch))
        for mail in await self._bus.read(stored, after=0, limit=FIRST_MAIL):
            envelope = read_envelope(mail)
            if envelope is not None and envelope.type == tag_of(StartBatch):
                return _opened(_decode_start(envelope.data), envelope)
        return None

    async def _state(self, address: Address, kind: type[State]) -> State | None:
        stored = await self._last(address)
        return await self.decode_state(address.actor, stored, kind) if stored else None

    async def _last(self, address: Address) -> Stored | None:
        return await self._bus.last(subjects.state(address.actor, token(address.key)))

    async def decode_state(self, actor: str, stored: Stored, kind: type[State]) -> State | None:
        """Return the state in a stored record, None if its time is over."""
        try:
            record = _decode_record(stored.data)
            if not record.data or await self._is_over(actor, record):
                return None
            return msgspec.json.decode(record.data, type=kind)
        except UNREADABLE:
            # Whoever keeps it stands still and says so; a client can only come again.
            raise Unavailable(f"the record {quote(stored.subject)} is not readable") from None

    async def _is_over(self, actor: str, record: Record) -> bool:
        deployed = await self._shared.deployed.find(actor)
        if deployed is None or record.written is None:
            return False
        return datetime.now(UTC) - record.written > deployed.lifetime


def may_see(principal: Principal, owner: str) -> bool:
    """Whether what belongs to `owner` is for a principal to see."""
    return is_open_to(owner, principal.id) or CHAT_ALL in principal.scopes


def may_read(principal: Principal, conversation: str, state: SessionState) -> bool:
    """As `may_see`; an agent, unless they lead, may read those of their teams and their own."""
    return may_see(principal, state.owner) and may_handle(principal, case_of(conversation, state))


def read_envelope(stored: Stored) -> Envelope[msgspec.Raw] | None:
    """Return what is stored as an envelope, None if it is none."""
    try:
        return decode_any(stored.data)
    except UNREADABLE:
        return None


def read_message(envelope: Envelope[msgspec.Raw]) -> Remark | None:
    """Return a whole message of a conversation, None for any other event."""
    kind = _REMARKS.get(envelope.type)
    try:
        return msgspec.json.decode(envelope.data, type=kind) if kind else None
    except UNREADABLE:
        return None


def names_of(models: Iterable[str]) -> str | None:
    """Return names of models as one text."""
    return ", ".join(dict.fromkeys(models)) or None


def _opened(start: StartBatch, envelope: Envelope[Any]) -> BatchState:
    wanted = zip(start.tasks, start.wanted, strict=True)
    return BatchState(
        conversation=start.conversation,
        prompt=start.prompt,
        said=start.said,
        policy=start.policy,
        tasks={task.task: TaskState(wanted=each, run=task.run) for task, each in wanted},
        created=envelope.time,
        after=start.after,
        owner=envelope.principal,
    )


def read_key(stored: Stored) -> str:
    """Return the key of the instance whose record is stored."""
    return _decode_record(stored.data).key
