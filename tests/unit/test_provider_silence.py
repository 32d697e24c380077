"""How long a provider may be silent, and what counts as silence."""

import asyncio
from typing import Any

import pytest

from actors.models import exchange
from actors.models.events import Ended, Timeouts
from actors.models.openai import OpenAI
from tests.unit.provider_double import PATIENCE, Wire, call, doubled, outcome_of, plain_client

HI = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
SHORT = 0.2


def short(**changes: float) -> Timeouts:
    given = {"connect": PATIENCE, "first": PATIENCE, "idle": PATIENCE, "pool": PATIENCE}
    return Timeouts(**given | changes)


async def silent(wire: Wire) -> None:
    await wire.gone()


async def silent_behind_its_head(wire: Wire) -> None:
    await wire.head()
    await wire.gone()


async def only_alive(wire: Wire) -> None:
    await wire.head()
    while True:
        await wire.chunk(b": keep-alive\n\n")
        await asyncio.sleep(SHORT / 20)


@pytest.mark.parametrize("answer", [silent, silent_behind_its_head, only_alive])
async def test_no_piece_for_too_long_is_a_timeout(answer: Any) -> None:
    outcome = await outcome_of(OpenAI(), answer, timeouts=short(first=SHORT))

    assert outcome.code == "timeout"
    assert outcome.fault is not None
    assert outcome.fault.reason.endswith("said nothing for 0.2 s")


async def test_silence_between_pieces_is_a_timeout() -> None:
    async def answer(wire: Wire) -> None:
        await wire.head()
        await wire.chunk(HI)
        await wire.gone()

    outcome = await outcome_of(OpenAI(), answer, timeouts=short(idle=SHORT))

    assert (outcome.text, outcome.code) == ("hi", "timeout")
    assert outcome.fault is not None
    assert outcome.fault.reason.endswith("said nothing more for 0.2 s")


async def test_signs_of_life_keep_an_answer_alive_that_is_silent_for_longer_than_idle() -> None:
    async def answer(wire: Wire) -> None:
        await wire.head()
        await wire.chunk(HI)
        for _ in range(20):
            await wire.chunk(b": keep-alive\n\n")
            await asyncio.sleep(SHORT / 5)
        await wire.chunk(HI + STOP + DONE)
        await wire.end()

    outcome = await outcome_of(OpenAI(), answer, timeouts=short(idle=SHORT))

    assert outcome.text == "hihi"


async def test_signs_of_life_do_not_keep_it_for_ever() -> None:
    async def answer(wire: Wire) -> None:
        await wire.head()
        await wire.chunk(HI)
        while True:
            await wire.chunk(b": keep-alive\n\n")
            await asyncio.sleep(SHORT / 20)

    outcome = await outcome_of(OpenAI(), answer, timeouts=short(first=2 * SHORT, idle=SHORT))

    assert outcome.code == "timeout"
    assert outcome.fault is not None
    assert outcome.fault.reason.endswith("gave nothing but signs of life for 0.4 s")


async def test_time_that_we_take_ourselves_does_not_count() -> None:
    async def answer(wire: Wire) -> None:
        await wire.head()
        await wire.chunk(HI)
        await wire.chunk(HI + STOP + DONE)
        await wire.end()

    async with doubled(answer) as double, plain_client() as client:
        question = call(client, double.url, timeouts=short(first=SHORT, idle=SHORT))
        pieces = []
        async for event in OpenAI().stream(question):
            await asyncio.sleep(2 * SHORT)
            pieces.append(event)

    assert pieces[-1] == Ended("stop")


async def test_a_whole_answer_does_not_wait_long_for_an_end_that_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "TAIL", SHORT)

    async def answer(wire: Wire) -> None:
        await wire.head()
        await wire.chunk(HI + STOP)
        while True:
            await wire.chunk(b": keep-alive\n\n")
            await asyncio.sleep(SHORT / 20)

    assert (await outcome_of(OpenAI(), answer)).last == Ended("stop")


async def test_a_server_that_does_not_end_after_the_end_does_not_hold_us() -> None:
    async def answer(wire: Wire) -> None:
        await wire.head()
        await wire.chunk(HI + STOP + DONE)
        await wire.gone()

    assert (await outcome_of(OpenAI(), answer)).last == Ended("stop")
