"""What hosts tell each other, in the bucket `nodes`, of messages that may end hosts."""

import msgspec

SUSPECTS = "careful."
"""Prefix of a shard's `Suspects`; its consumer follows."""
MARK = "mark."
"""Prefix of a host's `Mark`; the token of its incarnation follows."""
RECALL = "recall."
"""Prefix of a key's `Recalling`; its actor and its token follow."""


class Suspects(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Who took a shard over last, and which of its messages may have ended an owner.

    `owner` is an incarnation, or empty once it has left in good order. `upto` is the last
    sequence a lost owner was given, in the stream created at `stream`. `strikes` names, for a
    sequence, the owners that were lost while they were at it.
    """

    stream: str
    owner: str = ""
    upto: int = 0
    strikes: dict[int, list[str]] = {}


class Mark(msgspec.Struct, kw_only=True, frozen=True):
    """The message that a host is at, by its consumer and its sequence."""

    consumer: str
    seq: int


class Recalling(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who catches up with what was put aside for a key, and who was lost over the message at `seq`.

    `owner` and `hosts` are incarnations; `stream` is when the stream was created.
    """

    stream: str
    owner: str
    seq: int = 0
    hosts: list[str] = []
