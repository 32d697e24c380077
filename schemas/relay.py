"""The relay: what a master, its children and their users say to each other, and what is kept.

A task is kept by `master/<task id>`; its facts go to the topic `task/<task id>`, and every
send, callback and ack also to the relay's one log, the topic `relay/log`.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.base import Job, Message, Request, Topic

LOG = Topic("relay", "log")
MASTER = "master"

Status = Literal["pending", "processing", "completed", "failed"]
FINAL: tuple[Status, ...] = ("completed", "failed")


def task_topic(task_id: str) -> Topic:
    """Where the facts of one task are followed."""
    return Topic("task", task_id)


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was sent: by whom, to whom, what is to be done, with what."""

    sender: str
    to: str
    kind: str = "message"
    cmd: str = ""
    payload: Any = None
    text: str = ""
    priority: int = 1


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A remote child's hold on a task: it comes back at `until` unless it is extended."""

    id: str
    child_id: str
    until: datetime
    seconds: float


class Task(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One task as its master keeps it. `run` is the job that is out for it."""

    order: Order
    status: Status = "pending"
    run: str = ""
    attempts: int = 0
    lease: Lease | None = None
    child_id: str = ""
    result: Any = None
    reason: str = ""
    acked_by: list[str] = []
    created: datetime | None = None
    finished: datetime | None = None


class MasterState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Tasks by id. A relay's task is a batch of one, kept under its own id."""

    tasks: dict[str, Task] = {}


# -- said to a master -------------------------------------------------------------------------


class Sent(Message, tag="relay.sent"):
    """Stored. A plain message has no task."""

    task_id: str | None = None


class Send(Request[Sent], tag="relay.send"):
    """Do this task, or pass on this message."""

    order: Order
    task_id: str | None = None


class Accepted(Message, tag="relay.accepted"):
    """Noted; where the task stands now."""

    task_status: Status


class CallBack(Request[Accepted], tag="relay.call_back"):
    """A child says how its task went: `done`, or anything else for failed.

    `children` are those whose tasks the caller may end, any if there are none; `may_read`
    is whether it may be told a result that is not its own.
    """

    task_id: str
    child_id: str = ""
    status: str = "done"
    result: Any = None
    lease: str = ""
    children: tuple[str, ...] = ()
    may_read: bool = True


class Acknowledge(Request[Accepted], tag="relay.acknowledge"):
    """Somebody has seen the task. `children` is as in `CallBack`."""

    task_id: str
    ack_by: str = ""
    children: tuple[str, ...] = ()


class Cleared(Message, tag="relay.cleared"):
    """From here on, reads of the log start afresh. Nothing was deleted."""


class Clear(Request[Cleared], tag="relay.clear"):
    """Let reads of the log start afresh."""

    by: str = ""


class Leased(Message, tag="relay.leased"):
    """The task is yours until `until`, unless you extend it under `lease`.

    `order` has no payload and no text here: the job that was taken has them, and answers
    are kept, so they stay small.
    """

    task_id: str
    order: Order
    lease: str
    until: datetime
    attempt: int


class Take(Request[Leased], tag="relay.take"):
    """A remote child takes the task that came with `run`, for `seconds`."""

    task_id: str
    child_id: str
    run: str
    seconds: float = 60.0


class Extend(Request[Leased], tag="relay.extend"):
    """A remote child is still at it."""

    task_id: str
    lease: str
    seconds: float = 60.0


class GiveBack(Request[Accepted], tag="relay.give_back"):
    """A remote child will not do the task: it goes to the next."""

    task_id: str
    lease: str
    reason: str = ""


class LeaseEnded(Message, tag="relay.lease_ended"):
    """A reminder: nobody has called back under this lease."""

    task_id: str
    lease: str


class TaskOverdue(Message, tag="relay.task_overdue"):
    """A reminder: the task has had all the time there is for it."""

    task_id: str


# -- jobs -------------------------------------------------------------------------------------


class Executed(Message, tag="relay.executed"):
    """A child did its task; `result` is any JSON value."""

    task_id: str
    result: Any = None


class Execute(Job[Executed], tag="relay.execute"):
    """Do this task."""

    task_id: str
    order: Order


# -- facts ------------------------------------------------------------------------------------


class TaskCreated(Message, tag="task.created"):
    """A task was accepted."""

    task_id: str
    order: Order


class TaskProcessing(Message, tag="task.processing"):
    """A remote child holds the task."""

    task_id: str
    child_id: str
    attempt: int
    until: datetime


class TaskReturned(Message, tag="task.returned"):
    """A remote child gave the task back, or was not heard of again."""

    task_id: str
    child_id: str
    reason: str


class TaskCompleted(Message, tag="task.completed"):
    """The task is done."""

    task_id: str
    child_id: str = ""
    result: Any = None


class TaskFailed(Message, tag="task.failed"):
    """The task is not going to be done."""

    task_id: str
    child_id: str = ""
    result: Any = None
    reason: str = ""


class Logged(Message, tag="relay.logged"):
    """One line of the relay's log: `event` is send, callback, ack or clear."""

    event: str
    at: datetime
    task_id: str | None = None
    order: Order | None = None
    child_id: str = ""
    status: str = ""
    result: Any = None
    by: str = ""
    reason: str = ""
