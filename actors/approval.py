"""Keeps a question to a person until it is answered, withdrawn or over, whichever comes first.

Whoever asked is told once, and so are its followers, the team's and the conversation's.
"""

from datetime import timedelta

import msgspec

from actors.limits import clip
from actors.schema import AnswerSchema
from runtime.actor import Actor, handler
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.approval import (
    ApprovalAsked,
    ApprovalDue,
    ApprovalState,
    AskPerson,
    Decide,
    Decided,
    Withdraw,
    approval_topic,
)
from schemas.base import Address, Message
from schemas.envelope import encode
from schemas.ownership import MOST_NOTE, desk_topic, internal_topic
from schemas.subjects import ACTOR_NAME

MOST_QUESTION = 4000
MOST_DETAILS = 32 * 1024
MOST_CHOICES = 50
MOST_NAME = 200
SHORTEST = 1.0
EXPIRY = "expiry"


class Approval(Actor):
    """A question by its id."""

    state: ApprovalState

    @handler
    def ask(self, message: AskPerson, ctx: Turn) -> None:
        """Put the question; the first of an id counts, and repeating it changes nothing."""
        if self.state.ask is not None:
            return
        self.state.asked = ctx.now
        if fault := _find_fault(message, ctx):
            self.state.ask = _without_excess(message, ctx)
            self._end(Decided(approval=ctx.key, decision="withdrawn", fault=fault), ctx)
            return
        self.state.ask = _signed(message, ctx)
        after = timedelta(seconds=message.seconds)
        self.state.due = ctx.now + after
        ctx.remind(EXPIRY, ApprovalDue(), after=after)
        self._tell(ApprovalAsked(approval=ctx.key, ask=self.state.ask, due=self.state.due), ctx)

    @handler
    def decide(self, message: Decide, ctx: Turn) -> Decided:
        """Answer it, once; the same answer by the same person again is no fault."""
        ask, decided = self.state.ask, self.state.decided
        if ask is None:
            detail = f"there is no question {clip(ctx.key, 80)!r}"
            raise Reject("approval_not_found", detail, status=404)
        if decided is not None:
            if _is_repeat(decided, message):
                return decided
            raise Reject("ALREADY_DECIDED", _how_decided(decided))
        _check_words(message)
        if fault := find_misfit(ask, message):
            raise Reject("answer_invalid", fault, status=422)
        return self._end(
            Decided(
                approval=ctx.key,
                decision=message.decision,
                answer=message.answer,
                by=message.by,
                note=message.note,
            ),
            ctx,
        )

    @handler
    def withdraw(self, message: Withdraw, ctx: Turn) -> None:
        """End it without an answer, unless it has one."""
        if self.state.ask is not None and self.state.decided is None:
            note = clip(message.reason, MOST_NOTE)
            by = self.state.ask.asker
            self._end(
                Decided(approval=ctx.key, decision="withdrawn", by=by, note=note),
                ctx,
            )

    @handler
    def expire(self, message: ApprovalDue, ctx: Turn) -> None:
        """Nobody has answered: what was to be assumed holds."""
        ask = self.state.ask
        if ask is None or self.state.decided is not None:
            return
        note = f"nobody answered within {ask.seconds:g} s"
        assumed = Decided(
            approval=ctx.key,
            decision=ask.assume,
            answer=ask.assume_answer,
            note=note,
            defaulted=True,
        )
        self._end(assumed, ctx)

    def _end(self, decided: Decided, ctx: Turn) -> Decided:
        """The one end of a question."""
        assert self.state.ask is not None
        told = _at(decided, ctx)
        self.state.decided = told
        ctx.forget(EXPIRY)
        self._tell(told, ctx)
        actor, _, key = self.state.ask.reply.partition("/")
        if not key:
            return told
        if ctx.deployed(actor, "keyed", handling=Decided):
            ctx.tell(Address(actor, key), told)
        else:
            ctx.log.warning("asker_not_told", asker=self.state.ask.reply)
        return told

    def _tell(self, event: Message, ctx: Turn) -> None:
        """Tell all who follow it: by itself, with its team's, and with its conversation's."""
        ask = self.state.ask
        assert ask is not None
        ctx.emit(approval_topic(ctx.key), event)
        if ask.team:
            ctx.emit(desk_topic(ask.team), event)
        if ask.conversation:
            ctx.emit(internal_topic(ask.conversation), event)


def find_misfit(ask: AskPerson, given: Decide) -> str:
    """Why an answer is none to this question, behind its place; nothing if it is one."""
    if given.decision == "denied":
        return "" if given.answer is None else "/answer: a no has none; say why in the note"
    if ask.answers is None and not ask.choices:
        if given.decision == "answered":
            return "/decision: this is a question of yes or no: expected 'approved' or 'denied'"
        return (
            "/answer: this is a question of yes or no: expected none"
            if given.answer is not None
            else ""
        )
    if ask.choices and given.answer not in ask.choices:
        shown = clip(repr(given.answer), 80)
        return f"/answer: {shown}: expected one of {clip(', '.join(ask.choices), 300)}"
    if ask.answers is not None:
        fault = AnswerSchema(ask.answers).find_fault(given.answer)
        return f"/answer{fault}" if fault else ""
    return ""


def _find_fault(ask: AskPerson, ctx: Turn) -> str:
    """Why a question cannot be asked; nothing if it can."""
    if not ask.question.strip() or len(ask.question) > MOST_QUESTION:
        return f"question: {len(ask.question)} characters, expected 1 to {MOST_QUESTION}"
    if (size := len(encode(ask.details))) > MOST_DETAILS:
        return f"details: {size} bytes, at most {MOST_DETAILS}"
    longest = ctx.furthest(ctx.address.actor).total_seconds()
    if not SHORTEST <= ask.seconds <= longest:
        return (
            f"seconds: {ask.seconds!r}, expected {SHORTEST:g} to {longest:g}, the lifetime of"
            f" {ctx.address.actor!r}"
        )
    actor, slash, key = ask.reply.partition("/")
    if ask.reply and not (slash and key and ACTOR_NAME.fullmatch(actor)):
        return f"reply: {clip(ask.reply, 80)!r}, expected an address, actor/key"
    return _find_long_name(ask) or _find_bad_choice(ask) or _find_bad_answers(ask)


def _find_long_name(ask: AskPerson) -> str:
    names = {"conversation": ask.conversation, "team": ask.team, "asker": ask.asker}
    for what, name in {**names, "tool": ask.tool, "reply": ask.reply}.items():
        if len(name) > MOST_NAME:
            return f"{what}: {len(name)} characters, at most {MOST_NAME}"
    return ""


def _find_bad_choice(ask: AskPerson) -> str:
    if len(ask.choices) > MOST_CHOICES or len(set(ask.choices)) < len(ask.choices):
        return f"choices: {len(ask.choices)}, expected at most {MOST_CHOICES}, each once"
    if any(not 1 <= len(choice) <= MOST_NAME for choice in ask.choices):
        return f"choices: expected 1 to {MOST_NAME} characters each"
    return ""


def _find_bad_answers(ask: AskPerson) -> str:
    """What is wrong with the schema, or with what is assumed by it."""
    try:
        if ask.answers is not None:
            AnswerSchema(ask.answers)
    except ValueError as error:
        return f"answers: {error}"
    if ask.assume == "withdrawn":
        return "assume: 'withdrawn', expected 'approved', 'denied', 'answered' or 'expired'"
    if ask.assume == "expired":
        return "" if ask.assume_answer is None else "assume_answer: expected none with 'expired'"
    if fault := find_misfit(ask, Decide(decision=ask.assume, answer=ask.assume_answer)):
        return f"assume: {fault}"
    return ""


def _without_excess(ask: AskPerson, ctx: Turn) -> AskPerson:
    """As much of a question that cannot be asked as is needed to say so."""
    return AskPerson(
        question=clip(ask.question, MOST_NAME),
        reply=ask.reply if len(ask.reply) <= MOST_NAME else "",
        conversation=ask.conversation if len(ask.conversation) <= MOST_NAME else "",
        team=ask.team if len(ask.team) <= MOST_NAME else "",
        asker=clip(ask.asker or ctx.envelope.source, MOST_NAME),
    )


def _check_words(given: Decide) -> None:
    """Raises Reject for words that are too many to be kept."""
    for what, text, most in (("note", given.note, MOST_NOTE), ("by", given.by, MOST_NAME)):
        if len(text) > most:
            detail = f"/{what}: {len(text)} characters, at most {most}"
            raise Reject("answer_invalid", detail, status=422)


def _is_repeat(decided: Decided, given: Decide) -> bool:
    return (
        not decided.defaulted
        and (decided.decision, decided.by) == (given.decision, given.by)
        and encode(decided.answer) == encode(given.answer)
    )


def _how_decided(decided: Decided) -> str:
    """What it came to, by whom and when, for whoever comes too late."""
    answer = "" if decided.answer is None else f" with {clip(encode(decided.answer).decode(), 200)}"
    when = f" at {decided.at:%Y-%m-%dT%H:%M:%SZ}" if decided.at else ""
    by = f" by {decided.by}" if decided.by else ""
    return f"it was {decided.decision}{answer}{by}{when}" + (
        f": {decided.note}" if decided.defaulted else ""
    )


def _signed(ask: AskPerson, ctx: Turn) -> AskPerson:
    return ask if ask.asker else msgspec.structs.replace(ask, asker=ctx.envelope.source)


def _at(decided: Decided, ctx: Turn) -> Decided:
    return msgspec.structs.replace(decided, at=ctx.now)
