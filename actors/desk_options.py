"""How a desk is deployed: its hours, how long it waits for whom, and what it begins with."""

from datetime import timedelta

import msgspec

from runtime.actor_table import check_actor_name
from runtime.config import duration
from schemas.conversation import SESSION
from schemas.desk import MAILER, QuickReply
from schemas.phrases import PHRASES
from schemas.shifts import Calendar, check_calendar

MOST_REPLIES = 50
MOST_TITLE = 80
MOST_REPLY = 1000
MOST_REPLY_BYTES = 20 * 1024
"""Of all of a team's quick replies: they share its state with the queue."""


class Phrase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A quick reply as it is configured."""

    title: str
    text: str


class DeskOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With `auto_assign` a case is offered to an agent with room, who has `offer` to take it.

    Who has gone for `grace` loses what they have. A case that nobody takes within `give_up` goes
    back to the bot (empty: it waits). `mailer` writes to the team about what comes while it is
    closed. `replies` are in the place of those that a team begins with.
    """

    auto_assign: bool = True
    offer: str = "60s"
    grace: str = "2m"
    give_up: str = ""
    calendar: Calendar = Calendar()
    mailer: str = MAILER
    sessions: str = SESSION
    replies: tuple[Phrase, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("offer", "grace", "give_up"):
            text = getattr(self, name)
            try:
                if text or name != "give_up":
                    duration(text)
            except ValueError as error:
                raise ValueError(f"{name} = {error}") from None
        try:
            check_calendar(self.calendar)
        except ValueError as error:
            raise ValueError(f"calendar: {error}") from None
        check_actor_name(self.mailer)
        check_actor_name(self.sessions)
        check_replies(self.first_replies)

    @property
    def offered_for(self) -> timedelta:
        """How long an offer stands."""
        return duration(self.offer)

    @property
    def missed_for(self) -> timedelta:
        """How long an agent may be gone before others get their cases."""
        return duration(self.grace)

    @property
    def patience(self) -> timedelta | None:
        """How long a case waits before the bot goes on; None if it waits on."""
        return duration(self.give_up) if self.give_up else None

    @property
    def first_replies(self) -> list[QuickReply]:
        """The quick replies that a team begins with."""
        if self.replies is None:
            return list(PHRASES)
        return [
            QuickReply(id=f"r{number}", title=one.title, text=one.text)
            for number, one in enumerate(self.replies, start=1)
        ]


def check_replies(replies: list[QuickReply]) -> None:
    """Raise ValueError for a quick reply that is too long, or for too many of them."""
    for one in replies:
        for what, text, most in (("title", one.title, MOST_TITLE), ("text", one.text, MOST_REPLY)):
            if not text.strip():
                raise ValueError(f"replies: a {what} is empty")
            if len(text) > most:
                raise ValueError(
                    f"replies: a {what} of {len(text)} characters, expected at most {most}"
                )
    size = len(msgspec.json.encode(replies))
    if len(replies) > MOST_REPLIES or size > MOST_REPLY_BYTES:
        raise ValueError(
            f"replies: {len(replies)} of {size} bytes in all, expected at most {MOST_REPLIES} of"
            f" {MOST_REPLY_BYTES} bytes"
        )
