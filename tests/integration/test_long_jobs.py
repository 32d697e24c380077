"""Jobs that last longer than a message may be in hand: one attempt, however long it takes."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

import runtime.pull
import runtime.run
import runtime.worker
from runtime import Actor, Turn, Work, Worker, handler
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address, Job, Message, Topic
from schemas.record import Delta, RunStarted, RunSuperseded

TOPIC = Topic("talk", "t")
ACK_WAIT = 1.0
"""Seconds, where there are thirty outside of tests."""
LONG = 3.5 * ACK_WAIT


class Spoken(Message, tag="narrator.spoken"):
    attempt: int


class Speak(Job[Spoken], tag="narrator.speak"): ...


class Begin(Message, tag="listener.begin"): ...


class ListenerState(msgspec.Struct):
    heard: int = 0


class Listener(Actor):
    """Has a story told."""

    state: ListenerState

    @handler
    def begin(self, message: Begin, ctx: Turn) -> None:
        ctx.start(Address("narrator", ctx.key), Speak(), topic=TOPIC)

    @handler
    def hear(self, message: Spoken, ctx: Turn) -> None:
        self.state.heard += 1
        ctx.emit(TOPIC, message)


class Narrator(Worker):
    """Tells a story that is longer than several times what a server waits for an answer."""

    calls = 0
    gate: asyncio.Event

    @handler
    async def speak(self, job: Speak, ctx: Work) -> AsyncIterator[Delta | Spoken]:
        Narrator.calls += 1
        loop = asyncio.get_running_loop()
        until = loop.time() + LONG
        while loop.time() < until:
            yield Delta(text="and then ")
            await asyncio.sleep(0.05)
        yield Delta(text="nearly", kind="reasoning")
        await Narrator.gate.wait()
        yield Spoken(attempt=ctx.attempt)


async def in_hand(kit: Kit) -> tuple[int, int]:
    """How many jobs are in somebody's hands, and how many of those were delivered again."""
    consumer = subjects.work_consumer("narrator", 1)
    info = await kit.bus.api(f"CONSUMER.INFO.{kit.bus.stream}.{consumer}")
    return info["num_ack_pending"], info["num_redelivered"]


@pytest.mark.promise("AC-16")
@pytest.mark.promise("AC-48")
async def test_who_speaks_for_several_times_the_wait_for_an_answer_speaks_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a second host at hand, which would take what comes again."""
    monkeypatch.setattr(runtime.pull, "ACK_WAIT", ACK_WAIT)
    monkeypatch.setattr(runtime.run, "OVERDUE", ACK_WAIT)
    monkeypatch.setattr(runtime.worker, "HEARTBEAT", ACK_WAIT / 4)
    Narrator.calls, Narrator.gate = 0, asyncio.Event()
    async with running(listener=Listener, narrator=Narrator) as kit:
        first = kit.host
        await kit.start_host()
        try:
            await kit.tell(Address("listener", "l"), Begin())
            async with asyncio.timeout(4 * LONG):
                while (await kit.event(TOPIC, Delta, timeout=LONG)).kind != "reasoning":
                    pass
            held = await in_hand(kit)
            Narrator.gate.set()
            spoken = await kit.event(TOPIC, Spoken)
            await kit.settled()
        finally:
            await first.stop()
            await first.bus.link.close()
        started = await kit.events(TOPIC, RunStarted)
        superseded = await kit.events(TOPIC, RunSuperseded)
        said = await kit.events(TOPIC, Delta)
        ends = await kit.events(TOPIC, Spoken)

    assert held == (1, 0)
    assert (Narrator.calls, spoken.attempt, len(ends)) == (1, 1, 1)
    assert ([one.attempt for one in started], superseded) == ([1], [])
    assert [delta.n for delta in said] == list(range(1, len(said) + 1))
