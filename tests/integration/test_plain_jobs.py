"""Jobs without a run, as any NATS client may send them: done at least once, and answered."""

import asyncio
from typing import ClassVar

import msgspec

from runtime import Actor, Reject, Retry, Turn, Work, Worker, handler
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Job, Message, Topic
from schemas.deployment import Deployment
from schemas.envelope import decode_any, encode, seal
from schemas.record import Delta, RunFailed

TOPIC = Topic("asker", "a")


class Doubled(Message, tag="plain.doubled"):
    n: int
    tries: int = 1


class Double(Job[Doubled], tag="plain.double"):
    n: int
    fail: int = 0
    reject: bool = False


class Recite(Job[Doubled], tag="plain.recite"): ...


class AskerState(msgspec.Struct):
    n: int = 0


class Asker(Actor):
    """Only hears what came of it."""

    state: AskerState

    @handler
    def hear(self, message: Doubled, ctx: Turn) -> None:
        ctx.emit(TOPIC, message)

    @handler
    def hear_failure(self, message: RunFailed, ctx: Turn) -> None:
        ctx.emit(TOPIC, message)


class Doubler(Worker):
    """Doubles numbers; the runs that its handlers were told of are noted."""

    seen: ClassVar[list[str]] = []

    @handler
    async def double(self, job: Double, ctx: Work) -> Doubled:
        Doubler.seen.append(ctx.run)
        if job.reject:
            raise Reject("ODD", "never")
        if ctx.attempt <= job.fail:
            raise Retry("busy")
        return Doubled(n=2 * job.n, tries=ctx.attempt)

    @handler
    async def recite(self, job: Recite, ctx: Work):  # type: ignore[no-untyped-def]  # an async generator
        yield Delta(text="one")
        yield Doubled(n=0)


ALL_BUSY = Deployment(name="doubler", type="tests:Doubler", kind="worker", attempts=2)


async def send(kit: Kit, job: Message, *, source: str = "asker/a", **facts: str) -> None:
    sealed = encode(seal(job, id="1", source=source, subject="k", **facts))
    await kit.bus.publish(subjects.work("doubler", 1, "k"), sealed)


async def test_a_job_without_a_run_is_done_and_its_source_is_told() -> None:
    async with running(asker=Asker, doubler=Doubler) as kit:
        await send(kit, Double(n=21))
        did = await kit.event(TOPIC, Doubled)
        await kit.settled()
        mail = await kit.bus.read_all("mail.*.asker.*", after=0)
        runs = await kit.bus.read_all("run.*", after=0)

    assert did == Doubled(n=42)
    assert [decode_any(one.data).runid for one in mail] == [""]
    assert runs == []


async def test_one_that_fails_is_tried_again_under_the_same_name() -> None:
    async with running(asker=Asker, doubler=Doubler) as kit:
        Doubler.seen = []
        await send(kit, Double(n=1, fail=1))
        did = await kit.event(TOPIC, Doubled)

    assert did == Doubled(n=2, tries=2)
    assert len(Doubler.seen) == 2
    assert len(set(Doubler.seen)) == 1


async def test_one_that_is_refused_becomes_a_dead_letter_and_its_source_is_told() -> None:
    async with running(asker=Asker, doubler=Doubler) as kit:
        await send(kit, Double(n=1, reject=True))
        failed = await kit.event(TOPIC, RunFailed)
        letters = await kit.dead_letters()

    assert failed.reason == "ODD: never"
    assert [letter.reason for letter in letters] == ["ODD: never"]


async def test_one_that_always_fails_is_given_up_after_as_many_attempts_as_any() -> None:
    async with running(asker=Asker, doubler=(Doubler, ALL_BUSY)) as kit:
        Doubler.seen = []
        await send(kit, Double(n=1, fail=10**6))
        failed = await kit.event(TOPIC, RunFailed, timeout=30)
        await kit.settled()
        letters = await kit.dead_letters()

    assert (failed.reason, failed.attempts) == ("busy", 2)
    assert [(letter.reason, letter.attempts) for letter in letters] == [("busy", 2)]
    assert len(Doubler.seen) == 2


async def test_without_a_source_the_job_is_done_all_the_same() -> None:
    async with running(asker=Asker, doubler=Doubler) as kit:
        Doubler.seen = []
        await send(kit, Double(n=1), source="")
        await kit.settled()
        found = await kit.bus.read_all("mail.>", after=0)

    assert len(Doubler.seen) == 1
    assert found == []


async def test_what_it_says_on_the_way_is_not_heard_for_no_fence_could_stop_it() -> None:
    async with running(asker=Asker, doubler=Doubler) as kit:
        await send(kit, Recite(), topic=str(TOPIC))
        await kit.event(TOPIC, Doubled)
        await kit.settled()
        said = await kit.events(TOPIC, Delta)

    assert said == []


async def test_a_thousand_at_once_are_each_answered() -> None:
    async with running(asker=Asker, doubler=Doubler) as kit:
        async with asyncio.timeout(20):
            await asyncio.gather(*(send(kit, Double(n=n)) for n in range(1000)))
            await kit.settled()
        mail = await kit.bus.read_all("mail.*.asker.*", after=0)

    assert sorted(msgspec.json.decode(one.data)["data"]["n"] for one in mail) == [
        2 * n for n in range(1000)
    ]
