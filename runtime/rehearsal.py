"""Reads recorded conversations from the log, and has rules tried on them.

How a conversation is heard again: schemas/rehearsing.py.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec

from runtime.bus import Bus
from schemas import subjects
from schemas.base import Address, Topic, tag_of, token
from schemas.conversation import SESSION, MessageAnswered, MessageSaid
from schemas.envelope import UNREADABLE, decode_any
from schemas.model import history_topic
from schemas.ownership import Customer, Escalation, Hold, Transition, internal_topic
from schemas.record import Record
from schemas.regulating import Regulator
from schemas.regulator import Ruleset
from schemas.rehearsing import Case, Rehearsal, Report

KINDS = {tag_of(kind): kind for kind in (MessageSaid, MessageAnswered, Transition)}
SAID, STEPS = history_topic("").kind, internal_topic("").kind


class _Known(msgspec.Struct):
    """What of a session's state says who is served."""

    hold: Hold = msgspec.field(default_factory=Hold)


_decode_record = msgspec.json.Decoder(Record).decode
_decode_known = msgspec.json.Decoder(_Known).decode


async def rehearse(
    bus: Bus, ruleset: Ruleset, *, since: datetime, conversation: str = ""
) -> Report:
    """Try a ruleset on what was said since then, in one conversation or in all.

    Who is a VIP, and who speaks which language, is as it is known now. Raises BusFault.
    """
    regulator = Regulator(ruleset)
    heard: dict[str, Rehearsal] = {}
    last = since
    async for name, message, at in _read(bus, SAID, conversation, since):
        if name not in heard:
            heard[name] = Rehearsal(regulator, await _find_customer(bus, name))
        heard[name].hear(message, at)
        last = at
    for one in heard.values():
        one.end(last)
    happened = await _find_calls(bus, conversation, since)
    cases = [
        Case(conversation=name, would=one.would, did=happened.get(name))
        for name, one in heard.items()
        if one.would or name in happened
    ]
    return Report(
        version=regulator.version,
        conversations=len(heard),
        messages=sum(one.messages for one in heard.values()),
        cases=sorted(cases, key=lambda case: _when(case, since)),
    )


def _when(case: Case, otherwise: datetime) -> datetime:
    called = case.would or case.did
    return called.at if called and called.at else otherwise


async def _find_calls(bus: Bus, conversation: str, since: datetime) -> dict[str, Escalation]:
    """Why a person was first called to each conversation, as it was recorded."""
    found: dict[str, Escalation] = {}
    async for name, step, _ in _read(bus, STEPS, conversation, since):
        if step.mode == "pending_manual" and step.escalation is not None:
            found.setdefault(name, step.escalation)
    return found


async def _read(
    bus: Bus, kind: str, conversation: str, since: datetime
) -> AsyncIterator[tuple[str, Any, datetime]]:
    """The events of one kind of topic, of a conversation or of all: of whom, what, when. What
    nobody can read is passed over."""
    one, each = subjects.event(Topic(kind, conversation)), subjects.events_of(kind)
    async for page in bus.pages(one if conversation else each, after=0):
        for stored in page:
            try:
                envelope = decode_any(stored.data)
                if envelope.type in KINDS and envelope.time >= since:
                    message = msgspec.json.decode(envelope.data, type=KINDS[envelope.type])
                    yield envelope.subject, message, envelope.time
            except UNREADABLE:
                continue


async def _find_customer(bus: Bus, conversation: str) -> Customer:
    """Who is served in a conversation, as far as its session knows."""
    address = Address(SESSION, conversation)
    stored = await bus.last(subjects.state(address.actor, token(address.key)))
    try:
        record = _decode_record(stored.data) if stored else None
        return _decode_known(record.data).hold.customer if record and record.data else Customer()
    except UNREADABLE:
        return Customer()
