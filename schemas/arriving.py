"""What a conversation is told of messages that come while one of it is being answered."""

from schemas.base import Message, Request
from schemas.ownership import Arriving


class ArrivingSet(Message, tag="session.arriving_set"):
    """The conversation's own policy from now on; None if it has none."""

    arriving: Arriving | None = None


class SetArriving(Request[ArrivingSet], tag="session.set_arriving"):
    """Have a policy of its own, or none any more: then the deployment's option decides. What
    waits already goes on waiting.

    Refused: 404 `conversation_not_found`.
    """

    arriving: Arriving | None = None
