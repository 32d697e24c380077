"""Sends an answer as its switches say: when, at what pace, in which form, and how it breaks off."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from actors.fakes.frames import Answer, Frame, Streamed, Whole
from actors.fakes.ledger import Asked, Gate, Ledger, Outcome
from actors.fakes.line import Reply
from actors.fakes.switches import MIDWAY, number

PIECES = 2
"""After so many pieces an answer breaks off, if its switch does not say."""
SPOKEN = {"text", "last"}
WHOLE = {"last", "end"}
INTERRUPTED = SPOKEN | WHOLE
BLOCK = b"x" * 65536


class Player:
    """One answer on its way."""

    def __init__(self, reply: Reply, asked: Asked, ledger: Ledger, gate: Gate) -> None:
        self._reply = reply
        self._asked = asked
        self._ledger = ledger
        self._gate = gate
        self._switches = asked.switches
        self._began = 0.0
        self._due = [name for name in MIDWAY if name in asked.switches]
        self._breaks: dict[str, Callable[[Frame, Streamed], Awaitable[bool]]] = {
            "truncated": self._truncated,
            "cut": self._cut,
            "dropped": self._dropped,
            "reset": self._reset,
            "error": self._error,
            "garbage": self._garbage,
            "long-line": self._long_line,
            "hold-middle": self._hold,
        }

    async def play(self, answer: Answer) -> None:
        """Send it all, or what its switches let through."""
        if "hold" in self._switches:
            await self._gate.passed()
        if "slow" in self._switches:
            await asyncio.sleep(number(self._switches, "slow", 30))
        if "reset-first" in self._switches:
            await self._break_off(self._reply.reset)
        elif "close-first" in self._switches:
            await self._break_off(self._reply.cut)
        elif isinstance(answer, Whole):
            await self._play_whole(answer)
        else:
            await self._play_stream(answer)

    async def _play_whole(self, answer: Whole) -> None:
        headers = {"Content-Type": answer.media} | answer.headers
        await self._head(answer.status, headers, len(answer.body))
        await self._wait_for_first()
        middle = len(answer.body) // 2
        broken = next((name for name in self._due if name in self._breaks), "")
        self._tell_token()
        if broken and answer.status == 200:
            await self._reply.send(answer.body[:middle])
            if broken == "hold-middle":
                await self._gate.passed()
                await self._reply.send(answer.body[middle:])
                return await self._end()
            return await self._break_off(
                self._reply.reset if broken == "reset" else self._reply.cut
            )
        await self._reply.send(answer.body)
        await self._end()

    async def _play_stream(self, answer: Streamed) -> None:
        await self._head(200, {"Content-Type": answer.media} | answer.headers, None)
        await self._wait_for_first()
        self._began = time.monotonic()
        for frame in answer.frames:
            if frame.phase in INTERRUPTED and await self._interrupted(frame, answer):
                return
            if frame.phase in SPOKEN:
                if "step" in self._switches:
                    await self._gate.passed()
                self._tell_token()
            await self._reply.send(answer.render(frame))
            await self._pace(frame)
        await self._reply.send(answer.close)
        await self._end()

    async def _head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        self._asked.status = status
        self._asked.first_byte_at = time.monotonic()
        self._ledger.change()
        await self._reply.head(status, headers, length)

    async def _wait_for_first(self) -> None:
        if "hold-first" in self._switches:
            await self._gate.passed()
        if "first" in self._switches:
            await asyncio.sleep(number(self._switches, "first", 30))

    async def _pace(self, frame: Frame) -> None:
        """Wait until the next piece is due, by the clock of the first."""
        if frame.phase == "wait" and "every" in self._switches:
            await asyncio.sleep(number(self._switches, "every", 1))
        elif frame.phase == "text" and (rate := number(self._switches, "rate", 0)):
            due = self._began + self._asked.tokens / rate
            await asyncio.sleep(max(due - time.monotonic(), 0))

    def _tell_token(self) -> None:
        if not self._asked.tokens:
            self._asked.first_token_at = time.monotonic()
        self._asked.tokens += 1
        self._ledger.change()

    async def _interrupted(self, frame: Frame, answer: Streamed) -> bool:
        """Do what is due before this frame; whether that was the end."""
        for name in [name for name in self._due if name in self._breaks]:
            after = PIECES if name == "long-line" else number(self._switches, name, PIECES)
            if self._asked.tokens >= after or frame.phase in WHOLE:
                self._due.remove(name)
                if await self._breaks[name](frame, answer):
                    return True
        return False

    async def _end(self) -> None:
        self._finish("whole")
        await self._reply.end()

    async def _break_off(self, how: Callable[[], Awaitable[None]]) -> None:
        self._finish("broken")
        await how()

    def _finish(self, outcome: Outcome) -> None:
        self._asked.outcome = outcome
        self._asked.ended_at = time.monotonic()
        self._ledger.change()

    # -- what may happen on the way; each says whether the answer is over

    async def _truncated(self, frame: Frame, answer: Streamed) -> bool:
        await self._break_off(self._reply.end)
        return True

    async def _cut(self, frame: Frame, answer: Streamed) -> bool:
        said = answer.render(frame)
        await self._reply.send(said[: len(said) // 2])
        return await self._truncated(frame, answer)

    async def _dropped(self, frame: Frame, answer: Streamed) -> bool:
        await self._break_off(self._reply.cut)
        return True

    async def _reset(self, frame: Frame, answer: Streamed) -> bool:
        await self._break_off(self._reply.reset)
        return True

    async def _error(self, frame: Frame, answer: Streamed) -> bool:
        for said in answer.mishap:
            await self._reply.send(answer.render(said))
        await self._reply.send(answer.close)
        return await self._truncated(frame, answer)

    async def _garbage(self, frame: Frame, answer: Streamed) -> bool:
        await self._reply.send(answer.render(Frame(b'{"choices": [{"del', frame.event)))
        return False

    async def _long_line(self, frame: Frame, answer: Streamed) -> bool:
        left = int(number(self._switches, "long-line", 100_000_000))
        before, _, after = answer.render(Frame(b'"|"', frame.event)).partition(b"|")
        await self._reply.send(before)
        while left > 0:
            await self._reply.send(BLOCK[:left])
            left -= len(BLOCK)
        await self._reply.send(after)
        return False

    async def _hold(self, frame: Frame, answer: Streamed) -> bool:
        await self._gate.passed()
        return False
