"""Tries rules on conversations as they were recorded: who would have been called a person for.

Pure: whoever reads the log (runtime/rehearsal.py) tells it what was said, in order.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

import msgspec

from schemas.conversation import MessageAnswered, MessageSaid, TaskEnded
from schemas.ownership import Customer, Escalation
from schemas.regulating import Regulator, words_of

MOST_EXCERPT = 200
"""Characters of an answer that a session is told of."""


class Case(msgspec.Struct, kw_only=True):
    """One conversation: whom these rules call a person for, and whom one was called for."""

    conversation: str
    would: Escalation | None = None
    did: Escalation | None = None


class Report(msgspec.Struct, kw_only=True):
    """What came of a try. `messages` are those of customers that were looked at; `cases` are the
    conversations in which somebody would be, or was, called, the newest last."""

    version: str
    conversations: int = 0
    messages: int = 0
    cases: list[Case] = []

    def would(self) -> dict[str, int]:
        """How many conversations each rule would have called a person to."""
        return _count(case.would.rule for case in self.cases if case.would)

    def did(self) -> dict[str, int]:
        """How many a person was called to: by which rule, or by hand."""
        return _count(case.did.rule or case.did.reason for case in self.cases if case.did)

    def agreed(self) -> int:
        """How many of those a person was called to would be again."""
        return sum(bool(case.would and case.did) for case in self.cases)


class Rehearsal:
    """One conversation as it is heard again, up to where a person is called."""

    def __init__(self, regulator: Regulator, customer: Customer) -> None:
        self.would: Escalation | None = None
        self.messages = 0
        self._regulator = regulator
        self._customer = customer
        self._failures = 0
        self._ended: dict[str, TaskEnded] = {}

    def hear(self, message: MessageSaid | MessageAnswered, at: datetime) -> None:
        """Take in what was said or answered then."""
        if self.would is not None:
            return
        if isinstance(message, MessageAnswered):
            # A task that goes to another model has several answers, of which the last one counts.
            self._ended[message.task] = _ended(message)
            return
        self.end(at)
        if self.would is None and message.message.role == "user":
            self.messages += 1
            said = words_of(message.message)
            self._call(self._regulator.on_said(said, self._customer), at)

    def end(self, at: datetime) -> None:
        """Count how the answers ended that have come so far."""
        ended, self._ended = self._ended, {}
        for one in ended.values():
            if self.would is None:
                count = self._regulator.on_ended(one, self._failures, self._customer)
                self._failures = count.failures
                self._call(count.escalation, at)

    def _call(self, found: Escalation | None, at: datetime) -> None:
        self.would = msgspec.structs.replace(found, at=at) if found else None


def _ended(answer: MessageAnswered) -> TaskEnded:
    return TaskEnded(
        batch=answer.batch,
        task=answer.task,
        outcome=answer.outcome,
        excerpt=answer.text[:MOST_EXCERPT],
    )


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
