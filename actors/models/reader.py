"""What all readers of answers have in common: objects in, events out, and when it is over.

A reader knows one provider's objects and nothing of connections.
"""

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from actors.models.events import (
    Call,
    Counted,
    Ended,
    ProviderEvent,
    ReasoningDelta,
    Refusal,
    Started,
    TextDelta,
    ToolDelta,
)
from actors.models.exchange import Exchange, Request
from actors.models.faults import UpstreamFault
from actors.models.framing import Framing
from actors.models.trouble import Refused, explain, is_error, read_trouble
from actors.models.wording import Discretion
from schemas.model import Finish, Usage

SPOKEN = (TextDelta, ReasoningDelta, ToolDelta)


class Reader(ABC):
    """Reads one answer. What is said after its end (`over`) does not count."""

    def __init__(self, discretion: Discretion) -> None:
        self.discretion = discretion
        self.finish: Finish | None = None
        self.refusal: str | None = None
        self.usage: Usage | None = None
        self.over = False
        self.event = ""
        """The name of the event that is being read."""
        self._framing = Framing(discretion)
        self._started = False

    @property
    def whole(self) -> bool:
        """Whether the provider has said that this is all."""
        return self.finish is not None or self.refusal is not None

    def feed(self, chunk: bytes) -> Iterator[ProviderEvent]:
        """Take some bytes of the body; raises UpstreamFault where it fails."""
        yield from self._take(self._framing.feed(chunk))
        if self._framing.closed and not self.over:
            yield from self.end()

    def end(self) -> Iterator[ProviderEvent]:
        """The body has ended; raises UpstreamFault unless the answer is whole."""
        yield from self._take(self._framing.end())
        if self.over:
            return
        if not self.whole:
            raise self.discretion.fault("truncated", self._describe_end())
        yield from self._conclude()

    @abstractmethod
    def read(self, body: dict[str, Any]) -> Iterator[ProviderEvent]:
        """What one object says. Sets `finish`, `refusal`, `usage`; `over` if nothing can follow.

        May raise TypeError, ValueError, LookupError or AttributeError for an object that is not
        the provider's.
        """

    def last_pieces(self) -> Iterator[ProviderEvent]:
        """What was held back until the end."""
        return iter(())

    def id_of(self, body: dict[str, Any]) -> str:
        """The provider's name for the answer."""
        return _text(body.get("id"))

    def _take(self, arrived: Iterator[Any]) -> Iterator[ProviderEvent]:
        for one in arrived:
            if self.over:
                return
            if is_error(one.body, one.event):
                raise explain(read_trouble(one.body), self.discretion)
            if not self._started:
                self._started = True
                yield Started(self.id_of(one.body))
            self.event = one.event
            yield from self._read(one.body)

    def _read(self, body: dict[str, Any]) -> Iterator[ProviderEvent]:
        try:
            yield from self.read(body)
        except (TypeError, ValueError, LookupError, AttributeError):
            said = self.discretion.quote(repr(body))
            raise self.discretion.fault("garbled", f"cannot be understood: {said}") from None
        if self.over:
            yield from self._conclude()

    def _conclude(self) -> Iterator[ProviderEvent]:
        self.over = True
        yield from self.last_pieces()
        if self.usage is not None:
            yield Counted(self.usage)
        if self.refusal is not None:
            yield Refusal(self.discretion.clean(self.refusal) or "the provider refused")
        else:
            yield Ended(self.finish or "stop")

    def _describe_end(self) -> str:
        if self._framing.silent:
            return "the answer was empty"
        where = " within a piece" if self._framing.cut else ""
        return f"the answer ended{where} without saying that it had ended"


class Calls:
    """Numbers the tool calls of one answer, and tells which of them a piece belongs to."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._named: list[bool] = []
        self._numbers: dict[object, int] = {}

    def __bool__(self) -> bool:
        return bool(self._ids)

    def take(self, index: object, call: str, name: str, text: str) -> ToolDelta | None:
        """A piece of a call. `index` is the provider's, None if it gave none."""
        number = self._find(index, call, name)
        if number is None:
            number = self._begin(index, call)
            self._named[number] = bool(name)
            return ToolDelta(number, text, self._ids[number], name)
        name = "" if self._named[number] else name
        self._named[number] = self._named[number] or bool(name)
        return ToolDelta(number, text, name=name) if text or name else None

    def add(self, call: str, name: str, text: str) -> ToolDelta:
        """A call that comes whole, so that it continues no other."""
        if not isinstance(call, str) or not isinstance(name, str):
            raise TypeError(type(name))
        number = self._begin(None, "" if call in self._ids else call)
        self._named[number] = True
        return ToolDelta(number, text, self._ids[number], name)

    def _find(self, index: object, call: str, name: str) -> int | None:
        """The call that a piece continues. Some servers give all calls one index."""
        if index is not None:
            number = self._numbers.get(index)
            other = number is not None and call and name and call != self._ids[number]
            return None if other else number
        if call:
            return self._ids.index(call) if call in self._ids else None
        return len(self._ids) - 1 if self._ids and not name else None

    def _begin(self, index: object, call: str) -> int:
        self._ids.append(call or f"call_{secrets.token_hex(12)}")
        self._named.append(False)
        number = len(self._ids) - 1
        if index is not None:
            self._numbers[index] = number
        return number


async def converse(call: Call, request: Request, reader: Reader) -> AsyncGenerator[ProviderEvent]:
    """Send a request, and give what its reader makes of the answer. Raises UpstreamFault."""
    exchange = Exchange(call.client, call.timeouts, reader.discretion)
    try:
        await exchange.open(request)
        while not reader.over:
            for event in await _next(exchange, reader):
                if isinstance(event, SPOKEN):
                    exchange.hear()
                yield event
        await exchange.drain()
    except Refused as refused:
        yield Refusal(refused.reason or "the provider refused")
    finally:
        await exchange.close()


async def _next(exchange: Exchange, reader: Reader) -> Iterator[ProviderEvent]:
    """What the next bytes say. An answer that is whole is not lost by what happens after it."""
    if reader.whole:
        exchange.expect_end()
    try:
        chunk = await exchange.read()
    except UpstreamFault:
        if not reader.whole:
            raise
        return reader.end()
    return reader.feed(chunk) if chunk else reader.end()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
