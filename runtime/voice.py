"""How an attempt's words become deltas: gathered for a moment, in order, one on its way at a time.

What followers see soonest is the first piece; what costs the least is many pieces as one.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from schemas.record import Delta

COALESCE = 0.03
"""Seconds between two deltas, in which pieces are gathered."""
COALESCE_SIZE = 1024
"""Characters that are not kept waiting for more."""
MOST_AT_ONCE = 32 * 1024
"""Characters of one piece, and of what may wait to be said."""


class Speaker(Protocol):
    """Who stores what is said: an attempt at a job."""

    async def say(self, piece: Delta, text: str) -> None:
        """Store `text` as a delta like `piece`; raises Fenced if it is refused."""
        ...


class _Gathered:
    """Pieces that are said as one delta: the first with its facts, and the text of all."""

    __slots__ = ("first", "size", "texts")

    def __init__(self, first: Delta) -> None:
        self.first = first
        self.texts = [first.text]
        self.size = len(first.text)

    def takes(self, piece: Delta) -> bool:
        """Whether a piece goes on where this ends."""
        first = self.first
        if piece.kind != first.kind or piece.index != first.index:
            return False
        return not piece.call or piece.call == first.call

    def add(self, text: str) -> None:
        self.texts.append(text)
        self.size += len(text)


class Voice:
    """Says what a handler yields: the first piece at once, then gathered for a moment.

    One delta is in flight at a time, so that none overtakes another; who yields faster than
    the broker stores has to wait.
    """

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._waiting: deque[_Gathered] = deque()
        self._size = 0
        self._sender: asyncio.Task[None] | None = None
        self._last = 0.0
        self._room = asyncio.Event()
        self._pause: asyncio.Future[None] | None = None
        self._ending = False

    async def add(self, piece: Delta) -> None:
        """Queue a piece. Raises Fenced if an earlier one was refused."""
        for part in _parts(piece):
            while self._size >= MOST_AT_ONCE:
                self._check()
                self._room.clear()
                await self._room.wait()
            self._check()
            self._queue(part)

    async def drain(self) -> None:
        """Wait until everything is stored. Raises Fenced if it was refused."""
        self._ending = True
        self._go_on()
        if self._sender is not None:
            await self._sender

    def stop(self) -> None:
        """Say nothing more."""
        if self._sender is not None and not self._sender.cancel() and not self._sender.cancelled():
            self._sender.exception()  # heard already, or of no consequence any more

    def _check(self) -> None:
        if self._sender is not None and self._sender.done():
            self._sender.result()

    def _queue(self, piece: Delta) -> None:
        if self._waiting and self._waiting[-1].takes(piece):
            self._waiting[-1].add(piece.text)
        else:
            self._waiting.append(_Gathered(piece))
        self._size += len(piece.text)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
            self._sender.add_done_callback(lambda _: self._room.set())
        elif self._pause is not None and self._is_enough():
            self._go_on()

    async def _send(self) -> None:
        while self._waiting:
            if not self._is_enough():
                await self._gather()
            gathered = self._waiting.popleft()
            self._size -= gathered.size
            self._room.set()
            self._last = time.monotonic()
            await self._speaker.say(gathered.first, "".join(gathered.texts))

    def _is_enough(self) -> bool:
        """Whether nothing can be added to what is next, or is worth waiting for."""
        return self._ending or self._size >= COALESCE_SIZE or len(self._waiting) > 1

    async def _gather(self) -> None:
        """Wait for more, for as long as it may take since the last was sent."""
        left = COALESCE - (time.monotonic() - self._last)
        if left <= 0:
            return
        loop = asyncio.get_running_loop()
        self._pause = loop.create_future()
        timer = loop.call_later(left, self._go_on)
        try:
            await self._pause
        finally:
            timer.cancel()
            self._pause = None

    def _go_on(self) -> None:
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)


async def listen(pieces: AsyncGenerator[Any, None], speaker: Speaker) -> Any:
    """Say every delta that a handler yields; return what it yields last."""
    voice = Voice(speaker)
    result: Any = None
    try:
        async for piece in pieces:
            if isinstance(piece, Delta):
                await voice.add(piece)
            else:
                result = piece
        await voice.drain()
    finally:
        voice.stop()
        await pieces.aclose()
    return result


def _parts(piece: Delta) -> list[Delta]:
    """A piece that is not too long, or several that say the same; none if it says nothing."""
    if len(piece.text) <= MOST_AT_ONCE:
        return [piece] if piece.text or piece.call or piece.name else []
    texts = [
        piece.text[start : start + MOST_AT_ONCE]
        for start in range(0, len(piece.text), MOST_AT_ONCE)
    ]
    first = Delta(
        text=texts[0], kind=piece.kind, index=piece.index, call=piece.call, name=piece.name
    )
    return [first, *(Delta(text=t, kind=piece.kind, index=piece.index) for t in texts[1:])]
