"""What agents send to do something with a session, and what they are answered."""

from typing import Annotated, Any

import msgspec

from edge.session_shapes import SessionView
from schemas.ownership import MOST_NOTE

Id = Annotated[str, msgspec.Meta(max_length=100)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Note = Annotated[str, msgspec.Meta(max_length=MOST_NOTE)]


class TakeOverAsked(msgspec.Struct, kw_only=True):
    """Who takes it; an agent with a token need not say. `force` is for leads: also what is
    offered to somebody else. With `epoch` only if nothing has changed since."""

    agent_id: Id = ""
    agent_name: Id = ""
    force: bool = False
    epoch: Annotated[int, msgspec.Meta(ge=0)] = 0


class ReleaseAsked(msgspec.Struct, kw_only=True):
    """Whose it is. `force` is for leads: whoever has it."""

    agent_id: Id = ""
    reason: Text = "resolved"
    force: bool = False


class CancelAsked(msgspec.Struct, kw_only=True):
    """Why nobody is to come after all."""

    agent_id: Id = ""
    reason: Text = ""


class TransferAsked(msgspec.Struct, kw_only=True):
    """Whose it is, and who goes on with it. The `note` is for colleagues."""

    to_agent_id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    to_agent_name: Id = ""
    from_agent_id: Id = ""
    reason: Text = ""
    note: Note = ""
    force: bool = False


class NoteAsked(msgspec.Struct, kw_only=True):
    """A note for colleagues."""

    content: Note
    agent_id: Id = ""
    agent_name: Id = ""


class EmailAsked(msgspec.Struct, kw_only=True):
    """Whom to write to (those of the mailer's options by default), with how many messages."""

    to: Annotated[list[str], msgspec.Meta(max_length=20)] = []
    messages: Annotated[int, msgspec.Meta(ge=0, le=50)] = 10


class DraftAsked(msgspec.Struct, kw_only=True):
    """What should be said (`hint`), and which model is to write it; by default the one that
    answers customers."""

    agent_id: Id = ""
    agent_name: Id = ""
    hint: Note = ""
    model: Annotated[str, msgspec.Meta(max_length=200)] = ""


class CustomerAsked(msgspec.Struct, kw_only=True):
    """What is known of the customer; what is not sent stays as it is."""

    nickname: Id | None = None
    email: Id | None = None
    vip: bool | None = None
    language: Id | None = None
    country: Id | None = None
    city: Id | None = None
    currency: Id | None = None
    metadata: dict[str, Any] | None = None


class Handled(msgspec.Struct, kw_only=True):
    """How the session stands now; `changed` is off where nothing was left to do."""

    data: SessionView
    changed: bool
    success: bool = True


class NotedData(msgspec.Struct):
    """The id of what was noted, and when."""

    id: str
    timestamp: float | None


class NotedAnswer(msgspec.Struct):
    """It is stored, and told to colleagues."""

    data: NotedData
    success: bool = True


class RunData(msgspec.Struct):
    """The run that does it; what comes of it is told on the session's events."""

    run: str


class Begun(msgspec.Struct):
    """It has begun."""

    data: RunData
    success: bool = True
