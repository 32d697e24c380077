"""Remote children: taking tasks by long poll or by a stream, holding them, giving them back."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edge import shapes
from edge.asking import answer, ask_for, wait_for_bus
from edge.auth import CALLBACK, principal_of
from edge.body import read_json
from edge.leasing import Claim, give_back, lease
from edge.operation import Operation, Parameter
from edge.outflow import until_left
from edge.parameters import read_int
from edge.problem import Refusal, quote
from edge.pushing import TaskSource
from edge.shared import Shared
from edge.sse import EventStream
from schemas.base import Address
from schemas.relay import MASTER, Extend, GiveBack
from schemas.subjects import ACTOR_NAME

TAG = "remote children"
MOST_SLOTS = 100
LONGEST_LEASE = 3600
LONGEST_NAME = 200
SHORTEST_WAIT = 0.25
"""Seconds in which a task that is there already is sure to come."""

NAME = Parameter("name", str, "The name that the child is deployed under.")
CHILD_ID = Parameter(
    "child_id",
    Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)],
    "Which one of the children of this name it is.",
    required=True,
)
SLOTS = Parameter(
    "slots",
    Annotated[int, msgspec.Meta(ge=1, le=MOST_SLOTS)],
    "How many tasks it works on at the same time.",
    default=1,
)
SECONDS = Parameter(
    "seconds",
    Annotated[int, msgspec.Meta(ge=1, le=LONGEST_LEASE)],
    "How long a task is the child's unless it extends its lease.",
    default=60,
)

NO_CHILD = "No remote child is deployed under this name"
AS_A_STREAM = (
    "The next task comes when one of the last ones has ended or was given back. Its events have "
    "no ids: a task that was not heard comes again when its lease ends."
)
ENDED = "The lease has ended: the task is somebody else's, or done"


class Children:
    """The operations of remote children."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            _operation(
                "POST",
                "take",
                self.take,
                "Take the next task, and wait for one if there is none",
                body=shapes.Taking,
                answers={200: shapes.TaskTaken, 204: "No task came", 404: NO_CHILD},
                repeatable=False,
            ),
            self._stream(),
            _operation(
                "POST",
                "extend",
                self.extend,
                "Hold a task for longer",
                body=shapes.Extending,
                answers={200: shapes.LeaseHeld, 404: NO_CHILD, 409: ENDED},
            ),
            _operation(
                "POST",
                "release",
                self.release,
                "Give a task back",
                body=shapes.Releasing,
                answers={200: shapes.Noted, 404: NO_CHILD, 409: ENDED},
            ),
        )

    def _stream(self) -> Operation:
        return _operation(
            "GET",
            "tasks",
            self.follow,
            "Get tasks as a stream, each leased as by taking it",
            name="follow_tasks",
            description=AS_A_STREAM,
            answers={200: "The tasks, as events named `task`", 404: NO_CHILD},
            stream_event=shapes.LeasedTask,
            resumable=False,
            query=(CHILD_ID, SLOTS, SECONDS),
        )

    async def take(self, request: Request) -> Response:
        """Answer the next task, or nothing after a while. Nothing is lost if the child leaves."""
        body = await read_json(request, shapes.Taking, any_content_type=True)
        name = await self._check_name(request)
        request.state.patient = True
        claim = _claim(request, body.child_id, body.seconds)
        gone = asyncio.ensure_future(until_left(request.receive))
        try:
            task = await self._take(name, claim, body.wait, gone)
        finally:
            gone.cancel()
            await asyncio.wait((gone,))
        return Response(status_code=204) if task is None else answer(shapes.TaskTaken("ok", task))

    async def _take(
        self, name: str, claim: Claim, wait: float, gone: "asyncio.Future[None]"
    ) -> shapes.LeasedTask | None:
        bus, jobs = self._shared.bus, self._shared.jobs(name)
        loop = asyncio.get_running_loop()
        until = loop.time() + max(wait, SHORTEST_WAIT)
        while not gone.done():
            delivery = await jobs.next(max(0.0, until - loop.time()), gone)
            if delivery is None:
                break
            if (task := await lease(bus, delivery, claim)) is not None:
                if gone.done():
                    await give_back(bus, task, "the child left before it got the task")
                    break
                return task
        if gone.done():
            raise ClientDisconnect
        return None

    async def follow(self, request: Request) -> EventStream:
        """Answer a stream of tasks."""
        child_id = _read_child_id(request)
        slots = read_int(request, "slots", default=1, low=1, high=MOST_SLOTS)
        seconds = read_int(request, "seconds", default=60, low=1, high=LONGEST_LEASE)
        name = await self._check_name(request)
        claim = _claim(request, child_id, seconds)

        async def open_source() -> TaskSource:
            return TaskSource(self._shared, name, claim, slots)

        # Children may share a key; each of them is somebody of their own.
        owner = f"{claim.principal}/{name}/{child_id}"
        return EventStream(self._shared.streams, owner, open_source)

    async def extend(self, request: Request) -> Response:
        """Let a child hold its task for longer."""
        await self._check_name(request)
        body = await read_json(request, shapes.Extending, any_content_type=True)
        message = Extend(task_id=body.task_id, lease=body.lease, seconds=body.seconds)
        to = Address(MASTER, body.task_id)
        held = await ask_for(request, self._shared.bus, "extend", to, message)
        return answer(shapes.LeaseHeld("ok", held.task_id, held.lease, held.until))

    async def release(self, request: Request) -> Response:
        """Let a child give its task back."""
        await self._check_name(request)
        body = await read_json(request, shapes.Releasing, any_content_type=True)
        message = GiveBack(task_id=body.task_id, lease=body.lease, reason=body.reason)
        to = Address(MASTER, body.task_id)
        noted = await ask_for(request, self._shared.bus, "release", to, message)
        return answer(shapes.Noted("ok", noted.task_status))

    async def _check_name(self, request: Request) -> str:
        """Return the name in the path. Raises Refusal 403 or 404 where it is not the client's.

        Which of the processes of one child it is, its `child_id` tells, is its own affair.
        """
        name = str(request.path_params["name"])
        principal_of(request).check_child(name)
        await wait_for_bus(self._shared.bus)
        found = await self._shared.deployed.find(name) if ACTOR_NAME.fullmatch(name) else None
        if found is None or found.kind != "remote":
            detail = f"no remote child {quote(name)} is deployed"
            raise Refusal(404, "unknown_child", detail)
        return name


def _operation(method: str, path: str, *args: Any, **rest: Any) -> Operation:
    return Operation(
        method,
        f"/api/relay/children/{{name}}/{path}",
        *args,
        scope=CALLBACK,
        error=shapes.Failed,
        variables=(NAME,),
        tag=TAG,
        **rest,
    )


def _claim(request: Request, child_id: str, seconds: float) -> Claim:
    return Claim(child_id, seconds, principal_of(request).id, request.state.traceparent)


def _read_child_id(request: Request) -> str:
    values = request.query_params.getlist("child_id")
    if len(values) != 1 or not 1 <= len(values[0]) <= LONGEST_NAME or "\0" in values[0]:
        detail = f"child_id is expected once, with 1 to {LONGEST_NAME} characters"
        raise Refusal(400, "invalid_parameter", detail)
    return values[0]
