"""The end of a task: who may bring it, in which words, and what a later one is told."""

from typing import Any, Literal

import msgspec

from actors.limits import clip
from runtime.errors import Reject
from schemas.base import Message
from schemas.envelope import encode
from schemas.relay import CallBack, Task, TaskCompleted, TaskFailed


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a task ended, and by whom; `word` is the status as its child said it."""

    status: Literal["completed", "failed"]
    word: str
    child_id: str = ""
    result: Any = None
    reason: str = ""


def are_equal(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; to Python, `true` would also be 1."""
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")


def is_repeat(task: Task, message: CallBack) -> bool:
    """Whether a callback says what ended the task, once more."""
    done = message.status == "done"
    return (
        task.child_id == message.child_id
        and done == (task.status == "completed")
        and are_equal(task.result, message.result)
    )


def as_said(message: CallBack) -> Ending:
    """The end that a callback speaks of."""
    done, word = message.status == "done", clip(message.status, 40)
    return Ending(
        status="completed" if done else "failed",
        word=word,
        child_id=message.child_id,
        result=message.result,
        reason="" if done else f"the child called back with status {word!r}",
    )


def ended(task_id: str, end: Ending) -> Message:
    """The fact to publish of an end."""
    if end.status == "completed":
        return TaskCompleted(task_id=task_id, child_id=end.child_id, result=end.result)
    return TaskFailed(task_id=task_id, child_id=end.child_id, result=end.result, reason=end.reason)


def first_end(task_id: str, task: Task, may_read: bool) -> str:
    """How a task ended, for one who comes too late; the result only to a reader."""
    if not may_read:
        return f"task {task_id!r} is {task.status}, and stays so"
    with_what = f"by {task.child_id!r}, with result {clip(encode(task.result).decode(), 200)}"
    if task.reason:
        with_what += f", because {clip(task.reason, 200)}"
    return f"task {task_id!r} is {task.status} since {task.finished}, {with_what}"


def check_children(task: Task, children: tuple[str, ...]) -> None:
    """Whose task it is decides, not who a caller says it is."""
    if children and task.order.to not in children:
        raise Reject(
            "child_not_allowed",
            "the task was sent to another child than those that this key may act as",
            status=403,
        )


def check_lease(task_id: str, task: Task, message: CallBack) -> None:
    """A lease that is sent decides alone: its child may have lost it and got another."""
    lease = task.lease
    if lease is None or message.lease == lease.id:
        return
    if not message.lease and message.child_id == lease.child_id:
        return
    raise Reject(
        "leased_by_another",
        f"task {task_id!r} is leased to {lease.child_id!r} until {lease.until};"
        " call back with that lease",
    )
