"""What a desk promises: how long who may wait for whom, and in which words customers are told."""

from datetime import timedelta

import msgspec

from runtime.config import duration

NEVER = "off"
MOST_NOTICE = 500


class Notices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a customer reads when things change; empty for nothing. `{agent}` is a name.

    `called`, `taken`, `released` and `cancelled` are of the steps themselves; `idle` of a
    conversation in which nobody spoke, `lost` of one whose agent is gone, `nobody` of one that
    nobody took, `closed` of a desk after hours.
    """

    called: str = "A person will be with you shortly."
    taken: str = "{agent} is here for you now."
    transferred: str = "{agent} goes on with this for you."
    released: str = "The assistant is back."
    cancelled: str = "The assistant goes on."
    idle: str = "It has been quiet for a while: the assistant is back."
    lost: str = "The connection to your agent was lost. Somebody else will be with you shortly."
    nobody: str = "Nobody is free right now. The assistant goes on."
    closed: str = "Our desk is closed right now. Your message is kept for it."


class Supervision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long may pass before somebody is told, or the bot goes on; `off` for ever.

    `wait` is from the call for a person until one takes the conversation, `reply` from what a
    customer says until a person answers, `idle` the silence after which the bot is back.
    """

    wait: str = "5m"
    reply: str = "2m"
    idle: str = "30m"
    notices: Notices = Notices()

    def __post_init__(self) -> None:
        for name in ("wait", "reply", "idle"):
            if (text := getattr(self, name)) != NEVER:
                try:
                    duration(text)
                except ValueError as error:
                    raise ValueError(f'supervision.{name}: {error}, or "{NEVER}"') from None
        for name, text in msgspec.structs.asdict(self.notices).items():
            if len(text) > MOST_NOTICE:
                raise ValueError(
                    f"supervision.notices.{name} has {len(text)} characters, at most {MOST_NOTICE}"
                )


def span(text: str) -> timedelta | None:
    """A duration of these options; None for one that never ends."""
    return None if text == NEVER else duration(text)
