"""One completion on its way: asked, followed until it has ended, given up if nobody waits.

It is followed before it is asked, so that no word of it is missed.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import structlog
from starlette.requests import Request

from edge.asking import ANSWER_WITHIN, ask_for
from edge.failures import NO_RETRY
from edge.following import Event, Following, Reset
from edge.outcome import find_answers, find_batch
from edge.parameters import read_idempotency_key
from edge.problem import Refusal
from edge.shared import Shared
from edge.telling import Broken
from runtime.ask import ask
from runtime.errors import AskTimeout, BusFault, Refused
from schemas import subjects
from schemas.base import Address
from schemas.conversation import (
    BATCH,
    FINAL,
    SESSION,
    Abort,
    BatchOpened,
    BatchState,
    MessageAnswered,
    OpenBatch,
)
from schemas.model import conversation_topic
from schemas.ownership import IN_MANUAL

log = structlog.get_logger("edge")

ROUTE = "completion"
MOST_SILENT = 3600.0
"""Seconds without a word after which nobody is believed to be at it any more."""
MOST_AWAY = 30.0
"""Seconds for which a store that is away is waited for."""
STOP_GRACE = 5.0
"""Seconds that answers have to end when the process is about to stop."""
ONE_COMMIT = 1000
"""Messages that may stand between a batch's beginning and the message that starts it."""


class Outcome(NamedTuple):
    """How a batch ended, and its answers by task."""

    state: BatchState
    answers: Mapping[str, MessageAnswered]


@dataclass(frozen=True)
class Question:
    """What is asked of whom. `bodyhash` is what a repeat of it must have in common."""

    to: Address
    message: OpenBatch
    bodyhash: str

    @property
    def named(self) -> bool:
        """Whether the client named the conversation, which then goes on without it."""
        return self.to.actor == SESSION


def called(opened: BatchOpened) -> Refusal:
    """The refusal of what has called a person, for those who can be told only of answers."""
    detail = opened.notice or "what was said has called a person, who will answer it"
    return Refusal(409, IN_MANUAL, detail, headers=NO_RETRY, mode=opened.mode)


class Exchange:
    """A question and what is heard of it, from `async with` to its end.

    Where what was said calls a person, it is refused, unless whoever asks `escalates`: there is
    no batch then.
    """

    opened: BatchOpened

    def __init__(
        self, shared: Shared, request: Request, question: Question, *, escalates: bool = False
    ) -> None:
        self._shared = shared
        self._request = request
        self._question = question
        self._escalates = escalates
        self.may_repeat = read_idempotency_key(request) is not None
        """Whether this may be another try at a request, whose answer is perhaps there."""
        self._following: Following
        self._waiting: asyncio.Timeout | None = None
        self._stopping = False
        self._heard_at = time.monotonic()
        self._away_since = 0.0
        self.finished = False
        """Whether everything was heard; until then, leaving means giving up."""

    async def __aenter__(self) -> "Exchange":
        """Follow, then ask. Raises Refusal, BusFault."""
        hub, question = self._shared.hub, self._question
        topic = conversation_topic(question.to.key)
        if question.named:
            self._following = await hub.follow(topic, None)
        else:
            self._following = hub.follow_new(topic)
        try:
            self.opened = await ask_for(
                self._request,
                self._shared.bus,
                ROUTE,
                question.to,
                question.message,
                bodyhash=question.bodyhash,
            )
            if not (self.opened.batch or self._escalates):
                raise called(self.opened)
            if self.may_repeat and self.opened.batch:
                await self._go_back()
        except BaseException as fault:
            # What was refused has not begun.
            self.finished = isinstance(fault, Refusal) and fault.status < 500
            self._leave()
            if isinstance(fault, Refusal) and self._is_given_up:
                # Whether it was stored or not, it may be asked for anew.
                fault.headers.pop("x-should-retry", None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Follow no more, and have an answer given up that nobody waits for."""
        self._leave()

    def end(self) -> None:
        """Come to an end soon: the process is about to stop."""
        asyncio.get_running_loop().call_later(STOP_GRACE, self._stop)

    async def next(self, within: float | None = None) -> Event | Reset | None:
        """Return what is heard next; None if nothing was for so many seconds.

        That is as long as a heartbeat if it is not said. Raises Broken 503 once the process is
        about to stop.
        """
        self._check_stopping()
        within = self._shared.streams.heartbeat if within is None else within
        try:
            async with asyncio.timeout(within) as self._waiting:
                heard = await anext(self._following)
                self._heard_at = time.monotonic()
                return heard
        except TimeoutError:
            self._check_stopping()
            return None
        finally:
            self._waiting = None

    def ready(self) -> Event | None:
        """The next event, if it is here already."""
        return self._following.ready()

    async def outcome(self) -> Outcome | None:
        """Return what became of the batch and its answers; None if it has not ended yet.

        A store that is away is waited for. Raises Broken if that takes too long.
        """
        try:
            address = Address(await self._batches(), self.opened.batch)
            state = await find_batch(self._shared.bus, address)
            self._away_since = 0.0
            if state is None or state.status not in FINAL:
                self._check_silence()
                return None
            answers = await find_answers(self._shared.bus, self.opened.batch, state)
            return Outcome(state, answers)
        except Refusal as refusal:
            raise Broken(refusal) from None
        except BusFault as fault:
            log.info("outcome_not_read", batch=self.opened.batch, error=str(fault))
            self._check_absence()
            return None

    # -- looking back ----------------------------------------------------------------------

    async def _go_back(self) -> None:
        """Hear all of a batch that this request may only repeat."""
        after = 0
        if self._question.named:
            address = Address(await self._batches(), self.opened.batch)
            state = await find_batch(self._shared.bus, address)
            after = state.after if state else 0
            if not after:
                mail = await self._shared.bus.last(subjects.stored_at(address))
                after = max(1, mail.seq - ONE_COMMIT) if mail else 0
        self._following.close()
        topic = conversation_topic(self._question.to.key)
        self._following = await self._shared.hub.follow(topic, after)

    async def _batches(self) -> str:
        """The type that gathers for this kind of conversation."""
        deployed = await self._shared.deployed.find(self._question.to.actor)
        return str(deployed.options.get("batches") or BATCH) if deployed else BATCH

    # -- ending ----------------------------------------------------------------------------

    def _stop(self) -> None:
        self._stopping = True
        if self._waiting is not None:
            # It may be expiring at this very moment, which does as well.
            with contextlib.suppress(RuntimeError):
                self._waiting.reschedule(asyncio.get_running_loop().time())

    def _check_stopping(self) -> None:
        if self._stopping:
            detail = "the server is about to stop; repeat the request"
            raise Broken(Refusal(503, "server_stopping", detail))

    def _check_silence(self) -> None:
        if time.monotonic() - self._heard_at > MOST_SILENT:
            detail = f"nothing was heard of the request for {MOST_SILENT:g} s"
            raise Broken(Refusal(504, "timeout", detail, headers=NO_RETRY))

    def _check_absence(self) -> None:
        self._away_since = self._away_since or time.monotonic()
        if time.monotonic() - self._away_since > MOST_AWAY:
            detail = "the store does not say what became of the request; try again in a moment"
            raise Broken(Refusal(503, "unavailable", detail))

    @property
    def _is_given_up(self) -> bool:
        """Whether nobody wants what was begun: under a key it may be repeated by somebody."""
        return not (self.finished or self._question.named or self.may_repeat)

    def _leave(self) -> None:
        self._following.close()
        if self._is_given_up:
            self._shared.later(self._give_up())

    async def _give_up(self) -> None:
        """Stop all of a conversation that was begun for this one request."""
        question = Abort(reason="its client has left")
        try:
            await ask(self._shared.bus, self._question.to, question, timeout=ANSWER_WITHIN)
        except (Refused, AskTimeout, BusFault) as fault:
            log.info("completion_not_given_up", key=self._question.to.key, error=str(fault))
