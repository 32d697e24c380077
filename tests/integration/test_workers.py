"""Jobs: each a run, held by one attempt at a time, which alone may speak and end it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import ClassVar

import msgspec
import pytest

from runtime import Actor, Reject, Retry, Turn, Work, Worker, handler
from runtime.ask import Origin
from runtime.bus import Outgoing
from runtime.run import decode_run
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address, Job, Message, Request, Topic, token
from schemas.deployment import Deployment
from schemas.envelope import decode_any, encode
from schemas.record import Delta, RunFailed, RunRecord, RunStarted, RunSuperseded

HERE = Address("boss", "b")
TOPIC = Topic("boss", "b")


class Did(Message, tag="hand.did"):
    what: str
    attempt: int = 1


class Do(Job[Did], tag="hand.do"):
    what: str
    fail: int = 0
    how: str = "raise"


class Speak(Job[Did], tag="hand.speak"):
    pieces: int
    fail: int = 0
    forever: bool = False


class Hold(Job[Did], tag="hand.hold"): ...


class Given(Message, tag="boss.given"):
    run: str


class Give(Request[Given], tag="boss.give"):
    job: Do | Speak | Hold
    priority: int = 1
    expires_in: float | None = None


class Halt(Request[Given], tag="boss.halt"):
    run: str


class BossState(msgspec.Struct):
    did: list[Did] = []
    failed: list[RunFailed] = []


class Boss(Actor):
    """Gives jobs and notes how they went."""

    state: BossState

    @handler
    def give(self, message: Give, ctx: Turn) -> Given:
        after = message.expires_in
        expires = None if after is None else ctx.now + timedelta(seconds=after)
        hand = Address("hand", ctx.key)
        run = ctx.start(hand, message.job, priority=message.priority, topic=TOPIC, expires=expires)
        return Given(run=run)

    @handler
    def halt(self, message: Halt, ctx: Turn) -> Given:
        ctx.stop(message.run, "halted")
        ctx.emit(TOPIC, Given(run=message.run))
        return Given(run=message.run)

    @handler
    def note(self, message: Did, ctx: Turn) -> None:
        self.state.did.append(message)
        ctx.emit(TOPIC, message)

    @handler
    def note_failure(self, message: RunFailed, ctx: Turn) -> None:
        self.state.failed.append(message)
        ctx.emit(TOPIC, message)


class Hand(Worker):
    """Does what it is told, as badly as it is told."""

    running = 0
    most = 0
    order: ClassVar[list[str]] = []
    gate: asyncio.Event = asyncio.Event()
    begun: asyncio.Semaphore = asyncio.Semaphore(0)

    async def on_start(self) -> None:
        Hand.running = Hand.most = 0
        Hand.order = []
        Hand.gate = asyncio.Event()
        Hand.begun = asyncio.Semaphore(0)

    @handler
    async def do(self, job: Do, ctx: Work) -> Did:
        Hand.order.append(job.what)
        if ctx.attempt <= job.fail:
            if job.how == "reject":
                raise Reject("IMPOSSIBLE", "never")
            raise Retry("busy", after=timedelta(milliseconds=10))
        return Did(what=job.what, attempt=ctx.attempt)

    @handler
    async def speak(self, job: Speak, ctx: Work) -> AsyncIterator[Delta | Did]:
        for n in range(job.pieces):
            yield Delta(text=f"{n} ")
            if n == 2 and ctx.attempt <= job.fail:
                raise Retry("lost the thread", after=timedelta(milliseconds=10))
        while job.forever:
            yield Delta(text="x" * 1100)
        yield Did(what="spoke", attempt=ctx.attempt)

    @handler
    async def hold(self, job: Hold, ctx: Work) -> Did:
        Hand.running += 1
        Hand.most = max(Hand.most, Hand.running)
        Hand.begun.release()
        await Hand.gate.wait()
        Hand.running -= 1
        return Did(what="held")


def hands(concurrency: int = 16, **more: object) -> tuple[type[Hand], Deployment]:
    fields = {"name": "hand", "type": "-", "kind": "worker", "concurrency": concurrency, **more}
    return Hand, msgspec.convert(fields, Deployment, strict=False)


async def read_run(kit: Kit, run: str) -> RunRecord:
    stored = await kit.bus.last(subjects.run(run))
    assert stored is not None
    return decode_run(stored.data)


async def test_a_job_is_done_once_and_its_run_is_finished() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        given = await kit.ask(HERE, Give(job=Do(what="dishes")))
        did = await kit.event(TOPIC, Did)
        record = await read_run(kit, given.run)

    assert did == Did(what="dishes")
    assert record.state == "finished"


async def test_an_attempt_that_fails_is_made_again_and_counted() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        await kit.ask(HERE, Give(job=Do(what="dishes", fail=2)))
        did = await kit.event(TOPIC, Did)

    assert did.attempt == 3


async def test_after_the_last_attempt_the_sender_is_told_and_a_dead_letter_kept() -> None:
    async with running(boss=Boss, hand=hands(attempts=3)) as kit:
        given = await kit.ask(HERE, Give(job=Do(what="dishes", fail=99)))
        failed = await kit.event(TOPIC, RunFailed)
        letters = await kit.dead_letters()

    assert (failed.run, failed.reason, failed.attempts) == (given.run, "busy", 3)
    assert [letter.attempts for letter in letters] == [3]


async def test_a_job_that_is_rejected_is_not_tried_again() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        await kit.ask(HERE, Give(job=Do(what="dishes", fail=9, how="reject")))
        failed = await kit.event(TOPIC, RunFailed)

    assert failed.reason == "IMPOSSIBLE: never"
    assert failed.attempts == 1


async def test_a_job_past_its_deadline_is_not_done() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        await kit.ask(HERE, Give(job=Do(what="dishes"), expires_in=-1))
        failed = await kit.event(TOPIC, RunFailed)
        done = list(Hand.order)

    assert "deadline" in failed.reason
    assert done == []


async def test_an_attempt_that_takes_too_long_fails() -> None:
    async with running(boss=Boss, hand=hands(attempts=1, deadline=0.1)) as kit:
        await kit.ask(HERE, Give(job=Hold()))
        failed = await kit.event(TOPIC, RunFailed)

    assert failed.reason.startswith("no result within")


async def test_never_more_jobs_at_once_than_slots() -> None:
    async with running(boss=Boss, hand=hands(concurrency=3)) as kit:
        await asyncio.gather(
            *(kit.ask(Address("boss", f"b{n}"), Give(job=Hold())) for n in range(12))
        )
        for _ in range(3):
            await Hand.begun.acquire()
        Hand.gate.set()
        await kit.settled()
        events = await kit.events(TOPIC, Did)
        most = Hand.most

    assert most == 3
    assert len(events) == 12


@pytest.mark.promise("CB-33")
async def test_urgent_jobs_are_done_first() -> None:
    async with running(boss=Boss, hand=hands(concurrency=1)) as kit:
        await kit.ask(HERE, Give(job=Hold()))
        await Hand.begun.acquire()
        for priority, what in ((2, "later"), (1, "next"), (0, "now")):
            await kit.ask(HERE, Give(job=Do(what=what), priority=priority))
        Hand.gate.set()
        await kit.settled()
        order = list(Hand.order)

    assert order == ["now", "next", "later"]


async def test_what_is_yielded_is_heard_in_order_before_the_result() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        given = await kit.ask(HERE, Give(job=Speak(pieces=50)))
        await kit.event(TOPIC, Did)
        started = await kit.events(TOPIC, RunStarted)
        deltas = await kit.events(TOPIC, Delta)

    assert [(s.run, s.attempt) for s in started] == [(given.run, 1)]
    assert "".join(d.text for d in deltas) == "".join(f"{n} " for n in range(50))
    assert [d.n for d in deltas] == list(range(1, len(deltas) + 1))


async def test_a_new_attempt_supersedes_the_old_one_and_starts_over() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        await kit.ask(HERE, Give(job=Speak(pieces=6, fail=1)))
        did = await kit.event(TOPIC, Did)
        superseded = await kit.events(TOPIC, RunSuperseded)
        deltas = await kit.events(TOPIC, Delta)

    assert did.attempt == 2
    assert [s.attempt for s in superseded] == [2]
    assert "".join(d.text for d in deltas if d.attempt == 2) == "0 1 2 3 4 5 "


async def test_after_a_stop_the_broker_itself_refuses_every_further_word() -> None:
    """Twenty runs at full speed: nothing of a run is stored behind its stop."""
    async with running(boss=Boss, hand=hands()) as kit:
        for _ in range(20):
            given = await kit.ask(HERE, Give(job=Speak(pieces=1, forever=True)))
            started = await kit.event(TOPIC, RunStarted)
            for _ in range(3):
                await kit.event(TOPIC, Delta)
            await kit.ask(HERE, Halt(run=given.run))
            stop = await kit.bus.last(subjects.run(given.run))
            await _wait_until_idle(kit)
            assert stop is not None
            assert decode_run(stop.data).state == "stopped"
            said = await _words(kit, given.run)
            assert started.run == given.run
            assert said
            assert max(said) < stop.seq


async def _words(kit: Kit, run: str) -> list[int]:
    found = await kit.bus.read_all(subjects.event(TOPIC), after=0)
    envelopes = [(s.seq, decode_any(s.data)) for s in found]
    return [seq for seq, e in envelopes if e.runid == run and e.type == "run.delta"]


async def _wait_until_idle(kit: Kit) -> None:
    """The run's attempt is over once the broker has refused it a word."""
    if running := list(kit.host.pools["hand"].running):
        await asyncio.wait(running, timeout=10)
    assert not kit.host.pools["hand"].running


async def test_a_job_whose_run_is_gone_or_ended_is_dropped() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        given = await kit.ask(HERE, Give(job=Do(what="once")))
        await kit.event(TOPIC, Did)
        job = (await kit.bus.read_all(subjects.all_work("hand", 1), after=0))[0]
        await kit.bus.publish(job.subject, job.data)
        await kit.settled()
        events = await kit.events(TOPIC, Did)
        record = await read_run(kit, given.run)

    assert len(events) == 1
    assert record.state == "finished"


async def test_a_job_nobody_can_read_becomes_a_dead_letter() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        await kit.bus.publish(subjects.work("hand", 1, "x"), b'{"data":{"type":"odd"}}')
        await kit.settled()
        letters = await kit.dead_letters()

    assert len(letters) == 1
    assert letters[0].reason.startswith("unreadable")


async def test_a_job_in_hand_when_its_host_stops_is_done_by_the_next() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        await kit.ask(HERE, Give(job=Hold()))
        await Hand.begun.acquire()
        await kit.stop_host(grace=0.05)
        await kit.start_host()
        Hand.gate.set()
        did = await kit.event(TOPIC, Did)
        events = await kit.events(TOPIC, Did)

    assert did.what == "held"
    assert len(events) == 1


async def test_the_committer_keeps_lanes_of_one_run_apart() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        run = RunRecord(job="x")
        subject = subjects.run("lane")
        messages = [Outgoing(subject, encode(run), {"Nats-Rollup": "sub"})]
        submit = kit.host.system.committer.submit
        sequences = await asyncio.gather(*(submit(messages, subject) for _ in range(5)))

    assert sequences == sorted(set(sequences))


async def test_a_repeated_request_starts_no_second_job() -> None:
    async with running(boss=Boss, hand=hands()) as kit:
        origin = Origin(id="once", bodyhash="h")
        runs = {(await kit.ask(HERE, Give(job=Do(what="x")), origin=origin)).run for _ in "abc"}
        await kit.settled()
        events = await kit.events(TOPIC, Did)

    assert len(runs) == 1
    assert len(events) == 1
    assert token(runs.pop())
