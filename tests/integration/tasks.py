"""Short words for tests about tasks: sending, calling back, and looking at what came of it."""

from collections.abc import Awaitable
from typing import Any

import pytest

from runtime.errors import Refused
from runtime.testing import Kit
from schemas.base import Address, Message
from schemas.record import Refusal
from schemas.relay import (
    Accepted,
    CallBack,
    Leased,
    Order,
    Send,
    Sent,
    Take,
    Task,
    TaskCompleted,
    TaskFailed,
    task_topic,
)

CALLABLE = {"kind": "callable", "call": "actors.commands:run"}


def order(to: str = "child", kind: str = "task", **rest: Any) -> Order:
    return Order(sender="master", to=to, kind=kind, **rest)


def master(task_id: str) -> Address:
    return Address("master", task_id)


async def send(kit: Kit, task_id: str, to: str = "far", **rest: Any) -> Sent:
    return await kit.ask(master(task_id), Send(order=order(to, **rest), task_id=task_id))


async def call_back(kit: Kit, task_id: str, result: Any = None, **rest: Any) -> Accepted:
    rest.setdefault("child_id", "child_bazi")
    message = CallBack(task_id=task_id, result=result, **rest)
    return await kit.ask(master(task_id), message)


async def take(
    kit: Kit, task_id: str, child_id: str = "c1", *, run: str = "", seconds: float = 60
) -> Leased:
    """Take a task with the run that is current, unless another is given."""
    run = run or (await task(kit, task_id)).run
    message = Take(task_id=task_id, child_id=child_id, run=run, seconds=seconds)
    return await kit.ask(master(task_id), message)


async def task(kit: Kit, task_id: str) -> Task:
    found = (await kit.state(master(task_id))).tasks[task_id]
    assert isinstance(found, Task)
    return found


async def refusal(answer: Awaitable[Any]) -> Refusal:
    with pytest.raises(Refused) as refused:
        await answer
    return refused.value.refusal


async def ends(kit: Kit, task_id: str) -> list[Message]:
    """Every end a task has had. More than one would be wrong."""
    topic = task_topic(task_id)
    return [*await kit.events(topic, TaskCompleted), *await kit.events(topic, TaskFailed)]
