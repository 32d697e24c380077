"""Who may speak in a conversation: the bot, nobody yet, or a person; and how that changes.

The order is bot_active, pending_manual, manual_live, bot_active. What skips a step for its
caller takes both in one turn. Only the session changes it.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.base import Message, Request, Topic

Mode = Literal["bot_active", "pending_manual", "manual_live"]
Severity = Literal["low", "medium", "high"]
Cause = Literal["keyword", "fail_loop", "vip", "rule", "manual"]
Arriving = Literal["parallel", "queue", "interrupt"]
"""What becomes of a message that comes while a run is going: it is answered beside it, after it,
or the run is stopped and both are answered together."""
Speaker = Literal["user", "agent", "system"]

IN_MANUAL = "MANUAL_IN_PROGRESS"
"""Why a model is not asked: a person has the conversation, or is waited for."""
DESK = "desk"
"""The type that keeps the queue of a team; its key is the team's name."""
HUMAN_AGENT = "human_agent"
"""The type that keeps a person's presence; its key is the agent's id."""
SUPPORT = "support"
"""The team that takes over unless another is named."""

MOST_SAID = 16 * 1024
"""Bytes of one message from person to person."""
MOST_PREVIEW = 50
MOST_EVIDENCE = 300
MOST_NOTE = 4000


class Assignee(msgspec.Struct, frozen=True):
    """A human agent, as customers and colleagues may know them."""

    id: str
    name: str = ""


class Customer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of the person who is served."""

    nickname: str = ""
    email: str = ""
    vip: bool = False
    language: str = ""
    country: str = ""
    city: str = ""
    currency: str = ""
    metadata: dict[str, Any] = {}


class Escalation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a person was called: which rule, of which version of the rules, fired on what."""

    reason: Cause
    severity: Severity = "medium"
    rule: str = ""
    version: str = ""
    evidence: str = ""
    details: str = ""
    by: str = ""
    at: datetime | None = None


class Hold(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a session keeps of who may speak.

    `epoch` counts every change of mode or assignee: who decided by an older one decided by what
    is no longer so. Without a `team` nobody takes over and no rule looks. `closed_until` is when
    the desk opens again, if it was closed when a person was called. `waiting_since` is since when
    the customer waits for a person to say something.
    """

    mode: Mode = "bot_active"
    epoch: int = 0
    team: str = ""
    assignee: Assignee | None = None
    escalation: Escalation | None = None
    escalations: int = 0
    failures: int = 0
    customer: Customer = Customer()
    closed_until: datetime | None = None
    pending_since: datetime | None = None
    manual_since: datetime | None = None
    manual_ended: datetime | None = None
    waiting_since: datetime | None = None
    last: str = ""
    last_by: Literal["user", "assistant", "agent", "system", ""] = ""
    last_at: datetime | None = None


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation as a desk sees it: all that is needed to list, sort and assign it."""

    session: str
    mode: Mode = "bot_active"
    epoch: int = 0
    team: str = SUPPORT
    title: str = ""
    assignee: Assignee | None = None
    escalation: Escalation | None = None
    escalations: int = 0
    failures: int = 0
    customer: Customer = Customer()
    closed_until: datetime | None = None
    pending_since: datetime | None = None
    manual_since: datetime | None = None
    manual_ended: datetime | None = None
    waiting_since: datetime | None = None
    last: str = ""
    last_by: Literal["user", "assistant", "agent", "system", ""] = ""
    last_at: datetime | None = None
    created: datetime | None = None
    thread: str = ""


# -- said to a session: each is one turn -----------------------------------------------------


class Held(Message, tag="session.held"):
    """How things stand after a change. `changed` is off where nothing was left to do."""

    case: Case
    changed: bool = True


class Escalate(Request[Held], tag="session.escalate"):
    """Call a person: bot_active to pending_manual; every live run is stopped.

    Pending already is no fault. A conversation that does not exist begins with it. `desk` says
    that a colleague calls, whoever's conversation it is. Refused: 409 `MANUAL_IN_PROGRESS` where
    a person has it, 404 `conversation_not_found` (it is somebody else's), 413
    `customer_too_large`, 422 `invalid_team`.
    """

    details: str = ""
    severity: Severity = "medium"
    team: str = ""
    by: str = ""
    customer: Customer | None = None
    desk: bool = False


class TakeOver(Request[Held], tag="session.take_over"):
    """A person takes the conversation: to manual_live, from bot_active by way of pending_manual.

    Every live run is stopped in the same commit. The same agent again is no fault. Refused: 409
    `ALREADY_TAKEN` (its detail names who has it), 409 `ASSIGNED_TO_OTHER` (it is offered to
    somebody else; `force` does not mind), 404 `conversation_not_found`. With `epoch` (not 0) 409
    `STALE_EPOCH` where things have changed since. 409s tell `mode`, `epoch` and `assignee`.
    """

    agent: Assignee
    force: bool = False
    team: str = ""
    epoch: int = 0


class Release(Request[Held], tag="session.release"):
    """Give the conversation back to the bot: manual_live to bot_active.

    Refused: 403 `NOT_YOURS` to another agent (`force` does not mind), 409 `INVALID_STATUS` where
    no person has it.
    """

    agent: str
    reason: str = ""
    force: bool = False


class Cancel(Request[Held], tag="session.cancel"):
    """Call nobody after all: pending_manual to bot_active, by way of manual_live in one turn.

    Nothing to cancel is no fault. `desk` as for Escalate. Refused: 409 `MANUAL_IN_PROGRESS` where
    a person has it, 404 `conversation_not_found`.
    """

    reason: str = ""
    by: str = ""
    desk: bool = False


class Transfer(Request[Held], tag="session.transfer"):
    """Hand the conversation to a colleague; it stays manual_live, at once under the new name.

    Refused: 403 `NOT_YOURS`, 409 `INVALID_STATUS`, 422 `same_agent`.
    """

    agent: str
    to: Assignee
    reason: str = ""
    note: str = ""
    force: bool = False


class Noted(Message, tag="session.noted"):
    """It is stored, and told to whom it concerns. `id` names it, `at` is when it was."""

    id: str
    at: datetime
    case: Case


class SayManual(Request[Noted], tag="session.say_manual"):
    """Say something from person to person.

    An `agent` may while manual_live is theirs, a `user` while a person has the conversation or is
    waited for. Refused: 409 `INVALID_STATUS` (no person has it), 403 `NOT_YOURS`, 413
    `message_too_large`, 422 `empty_message`, 404 `conversation_not_found` (there is none, or it
    is another customer's). Without an `agent` it is the assignee who speaks.
    """

    content: str
    role: Literal["agent", "user"] = "agent"
    agent: Assignee | None = None


class AddNote(Request[Noted], tag="session.add_note"):
    """Leave a note for colleagues, which the customer never sees.

    Refused: 404 `conversation_not_found`, 413 `note_too_large`, 422 `empty_note`.
    """

    content: str
    by: Assignee


class SetCustomer(Request[Held], tag="session.set_customer"):
    """Say who is served; a VIP is called a person for by the rules that say so.

    `desk` as for Escalate. A conversation that does not exist begins with it. Refused: 404
    `conversation_not_found`, 413 `customer_too_large`.
    """

    customer: Customer
    desk: bool = False


# -- said by the desk to a session -------------------------------------------------------------


class OfferCase(Message, tag="session.offer"):
    """The desk has chosen an agent for what waits: theirs to take, until `until`.

    Without an agent it takes an offer back. What was decided by another epoch is ignored.
    """

    epoch: int
    agent: Assignee | None = None
    until: datetime | None = None


class CloseForNow(Message, tag="session.close_for_now"):
    """The desk is closed; it opens at `until`. `mailed` says whether somebody is written to."""

    epoch: int
    until: datetime | None = None
    mailed: bool = False


class ReturnToBot(Message, tag="session.return_to_bot"):
    """Nobody came: the bot goes on, if nothing has changed since `epoch`."""

    epoch: int
    reason: str = ""


class Requeue(Message, tag="session.requeue"):
    """The agent who has it is gone: back into the queue, from manual_live to pending_manual by way
    of bot_active in one turn, if nothing has changed since `epoch`. The customer is told once."""

    epoch: int
    reason: str = ""


class MailSettled(Message, tag="session.mail_settled"):
    """What became of the e-mail about a conversation."""

    sent: bool
    to: tuple[str, ...] = ()
    reason: str = ""


# -- said by a session to a desk and to an agent -----------------------------------------------


class CaseMoved(Message, tag="desk.case_moved"):
    """A case has changed its mode, its assignee or its priority. An older epoch is late."""

    case: Case
    why: str = ""


# -- told on conversation/<c> (and, of what was said, on history/<c>): the customer sees it ----


class ModeChanged(Message, tag="session.mode_changed"):
    """One step of the order. Whoever may speak does so from here on."""

    was: Mode
    mode: Mode
    epoch: int
    reason: str = ""
    by: str = ""
    assignee: Assignee | None = None
    notice: str = ""


class AssigneeChanged(Message, tag="session.assignee_changed"):
    """Another person has the conversation now, or it is offered to one."""

    mode: Mode
    epoch: int
    assignee: Assignee | None = None
    reason: str = ""
    notice: str = ""


class ManualMessage(Message, tag="message.manual"):
    """What a person said to a person. The customer's own name is not told."""

    id: str
    role: Speaker
    content: str
    agent: Assignee | None = None
    epoch: int = 0


# -- told on internal/<c>: colleagues see it -----------------------------------------------------


class Transition(Message, tag="session.transition"):
    """One change, for the record: what became what, why, on whose word, by which evidence."""

    was: Mode
    mode: Mode
    epoch: int
    by: str = ""
    reason: str = ""
    assignee: Assignee | None = None
    escalation: Escalation | None = None
    stopped: tuple[str, ...] = ()
    """The runs that were stopped by it, in the same commit."""


class NoteAdded(Message, tag="session.note_added"):
    """A note among colleagues."""

    id: str
    content: str
    by: Assignee


class MailNoted(Message, tag="session.mail_noted"):
    """What became of an e-mail, for the record."""

    sent: bool
    to: tuple[str, ...] = ()
    reason: str = ""


# -- told on desk/<team>: the live queue ---------------------------------------------------------


class CaseChanged(Message, tag="desk.case_changed"):
    """How a case stands now. It is in the commit that changed it."""

    case: Case
    why: str = ""


class SlaAlert(Message, tag="desk.sla_alert"):
    """Somebody has waited too long: for a person (`first`), for an answer (`reply`), an offer was
    not taken (`offer`), or nobody spoke and the bot is back (`idle`). `since` is from when,
    `limit` how many seconds were promised."""

    case: Case
    kind: Literal["first", "reply", "offer", "idle"]
    since: datetime
    limit: float


def internal_topic(conversation: str) -> Topic:
    """Where colleagues read what the customer does not: notes, transitions, drafts."""
    return Topic("internal", conversation)


def desk_topic(team: str) -> Topic:
    """Where a team's queue is followed."""
    return Topic("desk", team)
