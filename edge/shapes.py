"""What the relay's clients send and get, field by field.

Source: the Conversation Bus, whose clients rely on these names; more fields are only added.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from schemas.relay import Order, Status

Name = Annotated[str, msgspec.Meta(max_length=200)]
# Whatever can stand in a path, for that is where it is asked for. Clients resolve `.` and `..`.
TaskId = Annotated[
    str,
    msgspec.Meta(max_length=200, pattern=r"^(?!\.{1,2}$)(?![\s\S]*[\x00-\x1f\x7f])"),
]


class Sending(msgspec.Struct, kw_only=True, rename={"sender": "from"}):
    """A task, or a message: anything whose `type` is not `task`."""

    sender: Name | None = None
    to: Name | None = None
    type: Name | None = None
    cmd: Name | None = None
    payload: dict[str, Any] | None = None
    text: str | None = None
    task_id: TaskId | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=2)] = 1


class SendAccepted(msgspec.Struct):
    """It is stored. A plain message has no task."""

    status: Literal["ok"]
    task_id: str | None


class CallingBack(msgspec.Struct, kw_only=True):
    """How a task went: `done`, or anything else for failed."""

    task_id: TaskId | None = None
    child_id: Name | None = None
    status: Name | None = None
    result: dict[str, Any] | None = None
    lease: Name | None = None


class Acknowledging(msgspec.Struct, kw_only=True):
    """Somebody has seen the task."""

    task_id: TaskId | None = None
    ack_by: Name | None = None


class Noted(msgspec.Struct):
    """It is stored, and this is where the task stands now."""

    status: Literal["ok"]
    task_status: Status


class LogCleared(msgspec.Struct):
    """Reads of the log start afresh. Nothing was deleted."""

    status: Literal["ok"]
    msg: str


class Failed(msgspec.Struct, omit_defaults=True):
    """Why a request of the relay was not done. Programs decide by `code`.

    There is a `task_id` where a task was sent of which it is not known yet what became of it.
    """

    status: Literal["error"]
    msg: str
    code: str
    task_id: str | None = None


class TaskStatus(msgspec.Struct):
    """Where a task stands."""

    status: Literal["ok"]
    task_id: str
    task_status: Status


class Holder(msgspec.Struct):
    """Who holds a task until when."""

    child_id: str
    until: datetime


class TaskView(msgspec.Struct, kw_only=True, rename={"sender": "from"}):
    """All there is to know about a task. Times are UTC."""

    status: Literal["ok"] = "ok"
    task_id: str
    task_status: Status
    sender: str
    to: str
    type: str
    cmd: str
    payload: Any
    text: str
    priority: int
    child_id: str
    result: Any
    reason: str
    attempts: int
    held_by: Holder | None
    acked_by: list[str]
    created: datetime | None
    finished: datetime | None


class Taking(msgspec.Struct, kw_only=True):
    """A remote child asks for a task, to hold for `seconds`; it waits up to `wait` for one."""

    child_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    wait: Annotated[float, msgspec.Meta(ge=0, le=30)] = 20.0


class LeasedTask(msgspec.Struct, kw_only=True, rename={"sender": "from"}):
    """A task that is the child's until `until`, unless it extends its `lease`."""

    task_id: str
    sender: str
    to: str
    type: str
    cmd: str
    payload: Any
    text: str
    priority: int
    lease: str
    until: datetime
    attempt: int


class TaskTaken(msgspec.Struct):
    """The task that was taken."""

    status: Literal["ok"]
    task: LeasedTask


class Extending(msgspec.Struct, kw_only=True):
    """A remote child is still at it."""

    task_id: TaskId
    lease: Name
    seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0


class Releasing(msgspec.Struct, kw_only=True):
    """A remote child will not do the task."""

    task_id: TaskId
    lease: Name
    reason: str = ""


class LeaseHeld(msgspec.Struct):
    """The task is the child's until then."""

    status: Literal["ok"]
    task_id: str
    lease: str
    until: datetime


class LogRecord(msgspec.Struct, kw_only=True, omit_defaults=True, rename={"sender": "from"}):
    """One line of the log. `ts` is UTC; `cursor` is there in the export only."""

    cursor: int = 0
    event: str
    sender: str | None = None
    to: str | None = None
    type: str | None = None
    cmd: str | None = None
    payload: Any = None
    text: str | None = None
    priority: int | None = None
    task_id: str | None = None
    child_id: str | None = None
    status: str | None = None
    result: Any = None
    reason: str | None = None
    ack_by: str | None = None
    by: str | None = None
    ts: str


class Log(msgspec.Struct):
    """The newest lines of the log, newest last."""

    status: Literal["ok"]
    logs: list[LogRecord]


def order_fields(order: Order) -> dict[str, Any]:
    """An order under the names that the relay's clients know."""
    return {
        "sender": order.sender,
        "to": order.to,
        "type": order.kind,
        "cmd": order.cmd,
        "payload": order.payload,
        "text": order.text,
        "priority": order.priority,
    }
