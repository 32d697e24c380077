"""A session's own reminders while people have a conversation, or are waited for."""

from schemas.base import Message


class FirstDue(Message, tag="session.first_due"):
    """Nobody has taken a conversation for longer than was promised; `again` if that was said.

    It comes back for as long as it is so: a desk that had no room for it, or whose letter was
    lost, hears of it after all.
    """

    again: bool = False


class ReplyDue(Message, tag="session.reply_due"):
    """A customer was not answered for longer than was promised."""


class IdleDue(Message, tag="session.idle_due"):
    """It is to be seen whether anybody still speaks in a conversation that a person has."""
