"""A model for tests that does what its last message tells it to, on the wire of no provider."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from actors.model import Model
from actors.models.events import (
    Call,
    Counted,
    Ended,
    ProviderEvent,
    ReasoningDelta,
    Refusal,
    TextDelta,
    ToolDelta,
)
from actors.models.faults import Code, UpstreamFault
from schemas.model import Attachment, Image, Text, Usage, Utterance

calls: list[Call] = []
"""What the model was asked, in order."""
ended: dict[str, asyncio.Event] = {}
"""By gate: set once an answer that waits there has ended, or was given up."""
gates: dict[str, asyncio.Event] = {}
USAGE = Usage(prompt=9, completion=2, reasoning=1, cached=4)


def gate(name: str) -> asyncio.Event:
    """What an answer waits for after its first word."""
    return gates.setdefault(name, asyncio.Event())


class Scripted:
    """Does what the last message says: its first word is a method below, `say` if it is none."""

    async def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        calls.append(call)
        word, _, rest = _text(call.messages[-1]).partition(" ")
        act = getattr(self, f"do_{word}", None)
        if act is None:
            rest = f"{word} {rest}".strip()
        async for event in (act or self.do_say)(rest, call):
            yield event

    async def close(self) -> None:
        """There is nothing to close."""

    async def do_say(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        for word in rest.split(" "):
            yield TextDelta(f"{word} ")
        yield Counted(USAGE)
        yield Ended("stop")

    async def do_think(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        yield ReasoningDelta("hm, ")
        yield ReasoningDelta("well")
        async for event in self.do_say(rest, call):
            yield event

    async def do_call(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        """Calls the first tool twice."""
        name = call.settings["tools"][0]["function"]["name"]
        for index, place in enumerate(("Kyiv", "Bern")):
            yield ToolDelta(index, call=f"call_{index}", name=name)
            for piece in ('{"place":', f'"{place}"', "}"):
                yield ToolDelta(index, piece)
        yield Ended("tool_calls")

    async def do_see(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        """Says what came along with the message."""
        for part in call.messages[-1].content:
            if isinstance(part, Image) and part.url:
                yield TextDelta(f"{part.url} {part.detail}\n")
            elif isinstance(part, Image | Attachment) and part.file:
                content = await call.load(part.file)
                yield TextDelta(f"{part.file.media} {part.file.name} {len(content)}\n")
        yield Ended("stop")

    async def do_settings(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        yield TextDelta(msgspec.json.encode(call.settings, order="sorted").decode())
        yield Ended("stop")

    async def do_fail(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        """Fails with a code, and perhaps a number of seconds to wait."""
        code, _, seconds = rest.partition(" ")
        raise _fault(code, float(seconds) if seconds else None)
        yield Ended()

    async def do_falter(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        """Fails as the model `first`; any other says the rest."""
        if call.model == "first":
            raise _fault("overloaded", None)
        async for event in self.do_say(rest, call):
            yield event

    async def do_half(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        """Says a word, and fails for good."""
        yield TextDelta("half ")
        await asyncio.sleep(0)
        raise _fault(rest, None)

    async def do_anew(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        """Says a word and breaks off at the gate named, the first time."""
        if sum(each.conversation == call.conversation for each in calls) == 1:
            yield TextDelta("old ")
            await gate(rest).wait()
            raise _fault("truncated", None)
        yield TextDelta("new ")
        yield Ended("stop")

    async def do_refuse(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        if rest:
            yield TextDelta(rest)
        yield Refusal("not that")
        yield Ended("content_filter")

    async def do_hush(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        """Says nothing before the gate named is open."""
        await gate(rest).wait()
        async for event in self.do_say(rest, call):
            yield event

    async def do_wait(self, rest: str, call: Call) -> AsyncIterator[ProviderEvent]:
        """Says a word, waits at the gate named, says another."""
        gone = ended.setdefault(rest, asyncio.Event())
        try:
            yield TextDelta("one ")
            await gate(rest).wait()
            yield TextDelta("two ")
            yield Ended("stop")
        finally:
            gone.set()


class Speaking(Model):
    """A model like any other, but for whom it asks."""

    async def on_start(self) -> None:
        await super().on_start()
        self._adapter = Scripted()


def _fault(code: str, retry_after: float | None) -> UpstreamFault:
    known: Code = msgspec.convert(code, type=Code)
    return UpstreamFault(known, f"it was {code}", retry_after=retry_after)


def _text(message: Utterance) -> str:
    return "".join(part.text for part in message.content if isinstance(part, Text))
