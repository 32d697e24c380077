"""The relay's writes: sending, calling back, acknowledging, clearing.

Reads: `edge/tasks.py`, `edge/journal.py`. Remote children: `edge/children.py`.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from edge import shapes
from edge.asking import answer, ask_for
from edge.auth import CALLBACK, READ, SEND, principal_of
from edge.body import LIMIT, decode, read_body, read_json
from edge.operation import Endpoint, Operation
from edge.parameters import read_idempotency_key
from edge.problem import Refusal
from edge.shared import Shared
from edge.strict import check_json
from runtime.bus import message_id
from schemas.base import Address
from schemas.relay import MASTER, Acknowledge, CallBack, Clear, Order, Send

TAG = "relay"
TASK = "task"
MESSAGE = "message"
LOG_KEEPER = Address(MASTER, "log")
CLEARED = "对话日志已清空"

MISSING = "A field is missing, or is not JSON"
NO_TASK = "There is no such task"
OTHERWISE = "The task has ended otherwise, or somebody else holds it"


class Relay:
    """The operations that change something."""

    def __init__(self, shared: Shared) -> None:
        self._bus = shared.bus

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            _write(
                "/api/relay/send",
                self.send,
                "Send a task or a message",
                SEND,
                body=shapes.Sending,
                answers={
                    200: shapes.SendAccepted,
                    400: MISSING,
                    404: "No child of the name in `to` is deployed",
                    409: "The task_id belongs to another order",
                },
            ),
            _write(
                "/api/relay/callback",
                self.call_back,
                "Say how a task went",
                CALLBACK,
                body=shapes.CallingBack,
                answers={200: shapes.Noted, 400: MISSING, 404: NO_TASK, 409: OTHERWISE},
            ),
            _write(
                "/api/relay/ack",
                self.acknowledge,
                "Say that a task was seen",
                CALLBACK,
                body=shapes.Acknowledging,
                answers={200: shapes.Noted, 400: MISSING, 404: NO_TASK},
            ),
            _write(
                "/api/relay/clear",
                self.clear,
                "Let reads of the log start afresh",
                SEND,
                answers={200: shapes.LogCleared},
            ),
        )

    async def send(self, request: Request) -> Response:
        """Store a task or a message; the answer says under which id."""
        body = await read_json(request, shapes.Sending, any_content_type=True)
        if not body.sender or not body.to:
            raise _missing("from/to")
        order = Order(
            sender=body.sender,
            to=body.to,
            kind=body.type or MESSAGE,
            cmd=body.cmd or "",
            payload=body.payload,
            text=body.text or "",
            priority=body.priority,
        )
        made = _made_id(request)
        task_id = body.task_id or (made if order.kind == TASK else None)
        to = Address(MASTER, task_id or (made if _repeatable(request) else _talk(order)))
        message = Send(order=order, task_id=task_id)
        told = {"task_id": task_id} if task_id else {}
        sent = await ask_for(request, self._bus, "send", to, message, **told)
        return answer(shapes.SendAccepted("ok", sent.task_id))

    async def call_back(self, request: Request) -> Response:
        """End a task, in the words of the child that did it."""
        body = await read_json(request, shapes.CallingBack, any_content_type=True)
        if not body.task_id:
            raise _missing("task_id")
        principal = principal_of(request)
        message = CallBack(
            task_id=body.task_id,
            child_id=body.child_id or "",
            status=body.status or "done",
            result=body.result,
            lease=body.lease or "",
            children=tuple(sorted(principal.children)),
            may_read=READ in principal.scopes,
        )
        noted = await ask_for(request, self._bus, "callback", _master(body.task_id), message)
        return answer(shapes.Noted("ok", noted.task_status))

    async def acknowledge(self, request: Request) -> Response:
        """Note that somebody has seen a task."""
        body = await read_json(request, shapes.Acknowledging, any_content_type=True)
        if not body.task_id:
            raise _missing("task_id")
        children = tuple(sorted(principal_of(request).children))
        message = Acknowledge(task_id=body.task_id, ack_by=body.ack_by or "", children=children)
        noted = await ask_for(request, self._bus, "ack", _master(body.task_id), message)
        return answer(shapes.Noted("ok", noted.task_status))

    async def clear(self, request: Request) -> Response:
        """Mark the log: reads of it begin here. It may come without any body."""
        if raw := await read_body(request, LIMIT):
            check_json(raw)
            decode(raw, dict[str, object])
        message = Clear(by=principal_of(request).id)
        await ask_for(request, self._bus, "clear", LOG_KEEPER, message)
        return answer(shapes.LogCleared("ok", CLEARED))


def _write(path: str, endpoint: Endpoint, summary: str, scope: str, **rest: Any) -> Operation:
    return Operation(
        "POST", path, endpoint, summary, scope=scope, error=shapes.Failed, tag=TAG, **rest
    )


def _missing(what: str) -> Refusal:
    return Refusal(400, "invalid_field", f"missing {what}")


def _master(task_id: str) -> Address:
    return Address(MASTER, task_id)


def _repeatable(request: Request) -> bool:
    return read_idempotency_key(request) is not None


def _made_id(request: Request) -> str:
    """An id nobody can guess: `t_` and 128 bits in decimal.

    A repeat under the same Idempotency-Key must reach the same actor, so it gets the same id.
    """
    key = read_idempotency_key(request)
    if key is None:
        return f"t_{secrets.randbits(128)}"
    name = message_id(principal_of(request).id, "send", key)
    return f"t_{int.from_bytes(hashlib.sha256(name.encode()).digest()[:16])}"


def _talk(order: Order) -> str:
    """Where messages go that belong to no task: those of one pair of speakers stay in order."""
    return f"talk-{message_id(order.sender, order.to)}"
