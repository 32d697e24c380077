"""Somebody who has models answer, and hears what comes of it; in place of session and batch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec

from actors.model import Model
from runtime import Actor, Turn, handler
from runtime.system import kind_of
from runtime.testing import Kit, running
from schemas.base import Address, Message, Request, Topic
from schemas.conversation import MessageAnswered, MessageSaid, RunFinished
from schemas.deployment import Deployment
from schemas.model import (
    Generate,
    Generated,
    Prompt,
    Text,
    Utterance,
    conversation_topic,
    history_topic,
)
from schemas.record import Delta, RunFailed

TOPIC = Topic("asker", "a")


class Begun(Message, tag="asker.begun"):
    run: str


class Begin(Request[Begun], tag="asker.begin"):
    """Say something, if there is something to be said, and start a job."""

    actor: str
    job: Generate
    said: Utterance | None = None


class Halt(Request[Begun], tag="asker.halt"):
    run: str


class AskerState(msgspec.Struct):
    results: list[Generated] = []


class Asker(Actor):
    """Starts runs of models, and tells of their results."""

    state: AskerState

    @handler
    def begin(self, message: Begin, ctx: Turn) -> Begun:
        job = message.job
        topic = conversation_topic(job.conversation)
        if message.said is not None:
            ctx.emit(
                history_topic(job.conversation), MessageSaid(batch=job.batch, message=message.said)
            )
        return Begun(run=ctx.start(Address(message.actor, ctx.key), job, topic=topic))

    @handler
    def halt(self, message: Halt, ctx: Turn) -> Begun:
        ctx.stop(message.run, "halted")
        return Begun(run=message.run)

    @handler
    def hear(self, message: Generated, ctx: Turn) -> None:
        self.state.results.append(message)
        ctx.emit(TOPIC, message)

    @handler
    def hear_failure(self, message: RunFailed, ctx: Turn) -> None:
        ctx.emit(TOPIC, message)


class Talk:
    """A kit with models, and what a conversation with one of them comes to."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self._count = 0

    async def begin(self, text: str = "hello", *, actor: str = "model", **more: Any) -> str:
        """Start a job; returns its run. `more` are fields of the job, and `said`."""
        self._count += 1
        said = more.pop("said", user(text))
        batch = more.get("batch", f"b{self._count}")
        fields = {
            "task": f"{batch}-1",
            "batch": batch,
            "conversation": "c",
            "model": actor,
            "prompt": Prompt(messages=(said,)),
            **more,
        }
        begun = await self.kit.ask(
            Address("asker", "a"), Begin(actor=actor, job=Generate(**fields), said=said)
        )
        return begun.run

    async def ask(self, text: str = "hello", *, timeout: float = 20, **more: Any) -> Generated:
        """Start a job, and wait for its result."""
        await self.begin(text, **more)
        return await self.result(timeout)

    async def result(self, timeout: float = 20) -> Generated:
        """The next result."""
        return await self.kit.event(TOPIC, Generated, timeout)

    async def answers(self, conversation: str = "c") -> list[MessageAnswered]:
        """Every answer that is kept."""
        return await self.kit.events(history_topic(conversation), MessageAnswered)

    async def finished(self, conversation: str = "c") -> list[RunFinished]:
        """How each run is said to have ended."""
        return await self.kit.events(conversation_topic(conversation), RunFinished)

    async def deltas(self, conversation: str = "c") -> list[Delta]:
        """Every piece that was said."""
        return await self.kit.events(conversation_topic(conversation), Delta)


def user(text: str) -> Utterance:
    """A message of a person."""
    return Utterance(role="user", content=(Text(text),))


def deployed(options: dict[str, Any], **more: Any) -> tuple[type[Model], Deployment]:
    """A model as it is deployed, with `more` of the deployment's own fields."""
    fields = {"name": "model", "type": "actors.model:Model", "kind": kind_of(Model), **more}
    fields.setdefault("deadline", timedelta(minutes=10))
    return Model, Deployment(options=options, **fields)


@asynccontextmanager
async def talking(options: dict[str, Any], **more: Any) -> AsyncIterator[Talk]:
    """One model under the name `model`."""
    async with running(asker=Asker, model=deployed(options, **more)) as kit:
        yield Talk(kit)
