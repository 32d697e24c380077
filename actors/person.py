"""Asking a person from a function that does an order, whether it can wait or runs in a thread.

`do_order` is such a function: with it a person is a child that tasks can be sent to.
"""

import asyncio
import concurrent.futures
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec

from runtime.errors import Reject
from runtime.work import Work
from schemas.approval import Decided
from schemas.ownership import SUPPORT

_asking: "ContextVar[Asking]" = ContextVar("asking")


class Asking:
    """One order being done, and the questions that threads of it wait for."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.waits: set[concurrent.futures.Future[Decided]] = set()

    def end(self) -> None:
        """Let no thread wait for what nobody wants to know any more."""
        for wait in list(self.waits):
            wait.cancel()


@contextmanager
def may_ask(work: Work) -> Iterator[None]:
    """Let what is called from here on ask a person as a part of this job."""
    asking = Asking(work)
    token = _asking.set(asking)
    try:
        yield
    finally:
        asking.end()
        _asking.reset(token)


async def ask_person(question: str, **fields: Any) -> Decided:
    """Ask a person, and wait for what it comes to; as `Work.ask_person`, which has the fields.

    Raises RuntimeError outside of an order.
    """
    return await _here().work.ask_person(question, **fields)


def wait_for_person(question: str, **fields: Any) -> Decided:
    """The same for a plain function, which runs in a thread of its own."""
    asking = _here()
    coroutine = asking.work.ask_person(question, **fields)
    wait = asyncio.run_coroutine_threadsafe(coroutine, asking.loop)
    asking.waits.add(wait)
    try:
        return wait.result()
    finally:
        asking.waits.discard(wait)


class PersonOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What of an order's payload says how a person is to be asked; all of it is shown to them."""

    question: str = ""
    answers: dict[str, Any] | None = None
    choices: tuple[str, ...] = ()
    seconds: float | None = None
    team: str = SUPPORT


async def do_order(order: dict[str, Any]) -> Any:
    """Have a person do an order, whose text is the question unless its payload has one.

    Raises Reject if they deny it, if nobody answers, and for a payload that cannot be asked.
    """
    payload = order.get("payload") or {}
    try:
        wanted = msgspec.convert(payload, PersonOrder)
    except msgspec.ValidationError as error:
        raise Reject("bad_order", f"payload: {error}", status=422) from None
    decided = await ask_person(
        wanted.question or order.get("text") or order.get("cmd") or "",
        name="order",
        details=payload,
        answers=wanted.answers,
        choices=wanted.choices,
        seconds=wanted.seconds,
        team=wanted.team,
        tool=order.get("cmd") or "",
    )
    if decided.decision not in ("approved", "answered"):
        raise Reject(decided.decision, decided.note or f"by {decided.by or 'nobody'}")
    return {"decision": decided.decision, "answer": decided.answer, "by": decided.by}


def _here() -> Asking:
    try:
        return _asking.get()
    except LookupError:
        raise RuntimeError(
            "only what does an order can ask a person: a function of a child, while it is called"
        ) from None
