"""How a worker waits for a person: the question is kept by an actor, whatever becomes of the job.

Its id is made from the run's and a name, so each attempt asks the same one, and gets the same
answer.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec
import structlog

from runtime.bus import message_id
from runtime.errors import BusFault, Reject, TurnError
from runtime.run import Attempt
from schemas import subjects
from schemas.approval import (
    APPROVAL,
    ApprovalState,
    AskPerson,
    Decided,
    Withdraw,
    approval_topic,
)
from schemas.base import Address
from schemas.record import Record

log = structlog.get_logger()

LOOK_EVERY = 10.0
"""Seconds between two looks at the record: that it was answered may not be heard."""
WITHDRAW_WITHIN = 2.0
MARGIN = 5.0
"""Seconds of a job that are left to it for what it does with the answer."""

_decode = msgspec.json.Decoder(ApprovalState).decode


class Question:
    """One question of a job, from being asked to being answered.

    `record` reads what is kept of an instance of a keyed actor.
    """

    def __init__(
        self,
        attempt: Attempt,
        name: str,
        ask: AskPerson,
        record: Callable[[Address], Awaitable[Record | None]],
    ) -> None:
        self.ask = ask
        self.to = Address(APPROVAL, message_id(attempt.run, name))
        self._attempt = attempt
        self._record = record
        self._heard = asyncio.Event()

    async def answer(self) -> Decided:
        """Ask, unless it was asked before, and wait for what it comes to.

        Raises Reject for a question that cannot be asked, TurnError if nobody keeps questions,
        Fenced if the run is somebody else's.
        """
        bus = self._attempt.system.bus
        topic = subjects.live(approval_topic(self.to.key))
        handle = bus.subscribe(topic, lambda _: self._heard.set())
        try:
            return await self._wait()
        except asyncio.CancelledError:
            if self._attempt.lost:
                await self._withdraw()
            raise
        finally:
            with contextlib.suppress(BusFault):  # without a connection it has ended already
                bus.unsubscribe(handle)

    async def _wait(self) -> Decided:
        asked = False
        while True:
            self._heard.clear()
            state = await self._look()
            if state.ask is None and not asked:
                self._check_deployed()
                await self._attempt.tell(self.to, self.ask)
                asked = True
            elif state.decided is not None:
                return self._read(state, state.decided)
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._heard.wait()
            except TimeoutError:
                await self._attempt.excuse()

    def _check_deployed(self) -> None:
        if APPROVAL not in self._attempt.system.deployments:
            raise TurnError(
                f"no actor {APPROVAL!r} is deployed, which keeps questions; deploy"
                " actors.approval:Approval under that name"
            )

    async def _look(self) -> ApprovalState:
        record = await self._record(self.to)
        return _decode(record.data) if record and record.data else ApprovalState()

    def _read(self, state: ApprovalState, decided: Decided) -> Decided:
        if decided.fault:
            raise Reject("question_refused", decided.fault, status=422)
        if state.ask is not None and state.ask.question != self.ask.question:
            raise Reject(
                "question_differs",
                f"under this name the job has asked {state.ask.question[:80]!r} before; give"
                " each question a name of its own",
                status=422,
            )
        return decided

    async def _withdraw(self) -> None:
        """The run was stopped: nobody wants to know any more. Another attempt still does."""
        told = Withdraw(reason="what wanted to know was stopped")
        try:
            async with asyncio.timeout(WITHDRAW_WITHIN):
                if await self._attempt.is_over():
                    bus, mail = self._attempt.system.bus, self._attempt.mail(self.to, told)
                    await bus.publish(mail.subject, mail.data, headers=mail.headers)
        except (BusFault, TimeoutError) as fault:
            log.warning("question_not_withdrawn", approval=self.to.key, error=str(fault))


def time_for(attempt: Attempt, elapsed: float, wanted: float | None) -> float:
    """How many seconds a person is given: as many as are wanted, else what is left of the job.

    Raises Reject for more than one attempt may take.
    """
    deadline = attempt.deployment.deadline.total_seconds()
    if wanted is None:
        left = deadline - elapsed
        if (expires := attempt.envelope.expires) is not None:
            left = min(left, (expires - attempt.system.clock.now()).total_seconds())
        return max(1.0, left - min(MARGIN, deadline / 10))
    if wanted > deadline:
        raise Reject(
            "waits_too_long",
            f"a question of {timedelta(seconds=wanted)}: an attempt of {attempt.address.actor!r}"
            f" may take {attempt.deployment.deadline}; give the type a longer `deadline`",
            status=422,
        )
    return wanted
