"""The actors of the chaos test: an account per key, and two workers that it gives jobs to.

What an entry does follows from its number alone, so that tests/chaos/model.py, which shares no
code with this file, can tell what must have become of it.

    number %  3   passes the amount on to another key, `number % 4` more hops
    number %  4   sets the reminder "tock" (mostly it is replaced before it comes)
    number %  5   sets the reminder "tick", which sets itself again `number % 3` times
    number %  7   forgets "tick"
    number % 10   starts a job that squares the number
    number % 13   is refused in the end, and nothing of it remains
    number % 15   starts a job that speaks before it ends
    number % 17   fails in the end, the first time a process sees it
    number % 21   stops the oldest job that speaks
    number < 0    always fails in the end
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec

from runtime import Actor, Reject, Turn, Work, Worker, handler
from schemas.base import Address, Job, Message, Request, Topic
from schemas.record import Delta, RunFailed

KEYS = 200
HOSTILE = ("a.b", "*", ">", "two words", "ключ", "😀" * 20, "x" * 300, "\u202egnp", "a/b", "%00")
"""Keys that are no subject tokens; they stand for the first few."""


def key_of(index: int) -> str:
    """The key of an account by its number, which may be any integer."""
    index %= KEYS
    return HOSTILE[index] if index < len(HOSTILE) else f"account-{index}"


class Entered(Message, tag="ledger.entered"):
    """How many things the account had applied, and what it then held."""

    applied: int
    balance: int


class Enter(Request[Entered], tag="ledger.enter"):
    """An entry from outside. `number` says what else it does."""

    number: int
    amount: int


class Transfer(Message, tag="ledger.transfer"):
    """An amount from another account, to be passed on `hops` more times."""

    amount: int
    hops: int


class Tick(Message, tag="ledger.tick"):
    """A reminder that sets itself again, `left` times."""

    left: int


class Tock(Message, tag="ledger.tock"):
    """A reminder that passes one on."""


class Squared(Message, tag="ledger.squared"):
    """The result of a job."""

    value: int


class Square(Job[Squared], tag="ledger.square"):
    """Square a number."""

    number: int


class Sung(Message, tag="ledger.sung"):
    """The result of a job that spoke: all that it said."""

    text: str


class Sing(Job[Sung], tag="ledger.sing"):
    """Say so many verses, one after another."""

    verses: int


class Applied(Message, tag="ledger.applied"):
    """One message was applied: the `n`th of this account. `runs` are the jobs it started."""

    n: int
    kind: str
    cause: str
    number: int
    runs: tuple[str, ...] = ()
    stopped: str = ""


class LedgerState(msgspec.Struct):
    """What an account keeps; `digest` chains everything applied, in order."""

    index: int = -1
    applied: int = 0
    balance: int = 0
    entries: int = 0
    sent: int = 0
    received: int = 0
    ticks: int = 0
    tocks: int = 0
    squares: int = 0
    songs: int = 0
    late: int = 0
    failed: int = 0
    singing: list[str] = []
    squaring: list[str] = []
    digest: str = ""


_failed_once: set[str] = set()


class Ledger(Actor):
    """One account: everything that comes to it counts once, in order."""

    state: LedgerState

    @handler
    def enter(self, message: Enter, ctx: Turn) -> Entered:
        number = message.number
        self.state.entries += 1
        self.state.balance += message.amount
        if number % 3 == 0:
            self._send(message.amount, number % 4, number, ctx)
        self._set_reminders(number, ctx)
        started = self._start_jobs(number, ctx)
        stopped = self._stop_one(ctx) if number % 21 == 0 else ""
        self._count("enter", number, ctx, started, stopped)
        _refuse_or_fail(number, ctx)
        return Entered(applied=self.state.applied, balance=self.state.balance)

    @handler
    def receive(self, message: Transfer, ctx: Turn) -> None:
        self.state.received += 1
        self.state.balance += message.amount
        if message.hops:
            self._send(message.amount, message.hops - 1, message.hops, ctx)
        self._count("transfer", message.amount, ctx)

    @handler
    def tick(self, message: Tick, ctx: Turn) -> None:
        self.state.ticks += 1
        if message.left:
            ctx.remind("tick", Tick(left=message.left - 1), after=timedelta(milliseconds=250))
        self._count("tick", message.left, ctx)

    @handler
    def tock(self, message: Tock, ctx: Turn) -> None:
        self.state.tocks += 1
        self._send(1, 0, self.state.tocks, ctx)
        self._count("tock", self.state.tocks, ctx)

    @handler
    def take_square(self, message: Squared, ctx: Turn) -> None:
        self._end(self.state.squaring, ctx)
        self.state.squares += message.value
        self._count("squared", message.value, ctx)

    @handler
    def take_song(self, message: Sung, ctx: Turn) -> None:
        self._end(self.state.singing, ctx)
        self.state.songs += 1
        self._count("sung", len(message.text), ctx)

    @handler
    def take_failure(self, message: RunFailed, ctx: Turn) -> None:
        self.state.failed += 1
        self._count("failed", message.attempts, ctx)

    def _send(self, amount: int, hops: int, step: int, ctx: Turn) -> None:
        self.state.sent += 1
        self.state.balance -= amount
        target = Address("ledger", key_of(_index_of(ctx.key) + 7 * step + 1))
        ctx.tell(target, Transfer(amount=amount, hops=hops))

    def _set_reminders(self, number: int, ctx: Turn) -> None:
        if number % 4 == 0:
            ctx.remind("tock", Tock(), after=timedelta(milliseconds=2000))
        if number % 5 == 0:
            after = timedelta(milliseconds=200 + 100 * (number % 7))
            ctx.remind("tick", Tick(left=number % 3), after=after)
        if number % 7 == 0:
            ctx.forget("tick")

    def _start_jobs(self, number: int, ctx: Turn) -> list[str]:
        started = []
        if number % 10 == 0:
            run = ctx.start(Address("squarer", ctx.key), Square(number=number), priority=number % 3)
            self.state.squaring.append(run)
            started.append(run)
        if number % 15 == 0:
            topic = Topic("song", ctx.key)
            run = ctx.start(Address("singer", ctx.key), Sing(verses=3 + number % 6), topic=topic)
            self.state.singing.append(run)
            started.append(run)
        return started

    def _stop_one(self, ctx: Turn) -> str:
        if not self.state.singing:
            return ""
        run = self.state.singing.pop(0)
        ctx.stop(run, "enough")
        return run

    def _end(self, running: list[str], ctx: Turn) -> None:
        if ctx.envelope.runid in running:
            running.remove(ctx.envelope.runid)
        else:
            self.state.late += 1

    def _count(
        self, kind: str, number: int, ctx: Turn, runs: list[str] | None = None, stopped: str = ""
    ) -> None:
        state = self.state
        state.index = _index_of(ctx.key)
        state.applied += 1
        chain = f"{state.digest}|{kind}|{number}|{state.balance}"
        state.digest = hashlib.sha256(chain.encode()).hexdigest()[:16]
        cause = f"{ctx.envelope.source} {ctx.envelope.id}"
        event = Applied(
            n=state.applied,
            kind=kind,
            cause=cause,
            number=number,
            runs=tuple(runs or ()),
            stopped=stopped,
        )
        ctx.emit(Topic("ledger", ctx.key), event)


def _refuse_or_fail(number: int, ctx: Turn) -> None:
    """Raise what is to be raised; by now there is something to be undone."""
    if number % 13 == 0:
        raise Reject("UNLUCKY", f"{number} is divisible by 13", status=422)
    if number < 0:
        raise RuntimeError(f"entry {number} always fails")
    if number % 17 == 0 and ctx.envelope.id not in _failed_once:
        _failed_once.add(ctx.envelope.id)
        raise RuntimeError(f"entry {number} fails the first time")


def _index_of(key: str) -> int:
    return HOSTILE.index(key) if key in HOSTILE else int(key.removeprefix("account-"))


class Squarer(Worker):
    """Squares numbers, silently."""

    @handler
    async def square(self, job: Square, ctx: Work) -> Squared:
        await asyncio.sleep(0.01)
        return Squared(value=job.number**2)


class Singer(Worker):
    """Says verse after verse, then all of it."""

    @handler
    async def sing(self, job: Sing, ctx: Work) -> AsyncIterator[Any]:
        text = ""
        for verse in range(job.verses):
            text += f"{verse} "
            yield Delta(text=f"{verse} ")
            await asyncio.sleep(0.1)
        yield Sung(text=text)
