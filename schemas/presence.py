"""Who is there, and who is typing: said to whoever listens right now, never stored.

It is said on `seen.conversation.<id>`, and forgotten after `lasts` seconds unless said again.
"""

from typing import Annotated, Literal

import msgspec

from schemas.base import Message

Role = Literal["user", "agent"]
Short = Annotated[str, msgspec.Meta(max_length=200)]
Lasting = Annotated[float, msgspec.Meta(gt=0, le=120)]


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody at a surface, as the edge knows them: never by what they call themselves."""

    id: Short
    role: Role = "user"
    name: Short = ""


class Typing(Message, tag="presence.typing"):
    """Somebody writes something to a conversation, or has stopped."""

    session: Short
    who: Person
    on: bool = True
    lasts: Lasting = 6.0


class Viewing(Message, tag="presence.viewing"):
    """Somebody has a conversation before their eyes, by way of one edge (`via`), or no more."""

    session: Short
    who: Person
    on: bool = True
    lasts: Lasting = 12.0
    via: Short = ""
