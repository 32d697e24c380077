"""What Fiido's clients send and get, field by field.

Source: the Fiido customer service, whose clients rely on these names; more fields are only added.
"""

import re
from typing import Annotated, Any, Literal

import msgspec

from schemas.ownership import MOST_SAID, Mode

NAME = r"^[\w.@:+=~-]{1,128}$(?!\n)"
"""A session: letters and digits of any script, and what stands in addresses and made ids."""
NAMED = re.compile(NAME)

SessionName = Annotated[str, msgspec.Meta(pattern=NAME)]
Named = SessionName | None
Said = Annotated[str, msgspec.Meta(min_length=1)]


class Profile(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Who the customer is. That they are a `vip` is believed of this machine and of keys only."""

    nickname: Annotated[str, msgspec.Meta(max_length=200)] = ""
    email: Annotated[str, msgspec.Meta(max_length=320)] = ""
    vip: bool = False
    language: Annotated[str, msgspec.Meta(max_length=35)] = ""
    country: Annotated[str, msgspec.Meta(max_length=100)] = ""
    city: Annotated[str, msgspec.Meta(max_length=100)] = ""
    currency: Annotated[str, msgspec.Meta(max_length=10)] = ""
    metadata: dict[str, Any] = {}


class ChatAsked(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a customer says. `user_id` is the session; without one a new session is made.

    `conversation_id` is the one that `/api/conversation/new` answered, `parameters` goes to the
    provider as it is. Other fields are ignored.
    """

    message: Said
    user_id: Named = None
    conversation_id: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    parameters: dict[str, Any] | None = None
    user_profile: Profile | None = None


class ChatAnswered(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The whole answer. Where what was said called a person it is the notice of that, `escalated`
    is on, and `session_status` says how the session stands. `message_id` is the run's."""

    success: bool
    message: str
    session_name: str
    conversation_id: str | None = None
    message_id: str = ""
    escalated: bool = False
    session_status: Mode | None = None


class SupportError(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Why something is not done. Programs decide by `code`; where that is a word in capitals it is
    the `detail`, too, and what people read is the `message`.

    Where the state of a session is in the way, `detail` is that code in capitals and `status` the
    state: `MANUAL_IN_PROGRESS` while a person has it, or is waited for.
    """

    success: Literal[False]
    detail: str
    error: str
    code: str
    message: str = ""
    status: Mode | None = None


class AgentInfo(msgspec.Struct, kw_only=True):
    """A human agent."""

    agent_id: str
    agent_name: str = ""


class SupportEvent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of a session's streams, by its `type`.

    `answer`: a piece of an answer, `content`; `message_id` tells answers apart. `reset`: discard
    what was said of an answer (of all, without a `message_id`). `done`: an answer has ended;
    `full` is all of it, `reason` why it ended early. `error`: `content` says what, `code` says it
    to programs. `manual_message`: what a person said to a person. `status_change`: who answers
    from here on. `user_message`: what the customer said to the bot. `connected`: how the session
    stands where a stream begins. `conversation`: how the provider calls it. `typing`,
    `presence`: of the agents. `idle`: nothing was said for
    long; the feed ends, and goes on where it is opened again.
    """

    type: Literal[
        "answer",
        "reset",
        "done",
        "error",
        "manual_message",
        "status_change",
        "user_message",
        "connected",
        "conversation",
        "typing",
        "presence",
        "idle",
    ]
    content: str = ""
    full: str = ""
    message_id: str = ""
    code: str = ""
    role: Literal["user", "agent", "system"] | None = None
    id: str = ""
    agent_id: str | None = None
    agent_name: str | None = None
    status: Mode | None = None
    reason: str = ""
    notice: str = ""
    agent_info: AgentInfo | None = None
    timestamp: float = 0
    session_name: str = ""
    conversation_id: str | None = None


MOST_MESSAGE = MOST_SAID
"""Bytes of one message of a customer."""
