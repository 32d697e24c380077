"""Fiido's chat: what a customer says is answered by a model, whole or piece by piece.

Next: `edge/support_stream.py` and `edge/support_feed.py` for the streams, `edge/manual.py` for
people.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer
from edge.auth import CHAT_READ, CHAT_SEND
from edge.exchange import Exchange, Outcome
from edge.failures import failure_of
from edge.operation import Endpoint, Operation, Parameter
from edge.problem import Refusal
from edge.seats import Seats
from edge.shared import Shared
from edge.sse import IN_TOTAL
from edge.support_asking import Asked, Customers
from edge.support_feed import Feeds
from edge.support_shapes import (
    ChatAnswered,
    ChatAsked,
    SessionName,
    SupportError,
    SupportEvent,
)
from edge.support_stream import ChatStream
from edge.telling import Broken
from edge.whole import until_answered
from runtime.tables import SupportTable
from schemas.ownership import IN_MANUAL

TAG = "support"
GRACE = 5.0
"""Seconds beyond an answer's time in which its batch says that it is over."""
HELD = "A person has the session, or is waited for: `MANUAL_IN_PROGRESS`"
TOO_MANY = "Too many requests in a minute, or too many streams at once"
LATE = "The model did not answer in time"
REFUSALS = {409: HELD, 429: TOO_MANY, 504: LATE}
STREAMED = (
    "What is refused is refused with its status, before the stream opens. Then come pieces "
    "(`answer`) as the model says them, and `done` at the end with all of it in `full`. `reset` "
    "means that what was said of the answer is to be discarded. If a person takes the session "
    "meanwhile, `status_change` and `done` are the last events. The same Idempotency-Key again, "
    "with the header Last-Event-ID, goes on behind that event."
)
FOLLOWED = (
    "For a browser's EventSource: everything that concerns the customer of a session, each event "
    "with an id to go on from. It begins with `connected`, and with what a model has said so far "
    "of an answer. After five minutes without an event it ends with `idle`; EventSource opens it "
    "again by itself. Without a session it is one of its own, whose name `connected` tells."
)
SESSIONS = tuple(
    Parameter(name, SessionName, "The session to follow; these three mean the same.")
    for name in ("session_name", "user_id", "session_id")
)


class Support:
    """The operations of chat."""

    def __init__(
        self,
        shared: Shared,
        customers: Customers,
        feeds: Feeds,
        seats: Seats,
        limits: SupportTable,
    ) -> None:
        self._shared = shared
        self._customers = customers
        self._feeds = feeds
        self._seats = seats
        self._limits = limits

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            _asking(
                "/api/chat",
                self.chat,
                "Say something, and get the whole answer",
                name="support_chat",
                answers={200: ChatAnswered, **REFUSALS},
            ),
            _asking(
                "/api/chat/stream",
                self.stream,
                "Say something, and get the answer piece by piece",
                name="support_stream",
                description=STREAMED,
                answers={200: "The answer as it is said", **REFUSALS},
                stream_event=SupportEvent,
            ),
            Operation(
                "GET",
                "/api/chat/stream",
                self._feeds.follow,
                "Follow a session, from now on or from a cursor",
                name="follow_session",
                description=FOLLOWED,
                scope=CHAT_READ,
                query=SESSIONS,
                answers={200: "What happens in the session", 429: TOO_MANY},
                stream_event=SupportEvent,
                error=SupportError,
                tag=TAG,
            ),
        )

    async def chat(self, request: Request) -> Response:
        """Answer in one piece."""
        request.state.patient = True
        asked = await self._customers.asked(request)
        exchange = Exchange(self._shared, request, asked.question, escalates=True)
        with self._shared.completions.seat(exchange, None, IN_TOTAL):
            try:
                async with exchange:
                    made = await self._wait(request, exchange, asked)
            except Broken as broken:
                raise broken.refusal from None
        found = answer(made)
        found.headers.update(asked.headers)
        return found

    async def stream(self, request: Request) -> Response:
        """Answer a stream."""
        request.state.patient = True
        asked = await self._customers.asked(request)
        exchange = Exchange(self._shared, request, asked.question, escalates=True)
        return ChatStream(self._shared, self._seats, self._limits, exchange, asked)

    async def _wait(self, request: Request, exchange: Exchange, asked: Asked) -> ChatAnswered:
        opened = exchange.opened
        if not opened.batch:
            exchange.finished = True
            return ChatAnswered(
                success=True,
                message=opened.notice,
                session_name=asked.session,
                conversation_id=opened.thread or None,
                escalated=True,
                session_status=opened.mode,
            )
        within = self._limits.answer_within.total_seconds() + GRACE
        try:
            async with asyncio.timeout(within):
                outcome = await until_answered(request, exchange)
        except TimeoutError:
            detail = f"the model did not answer within {self._limits.answer_within}"
            raise Refusal(504, "timeout", detail) from None
        return await self._answer(exchange, outcome, asked)

    async def _answer(self, exchange: Exchange, outcome: Outcome, asked: Asked) -> ChatAnswered:
        (opened,) = exchange.opened.tasks
        task, said = outcome.state.tasks[opened.task], outcome.answers.get(opened.task)
        if task.status == "FAILED" and not (task.outcome == "refused" and said and said.text):
            if task.code == IN_MANUAL:
                await self._customers.check_bot(asked.session)
            raise failure_of(task)
        if said is None:
            raise Refusal(502, "answer_forgotten", "the answer is no longer kept")
        return ChatAnswered(
            success=True,
            message=said.text,
            session_name=asked.session,
            conversation_id=said.thread or exchange.opened.thread or None,
            message_id=said.run,
        )


def _asking(path: str, endpoint: Endpoint, summary: str, **rest: Any) -> Operation:
    return Operation(
        "POST",
        path,
        endpoint,
        summary,
        scope=CHAT_SEND,
        body=ChatAsked,
        error=SupportError,
        tag=TAG,
        **rest,
    )
