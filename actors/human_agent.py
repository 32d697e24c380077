"""A human agent: whether they are there, how much they can do, and which sessions are theirs.

They say how they are; while nobody sees them they are away, and then offline.
"""

from datetime import datetime, timedelta
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from runtime.actor import Actor, handler
from runtime.config import duration
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.base import Address
from schemas.desk import AgentChanged, AgentQuiet, AgentState, AgentView, Attend, Presence, Seen
from schemas.ownership import DESK, CaseMoved

MOST_OPEN = 500
MOST_CAPACITY = 50
MOST_TEAMS = 10
MOST_SKILLS = 20
MOST_WORD = 64
MOST_AVATAR = 500
QUIET = "quiet"


class HumanAgentOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent who is not seen for `away` is away, and offline after `offline` more. `desks` is
    the type of their teams' desks."""

    away: str = "30s"
    offline: str = "5m"
    desks: str = DESK

    def __post_init__(self) -> None:
        for name in ("away", "offline"):
            try:
                duration(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name} = {error}") from None

    @property
    def patience(self) -> dict[Presence, timedelta]:
        """From how long a silence on an agent is what."""
        away = duration(self.away)
        return {"offline": away + duration(self.offline), "away": away}


class HumanAgent(Actor):
    """An agent by their id."""

    Options: ClassVar[type[msgspec.Struct] | None] = HumanAgentOptions

    state: AgentState
    options: HumanAgentOptions

    @handler
    def attend(self, message: Attend, ctx: Turn) -> AgentView:
        """Say how one is."""
        _check(message)
        was, state = self._view(ctx), self.state
        for name in ("name", "avatar", "capacity"):
            if (value := getattr(message, name)) is not None:
                setattr(state, name, value)
        if message.skills is not None:
            state.skills = list(dict.fromkeys(message.skills))
        if message.teams is not None:
            state.teams = list(dict.fromkeys(message.teams))
        if message.presence is not None:
            state.said = message.presence
        self._see(ctx)
        self._tell(was, ctx)
        return self._view(ctx)

    @handler
    def see(self, message: Seen, ctx: Turn) -> None:
        """They are there."""
        was = self._view(ctx)
        self._see(ctx)
        self._tell(was, ctx)

    @handler
    def hear_case(self, message: CaseMoved, ctx: Turn) -> None:
        """A session has become theirs, or is theirs no more."""
        case, held = message.case, self.state.open
        if case.epoch < held.get(case.session, -1):
            return
        was = self._view(ctx)
        mine = case.assignee is not None and case.assignee.id == ctx.key
        if case.mode == "manual_live" and mine:
            spoken = self._has_spoken(case.last_by, case.last_at)
            if self.state.said != "offline" and (spoken or case.session not in held):
                self._see(ctx)
            if case.session in held or len(held) < MOST_OPEN:
                held[case.session] = case.epoch
        else:
            held.pop(case.session, None)
        self._tell(was, ctx)

    @handler
    def look(self, message: AgentQuiet, ctx: Turn) -> None:
        """See whether they have been quiet for too long."""
        self.state.due = None
        was = self._view(ctx)
        self._become(self._presence(ctx), ctx)
        self._watch(ctx)
        self._tell(was, ctx)

    # -- presence --------------------------------------------------------------------------

    def _see(self, ctx: Turn) -> None:
        self.state.seen = ctx.now
        self._become(self.state.said, ctx)
        self._watch(ctx)

    def _has_spoken(self, by: str, at: datetime | None) -> bool:
        seen = self.state.seen
        return by == "agent" and at is not None and (seen is None or at > seen)

    def _presence(self, ctx: Turn) -> Presence:
        """What one is who says so, and was last seen then."""
        said, seen = self.state.said, self.state.seen
        quiet = timedelta() if seen is None else ctx.now - seen
        for presence, patience in self.options.patience.items():
            if said in ("online", "busy", "away") and quiet >= patience:
                return presence
        return said

    def _become(self, presence: Presence, ctx: Turn) -> None:
        if self.state.presence != presence or self.state.since is None:
            self.state.presence, self.state.since = presence, ctx.now

    def _watch(self, ctx: Turn) -> None:
        """Come back when they may have been quiet for too long; one reminder at a time.

        One that comes too early looks again, so being seen costs no reminder.
        """
        state = self.state
        if state.presence == "offline" or state.seen is None:
            return
        dues = [state.seen + patience for patience in self.options.patience.values()]
        due = min((one for one in dues if one > ctx.now), default=None)
        if due is not None and (state.due is None or due < state.due):
            state.due = due
            ctx.remind(QUIET, AgentQuiet(), after=due - ctx.now)

    # -- telling ---------------------------------------------------------------------------

    def _view(self, ctx: Turn) -> AgentView:
        state = self.state
        return AgentView(
            id=ctx.key,
            name=state.name,
            avatar=state.avatar,
            presence=state.presence,
            capacity=state.capacity,
            skills=tuple(state.skills),
            teams=tuple(state.teams),
            open=tuple(state.open),
            seen=state.seen,
            since=state.since,
        )

    def _tell(self, was: AgentView, ctx: Turn) -> None:
        """Tell every desk that this concerns, unless there is nothing new."""
        now = self._view(ctx)
        if replace(was, seen=None) == replace(now, seen=None):
            return
        if ctx.deployed(self.options.desks, "keyed", handling=AgentChanged):
            for team in dict.fromkeys((*was.teams, *now.teams)):
                ctx.tell(Address(self.options.desks, team), AgentChanged(agent=now))


def _check(message: Attend) -> None:
    """Raises Reject for what cannot be kept of an agent."""
    texts = {"name": (message.name, MOST_WORD), "avatar": (message.avatar, MOST_AVATAR)}
    for what, (text, most) in texts.items():
        if text is not None and (len(text) > most or not text.isprintable()):
            raise _invalid(f"{what}: expected at most {most} characters that can be printed")
    for what, words, most in (
        ("skills", message.skills, MOST_SKILLS),
        ("teams", message.teams, MOST_TEAMS),
    ):
        if words is not None and (len(words) > most or not all(map(_is_word, words))):
            raise _invalid(f"{what}: expected at most {most}, each of 1 to {MOST_WORD} characters")
    if message.capacity is not None and not 0 <= message.capacity <= MOST_CAPACITY:
        raise _invalid(f"capacity {message.capacity!r}: expected 0 to {MOST_CAPACITY}")


def _is_word(text: str) -> bool:
    return 0 < len(text) <= MOST_WORD and text.isprintable() and bool(text.strip())


def _invalid(detail: str) -> Reject:
    return Reject("invalid_agent", detail, status=422)
