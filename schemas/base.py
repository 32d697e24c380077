"""What every message on the wire has in common, and how its receiver is named."""

import hashlib
import re
from functools import lru_cache
from typing import Generic, TypeVar, dataclass_transform, get_args

import msgspec

Reply = TypeVar("Reply")

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASHED = re.compile(r"h-[0-9a-f]{48}")


# msgspec inherits `frozen` and `kw_only` at run time, but type checkers do not see it.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Anything said to an address, done as a job or followed as an event.

    The tag is the message's name on the wire, written `area.verb`. It outlives the class
    name, so it is always spelled out: `class Greet(Message, tag="greeter.greet")`.
    Unknown fields are ignored when read, so new fields need defaults.
    """


class Request(Message, Generic[Reply]):
    """A message that is answered with a `Reply`."""


class Job(Message, Generic[Reply]):
    """Work for any instance of a worker type; its result goes back as a message."""


class Address(msgspec.Struct, frozen=True):
    """Where messages go: an actor's name, and the key of one of its instances."""

    actor: str
    key: str = "_"

    def __str__(self) -> str:
        return f"{self.actor}/{self.key}"


class Topic(msgspec.Struct, frozen=True):
    """What one follows: a kind and an id, `task/t1`."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"


def tag_of(message: Message | type[Message]) -> str:
    """Return a message's name on the wire."""
    return str(message.__struct_config__.tag)


def reply_type(request: type[Message]) -> type[Message] | None:
    """Return the `Reply` of a `Request[Reply]` or `Job[Reply]`, None for any other message."""
    for base in getattr(request, "__orig_bases__", ()):
        if getattr(base, "__origin__", None) in (Request, Job):
            found = get_args(base)[0]
            return found if isinstance(found, type) and issubclass(found, Message) else None
    return None


@lru_cache(maxsize=4096)
def token(text: str) -> str:
    """Return `text` as one subject token: itself where it is one, else a hash of it.

    A hash is `h-` and 192 bits; a text that looks like one is hashed too, so that nobody
    can name somebody else's hash.
    """
    if _TOKEN.fullmatch(text) and not _HASHED.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"h-{digest[:48]}"
