"""A chat completion as a stream: what is heard is written as it comes, until all has been heard.

What fails before its first word is answered with a status, what fails later within the stream.
"""

import time

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge.chunks import COMMENT, DONE, Chunks, count, error_chunk
from edge.exchange import Exchange, Outcome
from edge.failures import failure_of
from edge.following import Event
from edge.outflow import Write, pour
from edge.problem import Refusal
from edge.shared import Shared
from edge.sse import HEADERS, IN_TOTAL
from edge.telling import Broken, Choice, Telling
from edge.whole import completion_id, processing
from schemas.conversation import MessageAnswered
from schemas.record import Delta

SOON = 5.0
"""Seconds for which the first word is waited for before the stream begins without it."""
AT_ONCE = 64 * 1024
"""Bytes that are written together, if they wait already."""
INTERRUPTED = "a part of the answer was lost on its way; discard the rest, and repeat the request"


class CompletionStream(Response):
    """An answer of chunks. It is asked for once it is served: what is refused has a status."""

    def __init__(
        self, shared: Shared, exchange: Exchange, model: str, *, usage: bool, began: float
    ) -> None:
        # As Starlette's own streams do, which send their headers themselves.
        self.status_code, self.background = 200, None
        self._seats, self._streams = shared.completions, shared.streams
        self._exchange = exchange
        self._model = model
        self._usage = usage
        self._began = began
        self._head = dict(HEADERS)
        self._chunks: Chunks
        self._telling: Telling
        self._broken: Broken | None = None
        self._doubtful = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream. Raises Refusal before anything is sent."""
        with self._seats.seat(self._exchange, None, IN_TOTAL):
            async with self._exchange as exchange:
                name = completion_id(exchange.opened.batch)
                self._chunks = Chunks(name, int(time.time()), self._model, usage=self._usage)
                self._telling = Telling(exchange.opened, self._chunks)
                within = self._streams.write_within
                await pour(scope, receive, send, self._head, self._say, within=within)

    async def _say(self, write: Write) -> None:
        try:
            first = COMMENT + await self._begin()
        except Broken as broken:
            raise broken.refusal from None
        self._head |= processing(self._began)
        try:
            await write(first)
            while not self._telling.done:
                await write(await self._next(self._streams.heartbeat) or COMMENT)
        except Broken as broken:
            await write(error_chunk(broken.refusal))
            return
        self._exchange.finished = True
        usages = [choice.usage for choice in self._telling.choices]
        await write((self._chunks.usage(count(usages)) if self._usage else b"") + DONE)

    async def _begin(self) -> bytes:
        """The first words; nothing if none come soon."""
        said = await self._look() if self._exchange.may_repeat else b""
        if said or self._telling.done:
            return said
        return await self._next(min(SOON, self._streams.heartbeat))

    async def _next(self, within: float) -> bytes:
        """What comes next; nothing if nothing comes for so many seconds."""
        if self._broken is not None:
            raise self._broken
        until = time.monotonic() + within
        while (left := until - time.monotonic()) > 0:
            item = await self._exchange.next(left)
            if not isinstance(item, Event):
                return await self._look()
            if written := self._hear(item):
                return written
        return b""

    def _hear(self, first: Event) -> bytes:
        """What an event adds, with what is there already behind it."""
        event: Event | None = first
        written: list[bytes] = []
        size = 0
        try:
            while event is not None and size < AT_ONCE and not self._telling.done:
                written.append(self._telling.hear(event.name, event.data))
                size += len(written[-1])
                event = self._exchange.ready()
        except Broken as broken:
            if not size:
                raise
            self._broken = broken
        return b"".join(written)

    # -- what was not heard ----------------------------------------------------------------

    async def _look(self) -> bytes:
        """See whether the batch has ended although nothing was heard of it."""
        outcome = await self._exchange.outcome()
        if outcome is None:
            return b""
        return b"".join(self._catch_up(c, outcome) for c in self._telling.choices if not c.done)

    def _catch_up(self, choice: Choice, outcome: Outcome) -> bytes:
        """The rest of a choice that has ended. Raises Broken if it cannot be told any more."""
        task = outcome.state.tasks.get(choice.task)
        said = outcome.answers.get(choice.task)
        if task is None or (said is None and task.status == "SUCCESS"):
            raise Broken(Refusal(502, "answer_forgotten", "the answer is no longer kept"))
        if task.status == "FAILED" and task.outcome != "refused":
            raise Broken(failure_of(task))
        if choice.begun:
            # What it lacks may be about to come.
            if self._doubtful:
                raise Broken(Refusal(502, "interrupted", INTERRUPTED))
            self._doubtful = True
            return b""
        written = self._write_whole(choice, said) if said else b""
        finish = task.finish
        if task.outcome == "refused":
            choice.refused, finish = task.reason or "the model refused to answer", "content_filter"
        return written + self._telling.end(choice, finish, task.usage)

    def _write_whole(self, choice: Choice, said: MessageAnswered) -> bytes:
        pieces = [Delta(text=said.reasoning, kind="reasoning"), Delta(text=said.text)]
        calls = [
            Delta(text=call.arguments, kind="tool", index=n, call=call.id, name=call.name)
            for n, call in enumerate(said.calls)
        ]
        wanted = [each for each in (*pieces, *calls) if each.text or each.call]
        return b"".join(self._telling.write(choice, each) for each in wanted)
