"""What was said in a session and what became of it, as agents read it: messages and the record.

Messages are read from the newest back, a page at a time; a page costs the same however many
there are.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from edge.newest import read_newest
from edge.remembered import Remark, read_envelope, read_message
from edge.session_shapes import seconds
from edge.utterances import files_of, text_of
from runtime.bus import Bus, Stored
from schemas import subjects
from schemas.assist import DraftWritten
from schemas.base import Message, tag_of
from schemas.conversation import MessageAnswered
from schemas.envelope import UNREADABLE, Envelope
from schemas.model import FileRef, history_topic
from schemas.ownership import MailNoted, ManualMessage, NoteAdded, Transition, internal_topic

MOST_BYTES = 4 * 1024 * 1024
FILES_PATH = "/files/"


class SaidView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A message. `id` is its place: those before it are read by `before`. `model` has answered
    as assistant; `outcome` says how an answer ended that is not whole."""

    id: int
    role: str
    content: str
    timestamp: float | None
    agent_id: str = ""
    agent_name: str = ""
    model: str = ""
    outcome: str = ""
    files: list[str] = []


class RecordView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Something that became of a session: a `transition`, a `note`, a `mail` or a `draft`."""

    id: int
    type: str
    timestamp: float | None
    was: str = ""
    status: str = ""
    epoch: int = 0
    by: str = ""
    reason: str = ""
    agent_id: str = ""
    agent_name: str = ""
    content: str = ""
    evidence: str = ""
    rule: str = ""
    stopped: list[str] = []
    sent: bool | None = None
    to: list[str] = []


async def read_messages(
    bus: Bus, session: str, limit: int, before: int = 0
) -> tuple[list[SaidView], bool]:
    """Return messages, oldest first, and whether there are more before them. Raises BusFault."""
    subject = subjects.event(history_topic(session))
    found = await read_newest(bus, subject, limit + 1, MOST_BYTES, before=before)
    views = [view for stored in found[-limit:] if (view := say(stored)) is not None]
    # Fewer than were asked for also where they are very long.
    more = len(found) > limit or (bool(found) and await _has_earlier(bus, subject, found[0].seq))
    return views, more


async def _has_earlier(bus: Bus, subject: str, seq: int) -> bool:
    first = await bus.read(subject, after=0, limit=1)
    return bool(first) and first[0].seq < seq


async def read_record(bus: Bus, session: str, limit: int) -> list[RecordView]:
    """Return the newest of what became of a session, oldest first. Raises BusFault."""
    subject = subjects.event(internal_topic(session))
    found = await read_newest(bus, subject, limit, MOST_BYTES)
    return [view for stored in found if (view := _record_of(stored)) is not None]


def say(stored: Stored) -> SaidView | None:
    """Return a stored message as it is shown, None for what cannot be read."""
    envelope = read_envelope(stored)
    message = read_message(envelope) if envelope else None
    if envelope is None or message is None:
        return None
    return said_view(stored.seq, envelope.time, message)


def said_view(seq: int, at: datetime, message: Remark) -> SaidView:
    """Return a message as it is shown."""
    place: dict[str, Any] = {"id": seq, "timestamp": seconds(at)}
    if isinstance(message, ManualMessage):
        who = message.agent
        return SaidView(
            role=message.role,
            content=message.content,
            agent_id=who.id if who else "",
            agent_name=who.name if who else "",
            **place,
        )
    if isinstance(message, MessageAnswered):
        return SaidView(
            role="assistant",
            content=message.text,
            model=message.model,
            outcome="" if message.outcome == "answered" else message.outcome,
            files=_paths(message.files),
            **place,
        )
    return SaidView(
        role=message.message.role,
        content=text_of(message.message),
        files=_paths(files_of(message.message)),
        **place,
    )


def _paths(files: Any) -> list[str]:
    found: list[FileRef] = list(files)
    return [f"{FILES_PATH}{each.id}" for each in found]


def _transition(said: Transition) -> dict[str, Any]:
    who, called = said.assignee, said.escalation
    return {
        "was": said.was,
        "status": said.mode,
        "epoch": said.epoch,
        "by": said.by,
        "reason": said.reason,
        "agent_id": who.id if who else "",
        "agent_name": who.name if who else "",
        "evidence": called.evidence if called else "",
        "rule": called.rule if called else "",
        "stopped": list(said.stopped),
    }


def _note(said: NoteAdded) -> dict[str, Any]:
    return {"content": said.content, "agent_id": said.by.id, "agent_name": said.by.name}


def _mail(said: MailNoted) -> dict[str, Any]:
    return {"sent": said.sent, "to": list(said.to), "reason": said.reason}


def _draft(said: DraftWritten) -> dict[str, Any]:
    return {"content": said.text, "reason": said.reason, "by": said.run}


_SHOWN: Mapping[type[Message], tuple[str, Any]] = {
    Transition: ("transition", _transition),
    NoteAdded: ("note", _note),
    MailNoted: ("mail", _mail),
    DraftWritten: ("draft", _draft),
}
_BY_TAG = {
    tag_of(kind): (msgspec.json.Decoder(kind).decode, *shown) for kind, shown in _SHOWN.items()
}


def record_view(seq: int, envelope: Envelope[msgspec.Raw]) -> RecordView | None:
    """Return an event among colleagues as it is shown, None for any other."""
    known = _BY_TAG.get(envelope.type)
    if known is None:
        return None
    decode, name, show = known
    try:
        return RecordView(
            id=seq, type=name, timestamp=seconds(envelope.time), **show(decode(envelope.data))
        )
    except UNREADABLE:
        return None


def _record_of(stored: Stored) -> RecordView | None:
    envelope = read_envelope(stored)
    return record_view(stored.seq, envelope) if envelope else None
