"""A job is done although those who held it died, and although the server forgot who they were."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, ClassVar

import msgspec
import pytest

from runtime import Actor, Turn, Work, Worker, handler
from runtime.bus import expiry
from runtime.pull import ensure_consumer
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address, Job, Message, Request, Topic
from schemas.envelope import encode
from schemas.record import Delta, RunRecord, RunSuperseded
from tests.integration.waiting import until, until_known

BOSS = Address("boss", "b")
TOPIC = Topic("boss", "b")
ONE_SECOND = 1_000_000_000


class Done(Message, tag="digger.done"):
    """The result of a job, and which attempt brought it."""

    attempt: int


class Dig(Job[Done], tag="digger.dig"):
    """Work until told to end; silently."""


class Report(Job[Done], tag="digger.report"):
    """Work until told to end; with a word before."""


class Started(Message, tag="boss.started"):
    """The run of the job."""

    run: str


class Start(Request[Started], tag="boss.start"):
    """Start a job."""

    aloud: bool


class BossState(msgspec.Struct):
    """Nothing."""


class Boss(Actor):
    """Gives jobs and says when they are done."""

    state: BossState

    @handler
    def start(self, message: Start, ctx: Turn) -> Started:
        job = Report() if message.aloud else Dig()
        return Started(run=ctx.start(Address("digger", ctx.key), job, topic=TOPIC))

    @handler
    def hear(self, message: Done, ctx: Turn) -> None:
        ctx.emit(TOPIC, message)


class Digger(Worker):
    """Works until it is told to end."""

    told_to_end: ClassVar[asyncio.Event]

    @handler
    async def dig(self, job: Dig, ctx: Work) -> Done:
        await self.told_to_end.wait()
        return Done(attempt=ctx.attempt)

    @handler
    async def report(self, job: Report, ctx: Work) -> AsyncIterator[Any]:
        yield Delta(text="at it")
        await self.told_to_end.wait()
        yield Done(attempt=ctx.attempt)


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    Digger.told_to_end = asyncio.Event()
    async with running(boss=Boss, digger=Digger) as kit:
        yield kit


async def claim_and_die(kit: Kit, run: str) -> None:
    """Do what a host does that claims a run, and is never heard of again."""
    record = RunRecord(job="digger/b", state="claimed", attempt=1, host="dead")
    headers = {"Nats-Rollup": "sub", **expiry(timedelta(hours=1))}
    await kit.bus.publish(subjects.run(run), encode(record), headers=headers)


async def wait_less_for_acks(kit: Kit) -> None:
    """Have the server deliver again after a second what is not settled."""
    name, work = subjects.work_consumer("digger", 1), subjects.all_work("digger", 1)
    await ensure_consumer(kit.bus, name, filter_subject=work, ack_wait=ONE_SECOND)


@pytest.mark.parametrize("aloud", [True, False])
async def test_a_claimed_job_is_done_though_the_server_forgot_that_it_was_delivered(
    kit: Kit, aloud: bool
) -> None:
    Digger.told_to_end.set()
    await kit.host.pools["digger"].stop()
    started = await kit.ask(BOSS, Start(aloud=aloud))
    await claim_and_die(kit, started.run)
    await kit.stop_host()
    await kit.start_host()
    await wait_less_for_acks(kit)
    done = await kit.event(TOPIC, Done)

    assert done.attempt == 2


async def test_an_attempt_that_lost_its_run_to_one_that_died_leaves_the_job_to_the_next(
    kit: Kit,
) -> None:
    started = await kit.ask(BOSS, Start(aloud=False))
    await until(lambda: kit.host.pools["digger"].running)
    await wait_less_for_acks(kit)
    await claim_and_die(kit, started.run)
    Digger.told_to_end.set()
    done = await kit.event(TOPIC, Done)

    assert done.attempt == 2


async def test_a_job_in_hand_that_is_delivered_again_goes_on_undisturbed(kit: Kit) -> None:
    await kit.ask(BOSS, Start(aloud=True))
    await kit.event(TOPIC, Delta)
    await wait_less_for_acks(kit)
    await until_known(lambda: delivered_again(kit))
    Digger.told_to_end.set()
    done = await kit.event(TOPIC, Done)
    await kit.settled()
    superseded = await kit.events(TOPIC, RunSuperseded)

    assert done.attempt == 1
    assert superseded == []


async def delivered_again(kit: Kit) -> bool:
    """Whether a job was delivered more than once and is not settled."""
    name = subjects.work_consumer("digger", 1)
    info = await kit.bus.api(f"CONSUMER.INFO.{kit.bus.stream}.{name}")
    return bool(info["num_redelivered"])
