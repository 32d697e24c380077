"""One key from close by: who has it, its state, what waits, what fails, its reminders."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from runtime.answers import clip
from runtime.bus import Bus, Stored
from runtime.controls import read_control
from runtime.dead import Selection, newest_letters
from runtime.deployments import read_deployments
from runtime.errors import NotPossible
from runtime.loads import record_of
from runtime.terminal.overview import read_nodes
from runtime.terminal.shown import ago, harmless
from schemas import subjects
from schemas.base import Address, token
from schemas.envelope import decode_any
from schemas.record import Record

MOST_SHOWN = 20
MOST_LETTERS = 5


async def look_closely(bus: Bus, address: Address) -> dict[str, Any]:
    """All that is known of one key, as plain data. Raises NotPossible if it can have none."""
    await _check(bus, address)
    key = token(address.key)
    stored, record = await record_of(bus, address.actor, key)
    control = await read_control(bus, address)
    return {
        "address": str(address),
        **await _owner(bus, address),
        "paused": control.says if control and control.paused else "",
        "state": _state(stored, record),
        **await _waiting(bus, address.actor, key, record.done if record else 0),
        "reminders": await _reminders(bus, address.actor, key, record),
        "dead_letters": await _letters(bus, address),
    }


async def _check(bus: Bus, address: Address) -> None:
    found = (await read_deployments(bus)).get(address.actor)
    if found is None:
        raise NotPossible(f"no actor {address.actor!r} is deployed")
    if found.kind != "keyed":
        raise NotPossible(
            f"{address.actor!r} is a {found.kind} and keeps nothing by key; see `callboard actors`"
        )


async def _owner(bus: Bus, address: Address) -> dict[str, Any]:
    shard = subjects.shard_of(address.actor, address.key)
    nodes = await read_nodes(bus)
    failing = [one for node in nodes for one in node.failing if one.address == str(address)]
    return {
        "shard": shard,
        # A shard is pinned with its first message: without one there may be no owner.
        "hosts": [node.name for node in nodes if shard in node.owned.get(address.actor, ())],
        "failing": next((one for one in failing if one.tries), None),
    }


def _state(stored: Stored | None, record: Record | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    if record is None:
        return {"version": stored.seq, "readable": False}
    return {
        "version": stored.seq,
        "bytes": len(bytes(record.data)),
        "written": record.written,
        "done": record.done,
        "put_aside_up_to": record.parked,
    }


async def _waiting(bus: Bus, actor: str, key: str, done: int) -> dict[str, Any]:
    page = await bus.read(subjects.stored_mail(actor, key), after=done, limit=MOST_SHOWN)
    now = datetime.now(UTC)
    shown = [
        {"message": one.seq, "seconds": (now - one.time).total_seconds(), "type": _type(one.data)}
        for one in page
    ]
    return {"waiting": len(page) + page[-1].pending if page else 0, "messages": shown}


def _type(data: bytes) -> str:
    try:
        return decode_any(data).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "unreadable"


async def _reminders(bus: Bus, actor: str, key: str, record: Record | None) -> list[dict[str, Any]]:
    current = record.timers if record else {}
    found = []
    for stored in await bus.lasts(subjects.timers(actor, key)):
        try:
            envelope = decode_any(stored.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if current.get(envelope.reminder) == envelope.generation:
            found.append({"name": envelope.reminder, "due": envelope.due, "type": envelope.type})
    return found


async def _letters(bus: Bus, address: Address) -> list[dict[str, Any]]:
    selection = Selection(actor=address.actor, key=address.key)
    return [
        {"letter": one.seq, "time": one.time, "type": one.type, "reason": one.told.reason}
        for one in await newest_letters(bus, selection, MOST_LETTERS)
    ]


def describe(facts: dict[str, Any]) -> list[str]:
    """What was seen, for people."""
    state, failing = facts["state"], facts["failing"]
    lines = [
        f"{harmless(facts['address'])}, shard {facts['shard']},"
        f" on {', '.join(facts['hosts']) or 'no host: no message has come to its shard lately'}"
    ]
    if facts["paused"]:
        lines.append(harmless(facts["paused"]))
    if state is None:
        lines.append("no state: it was never written to, or its time is over")
    elif "bytes" not in state:
        lines.append(f"state: version {state['version']}, and nobody can read it")
    else:
        lines.append(
            f"state: version {state['version']}, {state['bytes']} bytes,"
            f" up to message {state['done']}"
        )
    if failing:
        lines.append(
            f"message {failing.seq} failed {failing.tries} times:"
            f" {harmless(clip(failing.reason, 200), lines=False)}"
        )
    return lines + _describe_lists(facts)


def _describe_lists(facts: dict[str, Any]) -> list[str]:
    now = datetime.now(UTC)
    lines = [f"{facts['waiting']} waiting"]
    lines += [
        f"  message {m['message']}, {m['seconds']:.0f}s, {harmless(m['type'])}"
        for m in facts["messages"]
    ]
    lines += [
        f"reminder {harmless(r['name'])} in {ago(r['due'] - now) if r['due'] else '?'},"
        f" {harmless(r['type'])}"
        for r in facts["reminders"]
    ]
    lines += [
        f"dead letter {d['letter']}, {ago(now - d['time'])} ago,"
        f" {harmless(clip(d['reason'], 80), lines=False)}"
        for d in facts["dead_letters"]
    ]
    return lines
