"""Models for tests: each answers as its deployment's options say, some only when they may."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any, ClassVar, Literal

import msgspec

from runtime import Retry, Work, Worker, handler
from runtime.ask import Origin
from runtime.testing import Event, Kit
from schemas import subjects
from schemas.base import Address
from schemas.conversation import (
    BatchFinished,
    BatchOpened,
    BatchState,
    OpenBatch,
    TaskFinished,
    Wanted,
)
from schemas.deployment import Deployment
from schemas.envelope import decode_any
from schemas.model import Generate, Generated, Prompt, Text, Utterance, conversation_topic
from schemas.record import Delta, RunStarted
from schemas.session import SessionState

Does = Literal["answer", "refuse", "fail", "break", "retry"]

jobs: list[Generate] = []
"""What the models were asked, in order."""
gates: dict[str, asyncio.Event] = {}
"""By model: what it waits for after its first word."""


class AnsweringOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    does: Does = "answer"
    says: str = "well"
    pause: float = 0
    """Seconds between its first word and its end."""


class Answering(Worker):
    """Says one word, waits at its gate if it has one, and ends as it was told."""

    Options: ClassVar[type[msgspec.Struct] | None] = AnsweringOptions
    options: AnsweringOptions

    @handler
    async def generate(self, job: Generate, ctx: Work) -> AsyncGenerator[Delta | Generated, None]:
        jobs.append(job)
        yield Delta(text=self.options.says)
        if gate := gates.get(ctx.address.actor):
            await gate.wait()
        await asyncio.sleep(self.options.pause)
        does = self.options.does
        if does == "break":
            raise ValueError("the model broke")
        if does == "retry" and ctx.attempt == 1:
            raise Retry("the stream broke off")
        yield ENDS[does](job, self.options.says)


def _answered(job: Generate, says: str) -> Generated:
    return Generated(task=job.task, batch=job.batch, model=job.model, excerpt=says)


def _refused(job: Generate, says: str) -> Generated:
    return Generated(task=job.task, batch=job.batch, outcome="refused", reason="it would not")


def _failed(job: Generate, says: str) -> Generated:
    return Generated(
        task=job.task,
        batch=job.batch,
        outcome="failed",
        code="rate_limited",
        status=429,
        reason="too many requests",
        retry_after=7,
    )


ENDS = {"answer": _answered, "retry": _answered, "refuse": _refused, "fail": _failed}


MODELS: dict[str, Any] = {
    "one": (Answering, {"says": "well"}),
    "two": (Answering, {"says": "2"}),
    "three": (Answering, {"says": "three"}),
    "refuses": (Answering, {"does": "refuse"}),
    "fails": (Answering, {"does": "fail"}),
    "breaks": (
        Answering,
        Deployment(
            name="breaks",
            type="tests.integration.answering:Answering",
            kind="worker",
            attempts=1,
            options={"does": "break"},
        ),
    ),
}


@contextlib.contextmanager
def gate(*models: str) -> Iterator[None]:
    """Let models wait after their first word, until the block ends."""
    gates.update({name: asyncio.Event() for name in models})
    try:
        yield
    finally:
        for name in models:
            gates.pop(name).set()


# -- short words ------------------------------------------------------------------------------


def words(text: str, role: Any = "user") -> Utterance:
    return Utterance(role=role, content=(Text(text),))


def wanted(*actors: str, model: str = "") -> Wanted:
    return Wanted(actors=actors, model=model or actors[0])


def opening(*tasks: Wanted | str, text: str = "hello", **rest: Any) -> OpenBatch:
    chosen = tuple(wanted(task) if isinstance(task, str) else task for task in tasks)
    rest.setdefault("said", words(text))
    rest.setdefault("prompt", Prompt(messages=(words(text),)))
    return OpenBatch(tasks=chosen, **rest)


class Talk:
    """A conversation on a kit, and short words for what is done in it."""

    def __init__(self, kit: Kit, conversation: str, actor: str = "session") -> None:
        self.kit = kit
        self.id = conversation
        self.session = Address(actor, conversation)
        self.topic = conversation_topic(conversation)

    async def open(self, *tasks: Wanted | str, principal: str = "", **rest: Any) -> BatchOpened:
        """Say something to models."""
        origin = Origin(principal=principal)
        return await self.kit.ask(self.session, opening(*tasks, **rest), origin=origin)

    async def end(self, opened: BatchOpened) -> BatchFinished:
        """Wait for the end of a batch."""
        while (found := await self.kit.event(self.topic, BatchFinished)).batch != opened.batch:
            pass
        return found

    async def finished(self, opened: BatchOpened) -> BatchFinished:
        """Wait for the end of a batch, and until everybody knows of it."""
        found = await self.end(opened)
        await self.kit.settled()
        return found

    async def speaking(self, count: int) -> None:
        """Wait until so many more runs speak."""
        for _ in range(count):
            await self.kit.event(self.topic, RunStarted)

    async def state(self) -> SessionState:
        """The session's state."""
        found = await self.kit.state(self.session)
        assert isinstance(found, SessionState)
        return found

    async def batch(self, opened: BatchOpened) -> BatchState:
        """A batch's state."""
        found = await self.kit.state(Address("batch", opened.batch))
        assert isinstance(found, BatchState)
        return found

    async def told(self, kind: type[Event]) -> list[Event]:
        """Every event of a kind that the conversation has heard."""
        return await self.kit.events(self.topic, kind)

    async def ends(self) -> dict[str, TaskFinished]:
        """How each task ended, by its number; each must have ended once."""
        found = await self.told(TaskFinished)
        assert len(found) == len({one.task for one in found})
        return {one.task.rpartition("-")[2]: one for one in sorted(found, key=lambda one: one.task)}

    async def codes(self) -> dict[str, str]:
        """How each task ended, in a word."""
        return {name: end.code or end.status for name, end in (await self.ends()).items()}

    async def heard(self) -> list[tuple[str, str]]:
        """All that followers of the conversation heard, in order: what, and of which run."""
        stored = await self.kit.bus.read_all(subjects.event(self.topic), after=0)
        events = [decode_any(one.data) for one in stored]
        return [(one.type, msgspec.json.decode(one.data).get("run", "")) for one in events]

    def jobs(self) -> list[Generate]:
        """What models were asked in this conversation, in order."""
        return [job for job in jobs if job.conversation == self.id]
