"""Waiting for a person, as a thing of its own: a question with an answer, an end and a default.

Any actor may ask; the answer may be given on any surface, after any restart, once.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.base import Message, Request, Topic
from schemas.ownership import SUPPORT

APPROVAL = "approval"
"""The type that keeps questions, one instance each; its key is the question's id."""

Decision = Literal["approved", "denied", "answered", "expired", "withdrawn"]


class Decided(Message, tag="approval.decided"):
    """What a question came to; told to who asked, and on approval/<id>."""

    approval: str
    decision: Decision
    answer: Any = None
    by: str = ""
    note: str = ""
    at: datetime | None = None
    defaulted: bool = False
    """Whether nobody answered in time, and this is what was to be assumed then."""
    fault: str = ""
    """Why it could not be asked at all; it counts as withdrawn then."""


class AskPerson(Message, tag="approval.ask"):
    """Ask a person, once: said again under the same id it changes nothing.

    `answers` is a JSON Schema (2020-12) of the answer, `choices` are the texts it is one of;
    without either only yes and no are possible, and with either no yes without an answer.
    `seconds` is how long it may take; then `assume` is the decision (`expired` by default) and
    `assume_answer` the answer. `reply` is the address (`actor/key`) that is told, if any;
    `conversation` what it is about, `team` who may answer.
    """

    question: str
    details: dict[str, Any] = msgspec.field(default_factory=dict)
    answers: dict[str, Any] | None = None
    choices: tuple[str, ...] = ()
    seconds: float = 24 * 3600.0
    assume: Decision = "expired"
    assume_answer: Any = None
    reply: str = ""
    conversation: str = ""
    team: str = SUPPORT
    asker: str = ""
    tool: str = ""


class Decide(Request[Decided], tag="approval.decide"):
    """Answer a question.

    The same answer by the same person again is no fault. Refused: 404 `approval_not_found`, 409
    `ALREADY_DECIDED` (its detail says what and by whom), 422 `answer_invalid` (where, what was
    expected).
    """

    decision: Literal["approved", "denied", "answered"]
    answer: Any = None
    by: str = ""
    note: str = ""


class Withdraw(Message, tag="approval.withdraw"):
    """Who asked does not want to know any more."""

    reason: str = ""


class ApprovalDue(Message, tag="approval.due"):
    """Its time is over: what is assumed holds, unless somebody has answered."""


class ApprovalAsked(Message, tag="approval.asked"):
    """Told on approval/<id>, on desk/<team> and on internal/<c>: somebody waits for a person."""

    approval: str
    ask: AskPerson
    due: datetime | None = None


class ApprovalState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A question by its id."""

    ask: AskPerson | None = None
    asked: datetime | None = None
    due: datetime | None = None
    decided: Decided | None = None


def approval_topic(id: str) -> Topic:
    """Where one question is followed."""
    return Topic("approval", id)
