"""Actors that ask a person, as any actor of one's own may."""

from typing import Any, Literal

import msgspec

from runtime import Actor, Turn, Work, Worker, handler
from runtime.testing import Kit
from schemas import subjects
from schemas.approval import APPROVAL, AskPerson, Decided, Withdraw
from schemas.base import Address, Job, Message, Request, Topic
from schemas.record import RunFailed
from tests.integration.waiting import until_known

TOPIC = Topic("clerk", "c")


class Refund(Message, tag="clerk.refund"):
    """Ask before so much is paid back; `more` are fields of the question."""

    id: str
    more: dict[str, Any] = msgspec.field(default_factory=dict)


class CallOff(Message, tag="clerk.call_off"):
    id: str


class Started(Message, tag="clerk.started"):
    run: str


class Consult(Request[Started], tag="clerk.consult"):
    """Have a worker ask."""

    text: str
    then: Literal["end", "crash", "ask_again"] = "end"
    more: dict[str, Any] = msgspec.field(default_factory=dict)


class Halt(Message, tag="clerk.halt"):
    run: str


class Consulted(Message, tag="clerk.consulted"):
    decided: Decided
    attempt: int = 1


class AskFirst(Job[Consulted], tag="clerk.ask_first"):
    text: str
    then: Literal["end", "crash", "ask_again"] = "end"
    more: dict[str, Any] = msgspec.field(default_factory=dict)


class ClerkState(msgspec.Struct):
    decided: dict[str, list[Decided]] = {}
    consulted: list[Consulted] = []
    failed: list[str] = []


class Clerk(Actor):
    """A keyed actor that waits for people."""

    state: ClerkState

    @handler
    def refund(self, message: Refund, ctx: Turn) -> None:
        fields = {"question": "Pay it back?", "reply": str(ctx.address), **message.more}
        ask = msgspec.convert(fields, AskPerson)
        ctx.tell(Address(APPROVAL, message.id), ask)

    @handler
    def call_off(self, message: CallOff, ctx: Turn) -> None:
        ctx.tell(Address(APPROVAL, message.id), Withdraw(reason="it was paid"))

    @handler
    def hear(self, message: Decided, ctx: Turn) -> None:
        self.state.decided.setdefault(message.approval, []).append(message)
        ctx.emit(TOPIC, message)

    @handler
    def consult(self, message: Consult, ctx: Turn) -> Started:
        job = AskFirst(text=message.text, then=message.then, more=message.more)
        return Started(run=ctx.start(Address("adviser", ctx.key), job))

    @handler
    def halt(self, message: Halt, ctx: Turn) -> None:
        ctx.stop(message.run, "halted")

    @handler
    def hear_result(self, message: Consulted, ctx: Turn) -> None:
        self.state.consulted.append(message)
        ctx.emit(TOPIC, message)

    @handler
    def hear_failure(self, message: RunFailed, ctx: Turn) -> None:
        self.state.failed.append(message.reason)
        ctx.emit(TOPIC, message)


class Adviser(Worker):
    """A worker that waits for a person in the midst of its job."""

    @handler
    async def ask_first(self, job: AskFirst, ctx: Work) -> Consulted:
        decided = await ctx.ask_person(job.text, **job.more)
        if job.then == "crash" and ctx.attempt == 1:
            raise ValueError("after the answer")
        if job.then == "ask_again":
            decided = await ctx.ask_person(f"{job.text} Really?", **job.more)
        return Consulted(decided=decided, attempt=ctx.attempt)


async def applied(kit: Kit, *addresses: Address) -> None:
    """Wait until each of these, one after another, has done all that it was sent."""
    for address in addresses:
        mail = await kit.bus.last(subjects.stored_at(address))
        newest = mail.seq if mail else 0

        async def is_done(address: Address = address, newest: int = newest) -> bool:
            record = await kit.record(address)
            return newest == 0 or (record is not None and record.done >= newest)

        await until_known(is_done)
