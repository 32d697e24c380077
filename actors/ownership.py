"""Who may speak in a conversation: every step from one to the other is taken here.

A step stops every live run in the commit that tells of it, so nothing of the bot follows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from actors.arriving import Arrivals
from actors.drafts import Drafts
from actors.limits import clip
from actors.live import Live
from actors.session_options import SessionOptions
from actors.terms import Notices
from actors.waits import Waits
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.base import Address, Message
from schemas.model import history_topic
from schemas.ownership import (
    DESK,
    HUMAN_AGENT,
    IN_MANUAL,
    MOST_EVIDENCE,
    MOST_PREVIEW,
    SUPPORT,
    Assignee,
    AssigneeChanged,
    Case,
    CaseChanged,
    CaseMoved,
    Customer,
    Escalation,
    Held,
    ManualMessage,
    Mode,
    ModeChanged,
    SlaAlert,
    Speaker,
    Transition,
    desk_topic,
    internal_topic,
)
from schemas.session import SessionState

ORDER: Mapping[Mode, Mode] = {
    "bot_active": "pending_manual",
    "pending_manual": "manual_live",
    "manual_live": "bot_active",
}
"""What follows what. There is no other way."""
MOST_DETAILS = 300
MOST_NAME = 100
"""Characters of an agent's id or name, of a team's or a rule's."""


@dataclass(frozen=True)
class Why:
    """Why something changes: a `word` for everybody, a `text` for colleagues, and on whose word."""

    word: str
    by: str = ""
    text: str = ""


def case_of(key: str, state: SessionState) -> Case:
    """A conversation as a desk sees it."""
    known = msgspec.structs.asdict(state.hold)
    known["team"] = state.hold.team or SUPPORT
    known |= {"title": state.title, "thread": state.thread, "created": state.created}
    return Case(session=key, **known)


def preview(text: str) -> str:
    """The beginning of a message, on one line."""
    return plain(" ".join(text[: 4 * MOST_PREVIEW].split()), MOST_PREVIEW)


def plain(text: str, most: int) -> str:
    """A text that takes no more room than its letters do, cut where it is longer than `most`."""
    return clip("".join(one if one.isprintable() else " " for one in text[: most + 1]), most)


class Ownership:
    """What a session's turn does about who may speak; what it knows of it is in `state.hold`.

    Made anew for each change: agents who had the conversation when it was made are told.
    """

    def __init__(self, state: SessionState, options: SessionOptions, ctx: Turn) -> None:
        self._state = state
        self._options = options
        self._ctx = ctx
        self._hold = state.hold
        self._had = state.hold.assignee
        self._live = Live(state, options, ctx)
        self.waits = Waits(state, options, ctx)

    @property
    def notices(self) -> Notices:
        """What customers are told."""
        return self._options.supervision.notices

    def case(self) -> Case:
        """How things stand."""
        return case_of(self._ctx.key, self._state)

    def held(self, *, changed: bool = True) -> Held:
        """The answer to who asked for a change."""
        return Held(case=self.case(), changed=changed)

    def check_bot(self) -> None:
        """Raises Reject 409 `MANUAL_IN_PROGRESS` unless it is the bot who may speak."""
        if self._hold.mode != "bot_active":
            raise in_manual(self._state)

    def begin(self, owner: str) -> None:
        """There is a conversation from now on, if there was none.

        One that the desk began is the first customer's who says something in it.
        """
        self._state.created = self._state.created or self._ctx.now
        self._state.owner = self._state.owner or owner
        self._state.modified = self._ctx.now

    # -- changes, each told in one commit ----------------------------------------------------

    def escalate(self, escalation: Escalation, *, team: str = "") -> str:
        """Call a person: bot_active to pending_manual. Returns what the customer is told.

        Where the bot does not have the conversation this is a fault of the program.
        """
        self._call(escalation, team)
        self._hold.escalations += 1
        notice = self.notices.called
        why = Why(escalation.reason, escalation.by, escalation.details)
        self.move("pending_manual", why, notice=notice)
        self.waits.call()
        self.publish("escalated")
        return notice

    def take(self, agent: Assignee, *, team: str = "") -> None:
        """A person takes it; where nobody had called one, both steps are taken."""
        why = Why("taken", agent.id)
        if self._hold.mode == "bot_active":
            self._call(Escalation(reason="manual", by=agent.id, details="taken over"), team)
            self.move("pending_manual", why)
        self.move("manual_live", why, assignee=agent, notice=named(self.notices.taken, agent))
        self.waits.take()
        self.publish("taken")

    def give_back(self, why: Why, *, notice: str) -> None:
        """To the bot, from a person or from nobody yet."""
        if self._hold.mode == "pending_manual":
            self.move("manual_live", why)
        self.move("bot_active", why, notice=notice)
        self.waits.end()
        self.publish(why.word)

    def requeue(self, why: Why) -> None:
        """Back into the queue from an agent who is gone; the customer is told once."""
        escalation, waiting = self._hold.escalation, self._hold.waiting_since
        self.move("bot_active", why)
        self.waits.end()
        self._hold.escalation, self._hold.waiting_since = escalation, waiting
        self.move("pending_manual", why, notice=self.notices.lost)
        self.waits.call()
        self.publish(why.word)

    def transfer(self, agent: Assignee, why: Why) -> None:
        """Another person goes on, and the customer reads who."""
        self._assign("manual_live", agent, why, notice=named(self.notices.transferred, agent))
        self.waits.take()
        self.publish(why.word)

    def offer(self, agent: Assignee | None, why: Why) -> None:
        """It is one person's to take, or everybody's again."""
        self._assign("pending_manual", agent, why)
        if agent is not None:
            self._hold.closed_until = None
        self.publish(why.word)

    def _assign(self, mode: Mode, agent: Assignee | None, why: Why, *, notice: str = "") -> None:
        hold = self._hold
        if hold.mode != mode:
            raise RuntimeError(f"{self._ctx.address} is {hold.mode}: expected {mode!r}")
        hold.assignee, hold.epoch = agent, hold.epoch + 1
        told = AssigneeChanged(
            mode=mode, epoch=hold.epoch, assignee=agent, reason=why.word, notice=notice
        )
        self._live.emit(told)
        self._record(hold.mode, why)

    def close(self, until: datetime | None, why: Why) -> None:
        """The desk is closed: an attribute of pending_manual, which the customer is told once."""
        told = self._hold.closed_until is not None
        self._hold.closed_until = until
        self.waits.call(opens=until)
        self._record(self._hold.mode, why)
        if self.notices.closed and not told:
            self.say("system", self.notices.closed)
        self.publish(why.word)

    def know(self, customer: Customer) -> bool:
        """Who is served; whether that is news."""
        if customer == self._hold.customer:
            return False
        self._hold.customer = customer
        return True

    def say(self, role: Speaker, content: str, agent: Assignee | None = None) -> ManualMessage:
        """What a person, or the desk itself, says to a person: told, and kept in the history."""
        said = ManualMessage(
            id=self._ctx.new_id(),
            role=role,
            content=content,
            agent=agent,
            epoch=self._hold.epoch,
        )
        self._ctx.emit(history_topic(self._ctx.key), said, ttl=self._options.kept)
        self._live.emit(said)
        return said

    def note(self, text: str, by: Literal["user", "assistant", "agent", "system"]) -> None:
        """Remember what was said last, for who looks at the list."""
        hold = self._hold
        hold.last, hold.last_by, hold.last_at = preview(text), by, self._ctx.now
        if hold.team:
            self.tell_board("said")

    def attend(self, agent: Assignee) -> None:
        """Who speaks is there, also where no screen of theirs says so."""
        self._tell(Address(HUMAN_AGENT, agent.id), CaseMoved(case=self.case(), why="said"))

    # -- a step ------------------------------------------------------------------------------

    def move(
        self, mode: Mode, why: Why, *, assignee: Assignee | None = None, notice: str = ""
    ) -> None:
        """Take one step of the order, and stop whatever the bot is saying.

        Raises RuntimeError for a step out of order, which no client can bring about.
        """
        hold = self._hold
        if ORDER[hold.mode] != mode:
            raise RuntimeError(f"{self._ctx.address} is {hold.mode}: {mode!r} does not follow it")
        stopped = tuple(self._state.live)
        self._live.stop(stopped, IN_MANUAL, code=IN_MANUAL)
        Arrivals(self._state, self._options, self._ctx).drop(IN_MANUAL, code=IN_MANUAL)
        if mode == "bot_active":
            Drafts(self._state, self._options, self._ctx).stop(why.word)
        was, hold.mode = hold.mode, mode
        hold.epoch, hold.assignee = hold.epoch + 1, assignee
        self._stamp()
        told = ModeChanged(
            was=was,
            mode=mode,
            epoch=hold.epoch,
            reason=why.word,
            by=why.by,
            assignee=assignee,
            notice=notice,
        )
        self._live.emit(told)
        self._record(was, why, stopped)

    def _stamp(self) -> None:
        """When it became so, and what is over with it."""
        hold, now = self._hold, self._ctx.now
        if hold.mode == "pending_manual":
            hold.pending_since = now
        elif hold.mode == "manual_live":
            hold.closed_until = None
            hold.manual_since = now if hold.assignee else None
        else:
            hold.manual_ended = now if hold.manual_since else hold.manual_ended
            hold.manual_since = hold.pending_since = hold.closed_until = None
            hold.escalation, hold.failures = None, 0

    def _record(self, was: Mode, why: Why, stopped: tuple[str, ...] = ()) -> None:
        """For colleagues, and for whoever asks later how it came about."""
        hold = self._hold
        step = Transition(
            was=was,
            mode=hold.mode,
            epoch=hold.epoch,
            by=why.by,
            reason=clip(f"{why.word}: {why.text}" if why.text else why.word),
            assignee=hold.assignee,
            escalation=hold.escalation,
            stopped=stopped,
        )
        self._ctx.emit(internal_topic(self._ctx.key), step, ttl=self._options.kept)

    def _call(self, escalation: Escalation, team: str) -> None:
        hold = self._hold
        hold.team = team or hold.team or SUPPORT
        hold.escalation = msgspec.structs.replace(
            escalation,
            rule=plain(escalation.rule, MOST_NAME),
            version=plain(escalation.version, MOST_NAME),
            by=plain(escalation.by, MOST_NAME),
            evidence=plain(escalation.evidence, MOST_EVIDENCE),
            details=plain(escalation.details, MOST_DETAILS),
            at=escalation.at or self._ctx.now,
        )

    # -- telling -----------------------------------------------------------------------------

    def publish(self, why: str) -> None:
        """Tell the desk, and the agents who had or have it, how things stand now."""
        self.tell_board(why)
        moved = CaseMoved(case=self.case(), why=why)
        self._tell(Address(DESK, moved.case.team), moved)
        for agent in {one.id: one for one in (self._had, self._hold.assignee) if one}:
            self._tell(Address(HUMAN_AGENT, agent), moved)

    def tell_board(self, why: str) -> None:
        """Tell who looks at the team's list."""
        case = self.case()
        told = CaseChanged(case=case, why=why)
        self._ctx.emit(desk_topic(case.team), told, ttl=self._options.kept)

    def alert(self, alert: SlaAlert) -> None:
        """Tell who looks at the team's list that somebody waits too long."""
        self._ctx.emit(desk_topic(alert.case.team), alert, ttl=self._options.kept)

    def _tell(self, to: Address, message: Message) -> None:
        """Who may speak does not depend on whether there is a desk."""
        if self._ctx.deployed(to.actor, "keyed", handling=type(message)):
            self._ctx.tell(to, message)


def in_manual(state: SessionState) -> Reject:
    """Why a model is not asked. Who has it may be told: the customer sees it anyway."""
    hold = state.hold
    detail = (
        f"{shown(hold.assignee)} has this conversation"
        if hold.mode == "manual_live" and hold.assignee
        else "a person was called to this conversation"
    )
    return Reject(IN_MANUAL, f"{detail}; no model is asked meanwhile", told=standing(state))


def standing(state: SessionState) -> dict[str, Any]:
    """What a refusal tells of who has it, so that an edge can show it."""
    hold = state.hold
    told: dict[str, Any] = {"mode": hold.mode, "epoch": hold.epoch}
    if hold.assignee is not None:
        told["assignee"] = {"id": hold.assignee.id, "name": hold.assignee.name}
    return told


def shown(agent: Assignee | None) -> str:
    """An agent, as colleagues read of them."""
    if agent is None:
        return "nobody"
    return f"{agent.name} ({agent.id})" if agent.name else agent.id


def named(notice: str, agent: Assignee) -> str:
    """A notice with an agent's name in it."""
    return notice.replace("{agent}", agent.name or agent.id)
