"""What is known of a task: its state as its master keeps it, and its events as they come."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge import shapes
from edge.asking import answer, wait_for_bus
from edge.auth import READ, stream_owner
from edge.feeds import TopicFeed, open_feed
from edge.operation import Endpoint, Operation, Parameter
from edge.parameters import read_cursor
from edge.problem import Refusal, quote
from edge.shared import Shared
from edge.sse import PER_KEY, EventStream
from runtime.errors import Unavailable
from schemas import subjects
from schemas.base import token
from schemas.envelope import Envelope
from schemas.record import Record
from schemas.relay import (
    MASTER,
    Logged,
    MasterState,
    Task,
    TaskCompleted,
    TaskCreated,
    TaskFailed,
    TaskProcessing,
    TaskReturned,
    task_topic,
)

TAG = "relay"
TASK_ID = Parameter("task_id", str, "The id that sending the task answered.")
UNKNOWN = "There is no such task"

_decode_record = msgspec.json.Decoder(Record).decode
_decode_state = msgspec.json.Decoder(MasterState).decode


class TaskEvent(
    Envelope[TaskCreated | TaskProcessing | TaskReturned | TaskCompleted | TaskFailed | Logged],
    frozen=True,
    kw_only=True,
):
    """One event of a task; a `reset` has a `reason` and a `snapshot` instead."""


class Tasks:
    """The operations that look at a task."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            _read(
                "task-status/{task_id:path}",
                self.status,
                "Ask where a task stands",
                name="task_status",
                answers={200: shapes.TaskStatus, 404: UNKNOWN},
            ),
            _read(
                "tasks/{task_id:path}/events",
                self.follow,
                "Follow a task, from its beginning or from a cursor",
                name="follow_task",
                answers={200: "Its events, each with its sequence as the id", 404: UNKNOWN},
                stream_event=TaskEvent,
            ),
            _read(
                "tasks/{task_id:path}",
                self.view,
                "See all there is to know about a task",
                name="task",
                answers={200: shapes.TaskView, 404: UNKNOWN},
            ),
        )

    async def status(self, request: Request) -> Response:
        """Answer where a task stands."""
        task_id = _read_task_id(request)
        task = await self.find(task_id)
        return answer(shapes.TaskStatus("ok", task_id, task.status))

    async def view(self, request: Request) -> Response:
        """Answer all there is to know about a task."""
        task_id = _read_task_id(request)
        return answer(_view(task_id, await self.find(task_id)))

    async def follow(self, request: Request) -> EventStream:
        """Answer a stream of a task's events."""
        task_id, after = _read_task_id(request), read_cursor(request)

        async def open_source() -> TopicFeed:
            await self.find(task_id)
            topic, hub = task_topic(task_id), self._shared.hub
            return await open_feed(hub, topic, after or 0, lambda: self._snapshot(task_id))

        owner = stream_owner(request)
        return EventStream(self._shared.streams, owner, open_source, most=PER_KEY)

    async def find(self, task_id: str) -> Task:
        """Return a task. Raises Refusal 404 if it is not known, or not any more."""
        bus = self._shared.bus
        await wait_for_bus(bus)
        stored = await bus.last(subjects.state(MASTER, token(task_id)))
        found = await self._read(stored.data, task_id) if stored else None
        if found is None:
            raise Refusal(404, "task_not_found", "task not found")
        return found

    async def _read(self, data: bytes, task_id: str) -> Task | None:
        """The task in a stored record, unless its time is over."""
        try:
            record = _decode_record(data)
            if not record.data or await self._expired(record):
                return None
            return _decode_state(record.data).tasks.get(task_id)
        except msgspec.MsgspecError:
            # Whoever keeps it stands still and says so; a client can only come again.
            raise Unavailable(f"the state of task {quote(task_id)} is not readable") from None

    async def _expired(self, record: Record) -> bool:
        deployed = await self._shared.deployed.find(MASTER)
        if deployed is None or record.written is None:
            return False
        return datetime.now(UTC) - record.written > deployed.lifetime

    async def _snapshot(self, task_id: str) -> Any:
        try:
            return _view(task_id, await self.find(task_id))
        except Refusal:
            return None


def _read(path: str, endpoint: Endpoint, summary: str, **rest: Any) -> Operation:
    return Operation(
        "GET",
        f"/api/relay/{path}",
        endpoint,
        summary,
        scope=READ,
        error=shapes.Failed,
        variables=(TASK_ID,),
        tag=TAG,
        **rest,
    )


def _read_task_id(request: Request) -> str:
    task_id = str(request.path_params["task_id"])
    if not task_id or "\0" in task_id:
        detail = f"task_id is {quote(task_id)}, expected the id of a task"
        raise Refusal(400, "invalid_parameter", detail)
    return task_id


def _view(task_id: str, task: Task) -> shapes.TaskView:
    lease = task.lease
    return shapes.TaskView(
        task_id=task_id,
        task_status=task.status,
        **shapes.order_fields(task.order),
        child_id=task.child_id,
        result=task.result,
        reason=task.reason,
        attempts=task.attempts,
        held_by=shapes.Holder(lease.child_id, lease.until) if lease else None,
        acked_by=task.acked_by,
        created=task.created,
        finished=task.finished,
    )
