"""Who waits for whom in a conversation that people have, and what is done when it is too long.

Each wait is one reminder of the session, so that it ends once, on whichever host.
"""

from datetime import datetime, timedelta

from actors.session_options import SessionOptions
from actors.terms import span
from runtime.turn import Turn
from schemas.base import Message
from schemas.session import SessionState
from schemas.waits import FirstDue, IdleDue, ReplyDue

FIRST = "first"
REPLY = "reply"
IDLE = "idle"


class Waits:
    """The reminders of a session that is not the bot's alone."""

    def __init__(self, state: SessionState, options: SessionOptions, ctx: Turn) -> None:
        self._hold = state.hold
        self._terms = options.supervision
        self._ctx = ctx

    def call(self, *, opens: datetime | None = None) -> None:
        """A person is called: from now on, or from when the desk `opens`."""
        self._hold.waiting_since = self._hold.waiting_since or self._ctx.now
        later = max(opens - self._ctx.now, timedelta()) if opens else timedelta()
        self._remind(FIRST, FirstDue(), span(self._terms.wait), later)

    def call_again(self) -> None:
        """Nobody has come, and it goes on."""
        self._remind(FIRST, FirstDue(again=True), span(self._terms.wait))

    def take(self) -> None:
        """A person has it; a customer who waits already waits for an answer now."""
        self._ctx.forget(FIRST)
        self._remind(IDLE, IdleDue(), span(self._terms.idle))
        if self._hold.waiting_since is not None:
            self._remind(REPLY, ReplyDue(), span(self._terms.reply))

    def hear(self) -> None:
        """The customer said something; who waits already is not made to wait anew."""
        if self._hold.waiting_since is None:
            self._hold.waiting_since = self._ctx.now
            if self._hold.mode == "manual_live":
                self._remind(REPLY, ReplyDue(), span(self._terms.reply))

    def answer(self) -> None:
        """A person answered."""
        self._hold.waiting_since = None
        self._ctx.forget(REPLY)

    def end(self) -> None:
        """Nobody waits for a person any more."""
        self._hold.waiting_since = None
        for name in (FIRST, REPLY, IDLE):
            self._ctx.forget(name)

    def quiet(self) -> bool:
        """Whether nobody has spoken for too long; else there is another reminder."""
        idle, hold = span(self._terms.idle), self._hold
        since = max(one for one in (hold.manual_since, hold.last_at, hold.pending_since) if one)
        if idle is None or self._ctx.now >= since + idle:
            return idle is not None
        self._remind(IDLE, IdleDue(), since + idle - self._ctx.now)
        return False

    def _remind(
        self, name: str, due: Message, after: timedelta | None, later: timedelta = timedelta()
    ) -> None:
        if after is not None:
            furthest = self._ctx.furthest(self._ctx.address.actor)
            self._ctx.remind(name, due, after=min(after + later, furthest))
