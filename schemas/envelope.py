"""A message with the facts around it: CloudEvents 1.0, structured JSON.

Source: CloudEvents 1.0.2 JSON format. Extensions are lower case, as it demands.
"""

from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec

from schemas.base import Message, tag_of

Data = TypeVar("Data")

JSON = "application/json"
VERSION = "1.0"
"""Of CloudEvents."""
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that mean nothing: the first alone is not all."""


class Envelope(msgspec.Struct, Generic[Data], frozen=True, kw_only=True, omit_defaults=True):
    """What travels: one message, who said it, to what, when, and why.

    `id` is unique per `source`. `subject` is the key (or topic id) it is for, unhashed.
    """

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: str
    data: Data

    correlationid: str = ""
    """The id of the first message of the whole thread of work."""
    causationid: str = ""
    """The id of the message whose handling produced this one."""
    traceparent: str = ""
    """W3C trace context, version 00."""
    replyto: str = ""
    """The core NATS subject where an asker waits."""
    principal: str = ""
    """Who asked for it at the edge."""
    bodyhash: str = ""
    """Of what a client sent, to tell a repeat from another request under the same id."""
    runid: str = ""
    """The run that a job, a delta or a result belongs to."""
    attempt: int = 0
    """The try of that run, from 1."""
    number: int = 0
    """Of a delta within its attempt, from 1; followers drop what is not newer."""
    resultto: str = ""
    """The address that a job's result goes to, if not to whoever started it."""
    topic: str = ""
    """Where a job is to be heard: `kind/id`; empty if nobody listens."""
    expires: datetime | None = None
    """When a job is no longer worth doing."""
    reminder: str = ""
    """The name of the reminder that this message is."""
    generation: int = 0
    """Of that reminder; one that is not current has been replaced or cancelled."""
    due: datetime | None = None
    """When that reminder was to come."""
    replayed: int = 0
    """The sequence of the dead letter that this message was, if an operator replayed it."""


def seal(message: Message, **facts: Any) -> Envelope[Message]:
    """Put a message into an envelope; `facts` are `id`, `source`, `subject` and extensions."""
    if "time" not in facts:
        facts["time"] = datetime.now(UTC)
    return Envelope(
        specversion=VERSION, type=tag_of(message), datacontenttype=JSON, data=message, **facts
    )


encode = msgspec.json.Encoder().encode
"""Encode an envelope, record or message."""

decode_any = msgspec.json.Decoder(Envelope[msgspec.Raw]).decode
"""Decode an envelope whose message stays bytes; raises msgspec.MsgspecError."""
