"""What a buggy handler or a stranger on the bus may try: one message pays, nobody else."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
import pytest

from runtime import Actor, Reject, Turn, Work, Worker, handler
from runtime.bus import expiry, new_id
from runtime.errors import AskTimeout, Refused
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address, Job, Message, Request
from schemas.deployment import Deployment
from schemas.envelope import encode, seal
from tests.integration.counter import HERE, Add, Counter, Get


class Done(Message, tag="odd.done"):
    n: int = 0


class Do(Request[Done], tag="odd.do"):
    what: str


class Dig(Job[Done], tag="digger.dig"):
    n: int


class Start(Request[Done], tag="odd.start"):
    n: int
    stop: bool = False


def refuse_at_length(ctx: Turn) -> None:
    raise Reject("NO", "x" * 1_200_000)


def fail_at_length(ctx: Turn) -> None:
    raise ValueError("\0" * 300_000)


def cancel(ctx: Turn) -> None:
    raise asyncio.CancelledError


def send_too_much(ctx: Turn) -> None:
    for n in range(10):
        ctx._send(f"event.odd.{n}", b"x" * 200_000, {})


def remind_too_often(ctx: Turn) -> None:
    for n in range(600):
        ctx.remind(f"r{n}", Done(), after=timedelta(hours=1))


MISDEEDS: dict[str, Callable[[Turn], None]] = {
    "long reason": refuse_at_length,
    "long error": fail_at_length,
    "cancel": cancel,
    "bad header": lambda ctx: ctx._send("event.odd.x", b"{}", {"Nats-TTL": "-5s"}),
    "too many bytes": send_too_much,
    "too late a reminder": lambda ctx: ctx.remind("far", Done(), after=timedelta(days=400)),
    "too many reminders": remind_too_often,
}


class OddState(msgspec.Struct):
    n: int = 0
    run: str = ""


class Odd(Actor):
    """Does what no handler should."""

    state: OddState

    @handler
    def do(self, message: Do, ctx: Turn) -> Done:
        self.state.n += 1
        if message.what != "well":
            MISDEEDS[message.what](ctx)
        return Done(n=self.state.n)

    @handler
    def start(self, message: Start, ctx: Turn) -> Done:
        if message.stop:
            ctx.stop(self.state.run, "not wanted")
        else:
            self.state.run = ctx.start(Address("digger", ctx.key), Dig(n=message.n))
        return Done()

    @handler
    def note(self, message: Done, ctx: Turn) -> None: ...


class Digger(Worker):
    """Digs, and remembers what it was called for."""

    async def on_start(self) -> None:
        self.called: list[int] = []
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()

    @handler
    async def dig(self, job: Dig, ctx: Work) -> Done:
        self.called.append(job.n)
        self.begun.set()
        await self.gate.wait()
        return Done(n=job.n)


ODD = Address("odd", "a")


@pytest.mark.promise("AC-09")
@pytest.mark.parametrize(
    "body", [b'"' * 700_000, b"\xff" * 700_000, b"\0" * 500_000, b"x" * 1_000_000]
)
async def test_a_huge_unreadable_message_becomes_a_dead_letter_of_its_own(body: bytes) -> None:
    async with running(counter=Counter) as kit:
        await kit.bus.publish(subjects.mail(HERE), body)
        answer = await kit.ask(HERE, Add(n=1))
        letters = await kit.dead_letters()

    assert answer.n == 1
    assert len(letters) == 1


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("long reason", "NO", ""),
        ("long error", "handler_failed", "ValueError"),
        ("cancel", "handler_failed", "CancelledError"),
        ("bad header", "handler_failed", "cannot be stored"),
        ("too many bytes", "handler_failed", "at most 921600 bytes"),
        ("too late a reminder", "handler_failed", "longer lifetime"),
        ("too many reminders", "handler_failed", "more than 500 reminders"),
    ],
)
async def test_a_handler_that_goes_too_far_pays_with_its_own_message(
    what: str, code: str, said: str
) -> None:
    async with running(odd=Odd) as kit:
        with pytest.raises(Refused) as refused:
            await kit.ask(ODD, Do(what=what), timeout=20)
        answer = await kit.ask(ODD, Do(what="well"))
        reasons = [letter.reason for letter in await kit.dead_letters()]
        failed = kit.host.failed.done()

    assert refused.value.refusal.code == code
    assert len(refused.value.refusal.detail) < 2000
    assert answer.n == 1
    assert all(said in reason and len(reason) < 3000 for reason in reasons)
    assert bool(reasons) == bool(said)
    assert not failed


async def test_one_bad_turn_of_several_is_found_and_the_others_are_kept() -> None:
    async with running(odd=Odd) as kit:
        await kit.stop_host()
        for what in ("well", "bad header", "well"):
            await kit.tell(ODD, Do(what=what))
        await kit.start_host()
        await kit.settled(20)
        state = await kit.state(ODD)
        letters = await kit.dead_letters()

    assert state.n == 2
    assert len(letters) == 1


async def test_very_many_long_refusals_fit_the_record() -> None:
    async with running(odd=Odd) as kit:
        for _ in range(300):
            with pytest.raises(Refused):
                await kit.ask(ODD, Do(what="long reason"))
        stored = await kit.bus.last(subjects.state("odd", "a"))

    assert stored is not None
    assert len(stored.data) < 200_000


@pytest.mark.parametrize("name", ["Nats-Pin-Id", "X"])
async def test_a_forged_pin_does_not_block_a_shard(name: str) -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Add(n=1))
        value = "evil" if name == "Nats-Pin-Id" else "Nats-Pin-Id: evil"
        forged = encode(seal(Add(n=2), id="forged", source="x", subject="a"))
        await kit.bus.publish(subjects.mail(HERE), forged, headers={name: value})
        answer = await kit.ask(HERE, Get())

    assert answer.n == 3


async def test_a_repeat_that_waits_in_the_same_turn_is_applied_once() -> None:
    async with running(counter=Counter) as kit:
        await kit.stop_host()
        for _ in range(2):
            # Without a message id, as after the broker's window for duplicates.
            await kit.tell(HERE, Add(n=5), id="one", replyto="_INBOX.nobody", bodyhash="h")
        await kit.start_host()
        await kit.settled()
        state = await kit.state(HERE)

    assert state.n == 5


async def test_an_instance_with_work_is_never_evicted() -> None:
    keys = [k for n in range(400) if subjects.shard_of("counter", k := f"k{n}") == 3][:12]
    async with running(counter=Counter) as kit:
        kit.host.system.idle.limit = 1
        await asyncio.gather(
            *(kit.tell(Address("counter", key), Add(n=1)) for key in keys for _ in range(5))
        )
        await kit.settled()
        states = [await kit.state(Address("counter", key)) for key in keys]

    assert [state.n for state in states] == [5] * len(keys)


@pytest.mark.parametrize("target", ["state.counter.victim", "run.victim", "$KV.config.actor.x"])
async def test_an_answer_goes_to_an_inbox_and_nowhere_else(target: str) -> None:
    async with running(counter=Counter) as kit:
        await kit.tell(HERE, Get(), replyto=target)
        await kit.settled()
        stream = "KV_config" if target.startswith("$KV") else ""
        found = await kit.bus.last(target, stream=stream)

    assert found is None


async def test_a_flipped_byte_in_a_record_pauses_its_type() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Add(n=5))
        stored = await kit.bus.last(subjects.state("counter", "a"))
        assert stored is not None
        spoilt = stored.data.replace(b'"key":"a"', b'"key":"\xff"')
        headers = {"Nats-Rollup": "sub"}
        await kit.bus.publish(subjects.state("counter", "a"), spoilt, headers=headers)
        await kit.stop_host()
        await kit.start_host()
        with pytest.raises(AskTimeout):
            await kit.ask(HERE, Add(n=1), timeout=1)

    assert "counter" in kit.host.paused
    assert not kit.host.failed.done()


def one_digger() -> tuple[type[Digger], Deployment]:
    return Digger, Deployment(name="digger", type="-", kind="worker", concurrency=1)


def digger_of(kit: Kit) -> Digger:
    worker = kit.host.pools["digger"].worker
    assert isinstance(worker, Digger)
    return worker


async def test_a_job_whose_run_was_stopped_while_it_waited_is_not_begun() -> None:
    async with running(odd=Odd, digger=one_digger()) as kit:
        digger = digger_of(kit)
        await kit.ask(Address("odd", "first"), Start(n=1))
        await digger.begun.wait()
        await kit.ask(ODD, Start(n=2))
        await kit.ask(ODD, Start(n=0, stop=True))
        digger.gate.set()
        await kit.settled()

    assert digger.called == [1]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"source": "a.b/k"}, "cannot be sent a result"),
        ({"source": "a b/k"}, "cannot be sent a result"),
        ({"source": "x", "expires": datetime(2020, 1, 1)}, "no time zone"),
    ],
)
async def test_a_job_that_cannot_be_done_is_a_dead_letter_and_frees_its_slot(
    facts: dict[str, object], said: str
) -> None:
    async with running(odd=Odd, digger=one_digger()) as kit:
        job = seal(Dig(n=9), id=new_id(), subject="k", runid=new_id(), **facts)
        headers = expiry(timedelta(hours=1))
        await kit.bus.publish(subjects.work("digger", 1, "k"), encode(job), headers=headers)
        digger_of(kit).gate.set()
        await kit.ask(ODD, Start(n=1))
        await kit.settled()
        letters = await kit.dead_letters()

    assert digger_of(kit).called == [1]
    assert [said in letter.reason for letter in letters] == [True]
