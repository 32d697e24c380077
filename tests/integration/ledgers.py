"""What a conversation comes to in the log, and what was promised of it: the two are compared."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec

from runtime.testing import Kit
from schemas import subjects
from schemas.base import Address, Topic, tag_of
from schemas.conversation import MessageSaid, RunFinished, TaskFinished
from schemas.desk import AgentState, DeskState
from schemas.envelope import decode_any
from schemas.model import conversation_topic, history_topic
from schemas.ownership import (
    AssigneeChanged,
    CaseChanged,
    ManualMessage,
    ModeChanged,
    NoteAdded,
    Transition,
    desk_topic,
    internal_topic,
)
from schemas.record import Delta

SHOWN = {tag_of(kind) for kind in (ModeChanged, AssigneeChanged, ManualMessage, MessageSaid)}
ORDER = ("bot_active", "pending_manual", "manual_live")


@dataclass
class Ledger:
    """What somebody was told is stored, in the order in which they said it."""

    name: str
    said: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    changes: list[tuple[str, str]] = field(default_factory=list)
    """Modes and assignees that were answered, one after the other."""
    heard: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """What followed it: sequences and events."""


@dataclass(frozen=True)
class Entry:
    """One stored event."""

    seq: int
    type: str
    data: dict[str, Any]


async def read(kit: Kit, topic: Topic) -> list[Entry]:
    """Everything that is stored of a topic, oldest first."""
    found = []
    for stored in await kit.bus.read_all(subjects.event(topic), after=0):
        envelope = decode_any(stored.data)
        found.append(Entry(stored.seq, envelope.type, msgspec.json.decode(envelope.data)))
    return found


def only(entries: list[Entry], *kinds: Any) -> list[Entry]:
    """Those of some kinds."""
    return [one for one in entries if one.type in {tag_of(kind) for kind in kinds}]


def text_of(entry: Entry) -> str:
    """What a customer or an agent said."""
    if entry.type == tag_of(ManualMessage):
        return str(entry.data["content"])
    return "".join(part.get("text", "") for part in entry.data["message"]["content"])


def whose(entry: Entry) -> tuple[int, str, str]:
    """The epoch, the mode and the assignee of a change."""
    assignee = entry.data.get("assignee") or {}
    return entry.data["epoch"], entry.data["mode"], assignee.get("id", "")


def spoken_over(entries: list[Entry]) -> list[Entry]:
    """What the bot says, or ends an answer with, while it may not.

    The batch may tell later of a run that had ended before.
    """
    mode, ended, found = "bot_active", set(), []
    for one in entries:
        if one.type == tag_of(ModeChanged):
            mode = one.data["mode"]
        answers = one.type == tag_of(TaskFinished) and one.data["status"] == "SUCCESS"
        if one.type == tag_of(RunFinished) and mode == "bot_active":
            ended.add(one.data["run"])
        speaks = one.type in (tag_of(Delta), tag_of(RunFinished))
        if mode != "bot_active" and (speaks or (answers and one.data["run"] not in ended)):
            found.append(one)
    return found


async def judge(kit: Kit, ledger: Ledger) -> list[str]:
    """What is not as it should be in one conversation, in words."""
    told = await read(kit, conversation_topic(ledger.name))
    kept = await read(kit, history_topic(ledger.name))
    inside = await read(kit, internal_topic(ledger.name))
    changes = [whose(one) for one in only(told, ModeChanged, AssigneeChanged)]
    steps = only(told, ModeChanged)
    record = [whose(one) for one in only(inside, Transition)]
    state = await kit.state(Address("session", ledger.name))
    last = changes[-1] if changes else (0, "bot_active", "")
    holds = state.hold.assignee.id if state.hold.assignee else ""
    shown = [one.seq for one in told if one.type in SHOWN]
    heard = [seq for seq, _ in ledger.heard]
    said = [text_of(one) for one in only(kept, MessageSaid, ManualMessage)]
    manual = [text_of(one) for one in only(told, ManualMessage)]
    found = {
        "said": said == ledger.said or (said, ledger.said),
        "said to people": manual == [text_of(one) for one in only(kept, ManualMessage)],
        "notes": [one.data["content"] for one in only(inside, NoteAdded)] == ledger.notes,
        "changes": [one[1:] for one in changes] == ledger.changes or (changes, ledger.changes),
        "epochs": [one[0] for one in changes] == list(range(1, len(changes) + 1)),
        "order": all(
            ORDER.index(one.data["mode"]) == (ORDER.index(one.data["was"]) + 1) % 3 for one in steps
        )
        and all(one.data["mode"] == other.data["was"] for one, other in pairwise(steps)),
        "record": record == changes or (record, changes),
        "state": (state.hold.epoch, state.hold.mode, holds) == last or (state.hold, last),
        "live": not state.live or state.live,
        "the bot speaks": bool(only(told, Delta)),
        "the bot is silent": not spoken_over(told) or spoken_over(told),
        "heard in order": all(one < other for one, other in pairwise(heard)) or heard,
        "heard": set(shown) <= set(heard) or sorted(set(shown) - set(heard)),
        "resets": not [one for _, one in ledger.heard if one.get("reason") == "gap"],
    }
    wrong = [(what, right) for what, right in found.items() if right is not True]
    return [f"{ledger.name}: {what}: {right}" for what, right in wrong]


async def judge_desk(kit: Kit, ledgers: list[Ledger], agents: tuple[str, ...]) -> list[str]:
    """What the desk and its agents say otherwise than the sessions do."""
    wrong = []
    holders = {}
    for ledger in ledgers:
        hold = (await kit.state(Address("session", ledger.name))).hold
        if hold.mode == "manual_live":
            holders[ledger.name] = hold.assignee.id
        cases = [
            one.data["case"]
            for one in only(await read(kit, desk_topic("support")), CaseChanged)
            if one.data["case"]["session"] == ledger.name
        ]
        last = (cases[-1].get("epoch", 0), cases[-1].get("mode", "bot_active")) if cases else ()
        if cases and last != (hold.epoch, hold.mode):
            wrong.append(f"{ledger.name}: its last case is {last}, and {hold} holds")
    desk: DeskState = await kit.state(Address("desk", "support"))
    taken = {name: one.agent for name, one in desk.taken.items()}
    if taken != holders or desk.waiting:
        wrong.append(f"the desk has {taken}, waiting {list(desk.waiting)}; they are {holders}")
    for name in agents:
        agent: AgentState = await kit.state(Address("human_agent", name))
        theirs = {one for one, holder in holders.items() if holder == name}
        if set(agent.open) != theirs:
            wrong.append(f"{name} has {sorted(agent.open)} open, and it is {sorted(theirs)}")
    return wrong
