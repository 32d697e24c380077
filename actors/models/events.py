"""What any provider's answer is made of, in the order it comes; and how one is asked for.

An answer that does not end with `Ended` or `Refusal` is a failure, however it looks.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import httpx
import msgspec

from schemas.model import FileRef, Finish, Usage, Utterance


class Started(msgspec.Struct, frozen=True):
    """The provider has begun; `id` is its own name for the answer, never used as a key."""

    id: str = ""


class TextDelta(msgspec.Struct, frozen=True):
    """A piece of the answer."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True):
    """A piece of what the model thinks before and while it answers."""

    text: str


class ToolDelta(msgspec.Struct, frozen=True):
    """A piece of a tool call: `call` (its id) and `name` come with the first of an `index`."""

    index: int
    text: str = ""
    call: str = ""
    name: str = ""


class Counted(msgspec.Struct, frozen=True):
    """Tokens used so far; the last one counts."""

    usage: Usage


class Ended(msgspec.Struct, frozen=True):
    """The provider said that the answer is whole."""

    finish: Finish = "stop"


class Refusal(msgspec.Struct, frozen=True):
    """The provider will not answer, or not go on: `reason` in its own words."""

    reason: str


class InThread(msgspec.Struct, frozen=True):
    """The provider keeps the conversation itself: its own name for it."""

    id: str


ProviderEvent: TypeAlias = (
    Started | InThread | TextDelta | ReasoningDelta | ToolDelta | Counted | Ended | Refusal
)


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, for the first piece of an answer, between pieces, for a write, for a
    free connection."""

    connect: float = 5.0
    first: float = 300.0
    idle: float = 60.0
    write: float = 10.0
    pool: float = 10.0


DEFAULT = Timeouts()


@dataclass(frozen=True)
class Upstream:
    """Where a provider is: its base URL, and the key for it, which is in no repr."""

    url: str
    key: str = field(default="", repr=False)
    name: str = ""


@dataclass(frozen=True)
class Thread:
    """A conversation that a provider keeps itself: its own name for it, at which upstream (at
    any, if that is empty), and how many of a call's messages, the last ones, it has not seen
    (None: it has seen nothing)."""

    id: str
    upstream: str
    news: int | None


@dataclass(frozen=True)
class Call:
    """One question to one upstream. `settings` are in the words of OpenAI's chat completions.

    `load` returns the bytes of a file of ours. `extra` is what a deployment adds for its
    provider, put into the request as it is; `dialect` is how its server differs from others of
    the provider (dialects.py). `thread` is where the provider keeps the conversation, if it does.
    """

    client: httpx.AsyncClient
    upstream: Upstream
    model: str
    messages: tuple[Utterance, ...]
    load: Callable[[FileRef], Awaitable[bytes]]
    settings: dict[str, Any] = field(default_factory=dict)
    conversation: str = ""
    timeouts: Timeouts = DEFAULT
    extra: dict[str, Any] = field(default_factory=dict)
    dialect: dict[str, Any] = field(default_factory=dict)
    thread: Thread | None = None


class Adapter(Protocol):
    """Speaks one provider's wire. Made once per worker, used by many calls at once."""

    def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        """Ask, and yield what comes. Raises UpstreamFault for anything but a whole answer.

        Closing the iterator ends the request.
        """
        ...

    async def close(self) -> None:
        """Leave nothing behind."""
        ...
