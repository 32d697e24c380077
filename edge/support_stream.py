"""An answer to a customer as a stream: each piece as it comes, until all of it was said.

It is asked before the stream opens, so that what is refused has a status. A person who takes the
session ends it.
"""

import time
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge.exchange import Exchange, Outcome
from edge.failures import failure_of
from edge.following import Event
from edge.outflow import Write, pour
from edge.parameters import read_cursor
from edge.problem import Refusal
from edge.seats import Seats
from edge.shared import Shared
from edge.sse import HEADERS, HEARTBEAT, IN_TOTAL
from edge.support_asking import Asked
from edge.support_events import Retelling, stamp, write_event
from edge.telling import Broken
from runtime.tables import SupportTable
from schemas.ownership import IN_MANUAL

AT_ONCE = 64 * 1024
"""Bytes that are written together, if they wait already."""
NEXT_STEP = 0.05
"""Seconds for which the second step of a direct takeover is waited for."""


class ChatStream(Response):
    """The stream of one answer. Everything is released however it ends."""

    def __init__(
        self,
        shared: Shared,
        seats: Seats,
        limits: SupportTable,
        exchange: Exchange,
        asked: Asked,
    ) -> None:
        # As Starlette's own streams do, which send their headers themselves.
        self.status_code, self.background = 200, None
        self._shared = shared
        self._seats = seats
        self._limits = limits
        self._exchange = exchange
        self._asked = asked
        self._cursor = 0
        """What was said up to here, the client knows already."""
        self._told = False
        self._retelling = Retelling()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream. Raises Refusal before anything is sent."""
        head = {**HEADERS, **self._asked.headers}
        with self._shared.streams.seat(self._exchange, None, IN_TOTAL):
            async with self._seats.held(self._asked.user), self._exchange as exchange:
                if exchange.may_repeat:
                    self._cursor = read_cursor(self._asked.request) or 0
                if exchange.opened.batch:
                    (task,) = exchange.opened.tasks
                    self._retelling = Retelling(task.task, task.run)
                within = self._shared.streams.write_within
                await pour(scope, receive, send, head, self._say, within=within)

    async def _say(self, write: Write) -> None:
        # With the head, so that proxies let it through before the first word.
        await write(HEARTBEAT + self._opened())
        if not self._exchange.opened.batch:
            await write(self._escalated())
            self._exchange.finished = True
            return
        try:
            await self._retell(write)
        except Broken as broken:
            refusal = broken.refusal
            await write(self._failed(refusal))
            return
        self._exchange.finished = True

    async def _retell(self, write: Write) -> None:
        if self._exchange.may_repeat and (ended := await self._look()):
            await write(ended)
            return
        heard_at = time.monotonic()
        while not self._retelling.over:
            item = await self._exchange.next(self._limits.heartbeat.total_seconds())
            if isinstance(item, Event):
                heard_at = time.monotonic()
                if said := await self._with_more(item):
                    await write(said)
                continue
            if ended := await self._look():
                await write(ended)
                return
            if time.monotonic() - heard_at >= self._limits.idle.total_seconds():
                raise Broken(Refusal(504, "idle", "nothing was said for too long"))
            await write(HEARTBEAT)

    # -- what is heard ---------------------------------------------------------------------

    async def _with_more(self, first: Event) -> bytes:
        """What an event adds, with what is there already behind it, and all of a takeover."""
        said = self._hear(first)
        mode = self._retelling.mode
        if mode in (None, "bot_active"):
            return said
        while self._retelling.mode == "pending_manual":
            item = await self._exchange.next(NEXT_STEP)
            if not isinstance(item, Event):
                break
            said += self._hear(item)
        if self._retelling.over:
            return said
        self._retelling.over = True
        return said + self._done(self._retelling.said, IN_MANUAL)

    def _hear(self, first: Event) -> bytes:
        event: Event | None = first
        written: list[bytes] = []
        size = 0
        while event is not None:
            told = self._retelling.hear(event)
            if told and event.seq > self._cursor:
                written.append(told)
                size += len(told)
            if self._retelling.over or size >= AT_ONCE:
                break
            event = self._exchange.ready()
        self._told = self._told or bool(written)
        return b"".join(written)

    # -- what was not heard ----------------------------------------------------------------

    async def _look(self) -> bytes:
        """How the answer ended, if it has and nothing was heard of that."""
        outcome = await self._exchange.outcome()
        if outcome is None:
            return b""
        before = b""
        if self._told or self._cursor:
            before = write_event("reset", message_id=self._retelling.run)
        return before + self._whole(outcome)

    def _whole(self, outcome: Outcome) -> bytes:
        (opened,) = self._exchange.opened.tasks
        task, said = outcome.state.tasks[opened.task], outcome.answers.get(opened.task)
        self._retelling.over = True
        if task.status == "FAILED" and not (task.outcome == "refused" and said and said.text):
            return self._failed(failure_of(task))
        if said is None:
            return self._failed(Refusal(502, "answer_forgotten", "the answer is no longer kept"))
        piece = (
            write_event("answer", content=said.text, message_id=self._retelling.run)
            if said.text
            else b""
        )
        return piece + self._done(said.text)

    # -- ends ------------------------------------------------------------------------------

    def _opened(self) -> bytes:
        opened = self._exchange.opened
        return write_event(
            "connected",
            session_name=self._asked.session,
            status=opened.mode,
            conversation_id=opened.thread or None,
        )

    def _escalated(self) -> bytes:
        """What was said has called a person; the bot does not answer."""
        opened, now = self._exchange.opened, stamp(datetime.now(UTC))
        reason = opened.escalation.reason if opened.escalation else ""
        told = write_event(
            "status_change",
            status=opened.mode,
            reason=reason,
            agent_info=None,
            timestamp=now,
            notice=opened.notice,
        )
        if opened.notice:
            told += write_event(
                "manual_message", role="system", content=opened.notice, timestamp=now
            )
        return told + self._done(opened.notice, "escalated", escalated=True)

    def _failed(self, refusal: Refusal) -> bytes:
        said = write_event(
            "error", content=refusal.detail, code=refusal.code, message_id=self._retelling.run
        )
        return said + self._done(None, refusal.code)

    def _done(self, full: str | None, reason: str = "", **more: Any) -> bytes:
        fields: dict[str, Any] = {"content": "", "message_id": self._retelling.run}
        if full is not None:
            fields["full"] = full
        if reason:
            fields["reason"] = reason
        return write_event("done", **fields, **more)
