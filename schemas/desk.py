"""What is said to a team's desk and to its agents, and what they keep.

The sessions are the truth of who has what; a desk is told, chooses, and tells.
"""

from datetime import datetime
from typing import Literal

import msgspec

from schemas.base import Job, Message, Request
from schemas.ownership import SUPPORT, Assignee, Case

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
    """An agent's screen is open: said by the edge while their feed is."""


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


class SaveQuickReply(Request[QuickReplies], tag="desk.save_quick_reply"):
    """Add one, or change that of an `id`. Refused: 404, 413 `too_many`, 422."""

    title: str
    text: str
    id: str = ""
    by: str = ""


class DropQuickReply(Request[QuickReplies], tag="desk.drop_quick_reply"):
    """Take one away. Refused: 404."""

    id: str


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
    """A case in a desk's queue; `offered` is to whom, `tried` who let it pass."""

    case: Case
    since: datetime
    offered: Assignee | None = None
    until: datetime | None = None
    tried: list[str] = []


class DeskState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A team's queue, who is there, and what they have."""

    waiting: dict[str, Waiting] = {}
    taken: dict[str, str] = {}
    """Sessions that agents have, and which agent."""
    agents: dict[str, AgentView] = {}
    replies: list[QuickReply] = []
    seeded: bool = False


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
