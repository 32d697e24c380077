"""What is said to a team's desk and to its agents, and what they keep.

The sessions are the truth of who has what; a desk is told, chooses, and tells.
"""

from datetime import datetime
from typing import Literal

import msgspec

from schemas.base import Job, Message, Request
from schemas.ownership import SUPPORT, Assignee, Case

MAILER = "mailer"
"""The worker that sends e-mail, unless a desk's options name another."""

Presence = Literal["online", "busy", "away", "offline"]
Level = Literal["urgent", "high", "normal"]

URGENT_AFTER = 300.0
"""Seconds of waiting after which a case is urgent whatever it is about."""


class Priority(msgspec.Struct, frozen=True, kw_only=True):
    """How urgent a case is, and why; lower `rank` goes first."""

    level: Level
    rank: tuple[int, float]
    wait_seconds: float = 0
    is_vip: bool = False
    is_timeout: bool = False
    is_repeat: bool = False
    urgent_keywords: tuple[str, ...] = ()


def prioritise(case: Case, now: datetime) -> Priority:
    """How urgent a waiting case is: a VIP and who waits over five minutes are `urgent`, a
    keyword or a repeated call `high`; among equals the one that has waited longest goes first."""
    since = case.pending_since or case.waiting_since or now
    waited = max((now - since).total_seconds(), 0)
    escalation = case.escalation
    keyword = escalation is not None and escalation.reason == "keyword"
    repeat, late = case.escalations > 1, waited > URGENT_AFTER
    level: Level = "normal"
    if keyword or repeat or (escalation is not None and escalation.severity == "high"):
        level = "high"
    if case.customer.vip or late:
        level = "urgent"
    return Priority(
        level=level,
        rank=(("urgent", "high", "normal").index(level), -waited),
        wait_seconds=waited,
        is_vip=case.customer.vip,
        is_timeout=late,
        is_repeat=repeat,
        urgent_keywords=(escalation.evidence,) if escalation is not None and keyword else (),
    )


# -- said to an agent's actor --------------------------------------------------------------


class AgentView(Message, tag="agent.view"):
    """How an agent stands. `open` are the sessions that are theirs."""

    id: str
    name: str = ""
    avatar: str = ""
    presence: Presence = "offline"
    capacity: int = 5
    skills: tuple[str, ...] = ()
    teams: tuple[str, ...] = (SUPPORT,)
    open: tuple[str, ...] = ()
    seen: datetime | None = None
    since: datetime | None = None


class Attend(Request[AgentView], tag="agent.attend"):
    """An agent says how they are; what is None stays as it is.

    Without a word for a while (the deployment's `away`) they are away, then offline.
    """

    name: str | None = None
    avatar: str | None = None
    presence: Presence | None = None
    capacity: int | None = None
    skills: tuple[str, ...] | None = None
    teams: tuple[str, ...] | None = None


class Seen(Message, tag="agent.seen"):
    """An agent's screen is open, or they have done something: said by the edge while their feed
    is, several times within the deployment's `away`. It says nothing of an agent who has said
    that they are offline."""


class AgentQuiet(Message, tag="agent.quiet"):
    """An agent's reminder to themselves: it may be that they have not been seen for a while."""


# -- said to a desk ------------------------------------------------------------------------


class AgentChanged(Message, tag="desk.agent_changed"):
    """An agent's presence, capacity or skills; told on desk/<team> too."""

    agent: AgentView


class QuickReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A phrase that agents send often."""

    id: str
    title: str
    text: str
    by: str = ""


class QuickReplies(Message, tag="desk.quick_replies"):
    """All of a team's."""

    replies: tuple[QuickReply, ...]


class ListQuickReplies(Request[QuickReplies], tag="desk.list_quick_replies"):
    """Which ones there are."""


class SaveQuickReply(Request[QuickReplies], tag="desk.save_quick_reply"):
    """Add one, or change that of an `id`. Refused: 404, 413 `too_many`, 422."""

    title: str
    text: str
    id: str = ""
    by: str = ""


class DropQuickReply(Request[QuickReplies], tag="desk.drop_quick_reply"):
    """Take one away. Refused: 404."""

    id: str


class MailBegan(Message, tag="desk.mail_began"):
    """A letter is on its way; the session hears what becomes of it (MailSettled)."""

    run: str


class MailCase(Request[MailBegan], tag="desk.mail_case"):
    """Have a letter written about a conversation, to those whom the mailer's options allow.

    Refused: 422 `bad_recipient`, 503 `mailer_not_deployed`.
    """

    session: str
    to: tuple[str, ...] = ()
    messages: int = 10


class DeskDue(Message, tag="desk.due"):
    """A desk's reminder to itself: an offer lapses, it opens or closes, a case goes back."""


# -- done by the mailer --------------------------------------------------------------------


class Mailed(Message, tag="mailer.mailed"):
    """What became of a letter."""

    conversation: str
    sent: bool
    to: tuple[str, ...] = ()
    reason: str = ""


class SendMail(Job[Mailed], tag="mailer.send"):
    """Write to a team about a conversation: why, the last messages, a link to go on with it."""

    case: Case
    to: tuple[str, ...] = ()
    """Empty: whoever the mailer's options name."""
    messages: int = 10


class Waiting(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A case in a desk's queue, of which only what is needed to choose is kept.

    `offered` is to whom and `until` when, `tried` who let it pass. `asked` and `asked_for` are
    what the session was last told of that, in which epoch; its own word is the case's. `closed`
    says that it knows that nobody is there, `mailed` that somebody was written to, `returned`
    in which epoch the bot was asked to go on.
    """

    case: Case
    since: datetime
    offered: Assignee | None = None
    until: datetime | None = None
    tried: list[str] = []
    asked: int = -1
    asked_for: str = ""
    closed: bool = False
    mailed: bool = False
    returned: int = -1


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """Who has a session, and in which epoch they got it: a list, for there may be hundreds.

    `due` is when it goes back to the queue, because the agent has gone.
    """

    agent: str
    epoch: int
    due: datetime | None = None


class Beyond(msgspec.Struct, frozen=True, array_like=True):
    """All that is kept of a session which waits for room: its epoch, and whether somebody was
    written to about it."""

    epoch: int
    mailed: bool = False


class DeskState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A team's queue, who is there, and what they have."""

    waiting: dict[str, Waiting] = {}
    beyond: dict[str, Beyond] = {}
    """Sessions that wait for room in the queue, the first one first."""
    taken: dict[str, Taken] = {}
    """Sessions that agents have."""
    agents: dict[str, AgentView] = {}
    idle: dict[str, datetime] = {}
    """When each agent last took a case or was done with one."""
    mails: dict[str, str] = {}
    """Letters on their way, by their runs, and about which session."""
    replies: list[QuickReply] = []
    seeded: bool = False
    due: datetime | None = None
    """When the desk is to be reminded."""


class AgentState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A human agent by their id."""

    name: str = ""
    avatar: str = ""
    presence: Presence = "offline"
    capacity: int = 5
    skills: list[str] = []
    teams: list[str] = msgspec.field(default_factory=lambda: [SUPPORT])
    open: dict[str, int] = {}
    """Sessions that are theirs, and the epoch in which they became so."""
    seen: datetime | None = None
    since: datetime | None = None
    said: Presence = "offline"
    """What they have said themselves; `presence` is that while they are seen."""
    due: datetime | None = None
    """When it is looked at again whether they are."""
