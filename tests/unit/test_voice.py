"""What becomes one delta, what does not, and when it is said."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from runtime.run import Fenced
from runtime.voice import COALESCE_SIZE, MOST_AT_ONCE, Voice, listen
from schemas.record import Delta

WITHIN = 5.0


class Mouth:
    """Hears what is said; stores it when it is let."""

    def __init__(self) -> None:
        self.said: list[Delta] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Semaphore(0)
        self.fenced = False

    async def say(self, piece: Delta, text: str) -> None:
        self.begun.release()
        await self.gate.wait()
        if self.fenced:
            raise Fenced("somebody else holds the run")
        self.said.append(
            Delta(text=text, kind=piece.kind, index=piece.index, call=piece.call, name=piece.name)
        )


def text(words: str) -> Delta:
    return Delta(text=words)


async def test_the_first_piece_is_said_at_once_and_what_comes_meanwhile_as_one() -> None:
    mouth = Mouth()
    mouth.gate.clear()
    voice = Voice(mouth)
    await voice.add(text("a"))
    async with asyncio.timeout(WITHIN):
        await mouth.begun.acquire()
    for word in "bcd":
        await voice.add(text(word))
    mouth.gate.set()
    await voice.drain()

    assert [delta.text for delta in mouth.said] == ["a", "bcd"]


async def test_kinds_and_calls_keep_their_order_and_are_never_mixed() -> None:
    mouth = Mouth()
    mouth.gate.clear()
    voice = Voice(mouth)
    pieces = [
        text("a"),
        Delta(text="b", kind="reasoning"),
        Delta(text="c", kind="reasoning"),
        Delta(text="d"),
        Delta(text="", kind="tool", call="1", name="f"),
        Delta(text="e", kind="tool"),
        Delta(text="f", kind="tool", call="1"),
        Delta(text="g", kind="tool", index=1),
        Delta(text="", kind="tool", index=1, call="2", name="f"),
    ]
    for piece in pieces:
        await voice.add(piece)
    mouth.gate.set()
    await voice.drain()

    assert mouth.said == [
        text("a"),
        Delta(text="bc", kind="reasoning"),
        text("d"),
        Delta(text="ef", kind="tool", call="1", name="f"),
        Delta(text="g", kind="tool", index=1),
        Delta(text="", kind="tool", index=1, call="2", name="f"),
    ]


async def test_enough_to_say_is_not_kept_waiting() -> None:
    mouth = Mouth()
    voice = Voice(mouth)
    await voice.add(text("a"))
    async with asyncio.timeout(WITHIN):
        await mouth.begun.acquire()
    voice._last += 3600  # what was said last was an hour from now: waiting would last as long
    await voice.add(text("b"))
    await asyncio.sleep(0)
    await voice.add(text("x" * COALESCE_SIZE))
    async with asyncio.timeout(WITHIN):
        await mouth.begun.acquire()

    assert [len(delta.text) for delta in mouth.said] == [1, COALESCE_SIZE + 1]


async def test_what_is_left_at_the_end_is_not_kept_waiting() -> None:
    mouth = Mouth()
    voice = Voice(mouth)
    await voice.add(text("a"))
    async with asyncio.timeout(WITHIN):
        await mouth.begun.acquire()
    voice._last += 3600
    await voice.add(text("b"))
    await asyncio.sleep(0)
    async with asyncio.timeout(WITHIN):
        await voice.drain()

    assert [delta.text for delta in mouth.said] == ["a", "b"]


async def test_who_speaks_faster_than_is_stored_has_to_wait() -> None:
    mouth = Mouth()
    mouth.gate.clear()
    voice = Voice(mouth)
    long = asyncio.create_task(voice.add(text("x" * 3 * MOST_AT_ONCE)))
    async with asyncio.timeout(WITHIN):
        await mouth.begun.acquire()
    waiting = not long.done()
    mouth.gate.set()
    async with asyncio.timeout(WITHIN):
        await long
        await voice.drain()

    assert waiting
    assert sum(len(delta.text) for delta in mouth.said) == 3 * MOST_AT_ONCE
    assert max(len(delta.text) for delta in mouth.said) < 2 * MOST_AT_ONCE


@pytest.mark.promise("AC-07")
async def test_who_is_refused_a_word_says_no_more_and_is_closed() -> None:
    mouth = Mouth()
    mouth.fenced = True
    closed: list[bool] = []

    async def speak() -> AsyncGenerator[Delta, None]:
        try:
            while True:
                yield text("x")
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    with pytest.raises(Fenced):
        async with asyncio.timeout(WITHIN):
            await listen(speak(), mouth)

    assert closed == [True]
    assert mouth.said == []
