"""The regulator at work in a session: what is said, and how answers end, may call a person.

Which rules fire is told by schemas/regulating.py. A regulator that fails is logged, and chat
goes on: nobody's message is lost for want of a rule.
"""

from collections.abc import Callable
from typing import TypeVar

from actors.live import Live
from actors.supervised import Supervised
from runtime.actor import handler
from runtime.turn import Turn
from schemas.conversation import OpenBatch, TaskEnded
from schemas.ownership import Customer, Escalation
from schemas.regulating import Count, Regulator, regulator_of, words_of

Found = TypeVar("Found")


class Regulated(Supervised):
    """A conversation to which rules may call a person. One without a team has none."""

    def find_call(self, message: OpenBatch, ctx: Turn) -> Escalation | None:
        """Why a person is called by what is said; None if nobody is."""
        hold, said = self.state.hold, message.said
        if said is None or said.role != "user" or not (message.team or hold.team):
            return None
        customer = message.customer or hold.customer
        return self._ask(lambda rules: rules.on_said(words_of(said), customer), None, ctx)

    @handler
    def note_answer(self, message: TaskEnded, ctx: Turn) -> None:
        """An answer has ended: well, or as one more failure in a row."""
        hold = self.state.hold
        if not hold.team or hold.mode != "bot_active":
            return
        if message.outcome == "answered" and message.excerpt:
            self.ownership(ctx).note(message.excerpt, "assistant")
        count = self._count(message, hold.customer, ctx)
        hold.failures = count.failures
        if count.escalation is not None:
            # Its run has ended; to stop it now would tell followers otherwise.
            runs = [run for run, live in self.state.live.items() if live.task == message.task]
            Live(self.state, self.options, ctx).forget(runs)
            self.ownership(ctx).escalate(count.escalation)

    def _count(self, message: TaskEnded, customer: Customer, ctx: Turn) -> Count:
        failures = self.state.hold.failures
        return self._ask(
            lambda rules: rules.on_ended(message, failures, customer), Count(failures), ctx
        )

    def _ask(self, ask: Callable[[Regulator], Found], otherwise: Found, ctx: Turn) -> Found:
        """What the rules say; where they fail, chat goes on without them."""
        try:
            return ask(regulator_of(self.options.regulator))
        except Exception:
            ctx.log.exception("regulator_failed")
            return otherwise
