"""An upstream on a real socket that does as it is told, and an adapter that speaks its wire.

POST /ask; the answer is a line of JSON for each piece: `{"text": "…"}`, last `{"end": "stop"}`.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import msgspec
import pytest

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
from actors.models.faults import Code, UpstreamFault
from actors.models.providers import PROVIDERS, Provider
from schemas.model import Text, Usage

CODES: dict[int, Code] = {
    400: "bad_request",
    401: "unauthorized",
    404: "model_not_found",
    429: "rate_limited",
    503: "overloaded",
}


@dataclass
class Reply:
    """What one call is answered. After the pieces it ends, breaks off, or says nothing more;
    `silent` says nothing at all. `gate` is waited for after the first piece,
    `gap` seconds after each."""

    pieces: tuple[str, ...] = ("one ", "two ", "three")
    status: int = 200
    retry_after: str = ""
    then: Literal["end", "cut", "hang", "silent"] = "end"
    gate: asyncio.Event | None = None
    gap: float = 0
    lines: tuple[dict[str, Any], ...] = ()
    """Sent as they are, before the pieces."""


Plan = Callable[[int, dict[str, Any]], Reply]


@dataclass
class Wordy:
    """The upstream: what it was asked, and what it does with the n-th call (from 1)."""

    plan: Plan = field(default=lambda number, body: Reply())
    calls: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0
    """Calls that are being answered."""
    most: int = 0
    left: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """Released whenever a client went before its answer was whole."""
    asked: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def __aenter__(self) -> "Wordy":
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def texts(self) -> list[list[str]]:
        """The messages of each call, as `role: text`."""
        return [call["messages"] for call in self.calls]

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self._serve(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.calls.append(body)
        self.open += 1
        self.most = max(self.most, self.open)
        self.asked.release()
        gone = asyncio.create_task(reader.read(1))
        answer = asyncio.create_task(self._answer(self.plan(len(self.calls), body), writer))
        try:
            await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() or answer.exception():
                self.left.release()
        finally:
            self.open -= 1
            for task in (gone, answer):
                task.cancel()
            await asyncio.gather(gone, answer, return_exceptions=True)
        return False

    async def _answer(self, reply: Reply, writer: asyncio.StreamWriter) -> None:
        if reply.then == "silent":
            await asyncio.Event().wait()
        more = f"retry-after: {reply.retry_after}\r\n" if reply.retry_after else ""
        writer.write(
            f"HTTP/1.1 {reply.status} X\r\nconnection: close\r\n{more}"
            "content-type: application/x-ndjson\r\n\r\n".encode()
        )
        if reply.status != 200:
            return await writer.drain()
        for line in reply.lines:
            await say(writer, line)
        for number, piece in enumerate(reply.pieces):
            await say(writer, {"text": piece})
            if number == 0 and reply.gate is not None:
                await reply.gate.wait()
            await asyncio.sleep(reply.gap)
        if reply.then == "hang":
            await asyncio.Event().wait()
        if reply.then == "end":
            await say(writer, {"end": "stop"})


async def say(writer: asyncio.StreamWriter, line: dict[str, Any]) -> None:
    """Send one line."""
    writer.write(json.dumps(line).encode() + b"\n")
    await writer.drain()


class Adapter:
    """Speaks Wordy's wire."""

    async def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        times = call.timeouts
        timeout = httpx.Timeout(
            connect=times.connect, read=times.idle, write=times.write, pool=times.pool
        )
        body = {
            "model": call.model,
            "messages": [
                f"{one.role}: {''.join(p.text for p in one.content if isinstance(p, Text))}"
                for one in call.messages
            ],
            "settings": call.settings,
            "key": call.upstream.key,
        }
        url = f"{call.upstream.url}/ask"
        try:
            async with call.client.stream("POST", url, json=body, timeout=timeout) as response:
                if response.status_code != 200:
                    raise fault_of(response)
                yield Started()
                async for line in response.aiter_lines():
                    yield read(json.loads(line))
        except httpx.TimeoutException as error:
            raise UpstreamFault("timeout", type(error).__name__) from None
        except httpx.HTTPError as error:
            raise UpstreamFault("unreachable", type(error).__name__) from None

    async def close(self) -> None: ...


def fault_of(response: httpx.Response) -> UpstreamFault:
    """What a status means; what Retry-After says is taken as any number."""
    after: float | None = None
    with contextlib.suppress(ValueError):
        after = float(response.headers.get("retry-after", ""))
    code = CODES.get(response.status_code, "server_error")
    status = response.status_code
    return UpstreamFault(code, f"answered {status}", status=status, retry_after=after)


def read(line: dict[str, Any]) -> ProviderEvent:
    """A line as an event."""
    match line:
        case {"text": text}:
            return TextDelta(text)
        case {"reasoning": text}:
            return ReasoningDelta(text)
        case {"tool": tool}:
            return ToolDelta(**tool)
        case {"usage": usage}:
            return Counted(msgspec.convert(usage, Usage))
        case {"refusal": reason}:
            return Refusal(reason)
        case {"end": finish}:
            return Ended(finish)
    raise UpstreamFault("garbled", f"no such line: {line!r}")


def speak_wordy() -> None:
    """From now on, for this process, `openai` means Wordy."""
    PROVIDERS["openai"] = Provider("tests.integration.wordy:Adapter")


@pytest.fixture
def wordy_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test, `openai` means Wordy."""
    monkeypatch.setitem(PROVIDERS, "openai", Provider("tests.integration.wordy:Adapter"))


def options(*upstreams: Wordy, **more: Any) -> dict[str, Any]:
    """A model on these upstreams, which are called u1, u2…"""
    tables = [{"url": one.url, "name": f"u{n}"} for n, one in enumerate(upstreams, 1)]
    return {"provider": "openai", "model": "m", "upstreams": tables, **more}
