"""What people and their desk may say to a session. How it is done: actors/ownership.py.

Each is one turn: asked too late, or by somebody else, it changes nothing and says why.
"""

from datetime import datetime
from typing import Literal

from actors.limits import check_customer, clip
from actors.opening import MOST_TITLE, check_owner, unknown
from actors.ownership import MOST_NAME, Ownership, Why, in_manual, shown, standing
from actors.session_options import MOST_MARKS, SessionOptions
from actors.terms import span
from runtime.actor import Actor, handler
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.ownership import (
    MOST_NOTE,
    MOST_SAID,
    AddNote,
    Assignee,
    Cancel,
    CloseForNow,
    Customer,
    Escalate,
    Escalation,
    Held,
    MailNoted,
    MailSettled,
    NoteAdded,
    Noted,
    OfferCase,
    Release,
    Requeue,
    ReturnToBot,
    SayManual,
    SetCustomer,
    SlaAlert,
    TakeOver,
    Transfer,
    internal_topic,
)
from schemas.session import SessionState
from schemas.waits import FirstDue, IdleDue, ReplyDue

MOST_MAIL = 20


class Supervised(Actor):
    """A conversation that people can take from the bot, and give back to it."""

    state: SessionState
    options: SessionOptions

    def ownership(self, ctx: Turn) -> Ownership:
        """Who may speak, for one change of it."""
        return Ownership(self.state, self.options, ctx)

    # -- between the bot and people ------------------------------------------------------------

    @handler
    def escalate(self, message: Escalate, ctx: Turn) -> Held:
        """A person is called, by the customer or by a colleague."""
        if not message.desk:
            check_owner(self.state.owner, ctx)
        check_team(message.team)
        if self.state.hold.mode == "manual_live":
            raise in_manual(self.state)
        ownership = self.ownership(ctx)
        ownership.begin("" if message.desk else ctx.envelope.principal)
        news = message.customer is not None and self._know(message.customer, ownership)
        if self.state.hold.mode == "bot_active":
            escalation = Escalation(
                reason="manual",
                severity=message.severity,
                details=message.details,
                by=message.by,
            )
            ownership.escalate(escalation, team=message.team)
            return ownership.held()
        if news:
            ownership.publish("customer")
        return ownership.held(changed=news)

    @handler
    def take_over(self, message: TakeOver, ctx: Turn) -> Held:
        """A person takes it. Of two who do so at once, the second is told of the first."""
        self._check_exists(ctx)
        check_agent(message.agent)
        check_team(message.team)
        ownership, hold = self.ownership(ctx), self.state.hold
        if hold.mode == "manual_live" and hold.assignee is not None:
            if hold.assignee.id == message.agent.id:
                return ownership.held(changed=False)
            raise self._taken("ALREADY_TAKEN", f"{shown(hold.assignee)} has it already")
        if hold.assignee and hold.assignee.id != message.agent.id and not message.force:
            detail = f"it is offered to {shown(hold.assignee)}; take it by `force` if need be"
            raise self._taken("ASSIGNED_TO_OTHER", detail)
        if message.epoch and message.epoch != hold.epoch:
            detail = f"things have changed since epoch {message.epoch}: it is {hold.epoch}"
            raise self._taken("STALE_EPOCH", detail)
        ownership.take(message.agent, team=message.team)
        return ownership.held()

    @handler
    def release(self, message: Release, ctx: Turn) -> Held:
        """Whose it is gives it back to the bot."""
        self._check_exists(ctx)
        self._check_assignee(message.agent, force=message.force)
        ownership = self.ownership(ctx)
        why = Why("released", clip(message.agent, MOST_NAME), message.reason)
        ownership.give_back(why, notice=ownership.notices.released)
        return ownership.held()

    @handler
    def cancel(self, message: Cancel, ctx: Turn) -> Held:
        """Nobody is to come after all."""
        if not message.desk:
            check_owner(self.state.owner, ctx)
        self._check_exists(ctx)
        ownership = self.ownership(ctx)
        if self.state.hold.mode == "manual_live":
            raise in_manual(self.state)
        if self.state.hold.mode == "bot_active":
            return ownership.held(changed=False)
        why = Why("cancelled", clip(message.by, MOST_NAME), message.reason)
        ownership.give_back(why, notice=ownership.notices.cancelled)
        return ownership.held()

    @handler
    def transfer(self, message: Transfer, ctx: Turn) -> Held:
        """A colleague goes on, at once."""
        self._check_exists(ctx)
        check_agent(message.to)
        check_note(message.note)
        holder = self._check_assignee(message.agent, force=message.force)
        if holder.id == message.to.id:
            raise Reject("same_agent", f"{shown(holder)} has it already", status=422)
        ownership = self.ownership(ctx)
        why = Why("transferred", clip(message.agent, MOST_NAME), message.reason)
        if message.note.strip():
            self._leave(message.note, holder, ctx)
        ownership.transfer(message.to, why)
        return ownership.held()

    # -- saying ----------------------------------------------------------------------------------

    @handler
    def say_manual(self, message: SayManual, ctx: Turn) -> Noted:
        """Something is said from person to person; no model hears of it now."""
        self._check_exists(ctx)
        if message.role == "user":
            check_owner(self.state.owner, ctx)
        content = check_said(message.content)
        agent = self._check_speaker(message)
        ownership = self.ownership(ctx)
        if agent is None:
            # So that later answers of models take what was said here into account.
            self.state.marks = [*self.state.marks, ctx.sequence][-MOST_MARKS:]
            ownership.waits.hear()
        else:
            ownership.waits.answer()
        ownership.begin(self.state.owner)
        self.state.title = self.state.title or clip(" ".join(content.split()), MOST_TITLE)
        said = ownership.say(message.role, content, agent)
        ownership.note(content, message.role)
        if agent is not None:
            ownership.attend(agent)
        return Noted(id=said.id, at=ctx.now, case=ownership.case())

    @handler
    def add_note(self, message: AddNote, ctx: Turn) -> Noted:
        """A note among colleagues."""
        self._check_exists(ctx)
        check_agent(message.by)
        check_note(message.content)
        if not message.content.strip():
            raise Reject("empty_note", "the note is empty; send some text", status=422)
        note = self._leave(message.content, message.by, ctx)
        return Noted(id=note.id, at=ctx.now, case=self.ownership(ctx).case())

    @handler
    def set_customer(self, message: SetCustomer, ctx: Turn) -> Held:
        """Who is served."""
        if not message.desk:
            check_owner(self.state.owner, ctx)
        ownership = self.ownership(ctx)
        ownership.begin("" if message.desk else ctx.envelope.principal)
        news = self._know(message.customer, ownership)
        if news:
            ownership.publish("customer")
        return ownership.held(changed=news)

    def _leave(self, content: str, by: Assignee, ctx: Turn) -> NoteAdded:
        note = NoteAdded(id=ctx.new_id(), content=content, by=by)
        ctx.emit(internal_topic(ctx.key), note, ttl=self.options.kept)
        return note

    # -- said by the desk ------------------------------------------------------------------------

    @handler
    def take_offer(self, message: OfferCase, ctx: Turn) -> None:
        """The desk has chosen an agent, or chosen nobody any more."""
        hold = self.state.hold
        late = hold.mode != "pending_manual" or hold.epoch != message.epoch
        if late or hold.assignee == message.agent:
            return
        word = "offered" if message.agent else "withdrawn"
        self.ownership(ctx).offer(message.agent, Why(word, "desk"))

    @handler
    def close_for_now(self, message: CloseForNow, ctx: Turn) -> None:
        """Nobody is there to come now."""
        known = message.until is not None and message.until == self.state.hold.closed_until
        if known or self._is_late("pending_manual", message.epoch):
            return
        text = "somebody is written to" if message.mailed else ""
        self.ownership(ctx).close(message.until, Why("closed", "desk", text))

    @handler
    def return_to_bot(self, message: ReturnToBot, ctx: Turn) -> None:
        """Nobody came."""
        if self._is_late("pending_manual", message.epoch):
            return
        ownership = self.ownership(ctx)
        why = Why("nobody", "desk", message.reason)
        ownership.give_back(why, notice=ownership.notices.nobody)

    @handler
    def requeue(self, message: Requeue, ctx: Turn) -> None:
        """Who had it is gone."""
        if not self._is_late("manual_live", message.epoch):
            self.ownership(ctx).requeue(Why("lost", "desk", message.reason))

    @handler
    def note_mail(self, message: MailSettled, ctx: Turn) -> None:
        """A letter about this conversation was sent, or was not."""
        to, reason = tuple(clip(one) for one in message.to[:MOST_MAIL]), clip(message.reason)
        told = MailNoted(sent=message.sent, to=to, reason=reason)
        ctx.emit(internal_topic(ctx.key), told, ttl=self.options.kept)

    def _is_late(self, mode: Literal["pending_manual", "manual_live"], epoch: int) -> bool:
        hold = self.state.hold
        return hold.mode != mode or hold.epoch != epoch

    # -- waiting too long --------------------------------------------------------------------------

    @handler
    def miss_first(self, message: FirstDue, ctx: Turn) -> None:
        """Nobody has come in time: an alarm once, and the desk is told of it again and again."""
        hold, ownership = self.state.hold, self.ownership(ctx)
        if hold.mode != "pending_manual":
            return
        if not message.again:
            self._alert("first", hold.pending_since, self.options.supervision.wait, ctx)
        ownership.waits.call_again()
        ownership.publish("waiting")

    @handler
    def miss_reply(self, message: ReplyDue, ctx: Turn) -> None:
        """The customer was not answered in time."""
        hold = self.state.hold
        if hold.mode == "manual_live" and hold.waiting_since is not None:
            self._alert("reply", hold.waiting_since, self.options.supervision.reply, ctx)

    @handler
    def miss_everybody(self, message: IdleDue, ctx: Turn) -> None:
        """Nobody has spoken for long: the bot goes on."""
        hold, ownership = self.state.hold, self.ownership(ctx)
        if hold.mode != "manual_live" or not ownership.waits.quiet():
            return
        self._alert("idle", hold.last_at, self.options.supervision.idle, ctx)
        ownership.give_back(Why("idle"), notice=ownership.notices.idle)

    def _alert(
        self,
        kind: Literal["first", "reply", "idle"],
        since: datetime | None,
        limit: str,
        ctx: Turn,
    ) -> None:
        seconds = (span(limit) or ctx.now - ctx.now).total_seconds()
        ownership = self.ownership(ctx)
        alert = SlaAlert(case=ownership.case(), kind=kind, since=since or ctx.now, limit=seconds)
        ownership.alert(alert)

    # -- who may -----------------------------------------------------------------------------------

    def _check_exists(self, ctx: Turn) -> None:
        if self.state.created is None:
            raise unknown(ctx)

    def _check_assignee(self, agent: str, *, force: bool) -> Assignee:
        """Whose it is: the agent's own, unless they may do so all the same."""
        holder = self.state.hold.assignee
        if self.state.hold.mode != "manual_live" or holder is None:
            raise self._taken("INVALID_STATUS", "no person has this conversation")
        if holder.id != agent and not force:
            raise self._taken("NOT_YOURS", f"{shown(holder)} has it", status=403)
        return holder

    def _check_speaker(self, message: SayManual) -> Assignee | None:
        """The agent who speaks; nobody for a customer."""
        mode = self.state.hold.mode
        if message.role == "agent":
            agent = message.agent.id if message.agent else ""
            return self._check_assignee(agent, force=message.agent is None)
        if mode == "bot_active":
            raise self._taken("INVALID_STATUS", "no person has this conversation, or is called")
        return None

    def _taken(self, code: str, detail: str, *, status: int = 409) -> Reject:
        return Reject(code, detail, status=status, told=standing(self.state))

    def _know(self, customer: Customer, ownership: Ownership) -> bool:
        check_customer(customer)
        return ownership.know(customer)


def check_agent(agent: Assignee) -> None:
    """Raises Reject 422 `invalid_agent` for one that cannot be named."""
    for what, text in (("id", agent.id), ("name", agent.name)):
        if len(text) > MOST_NAME or not text.isprintable() or (what == "id" and not text.strip()):
            detail = f"the agent's {what} is {clip(text, 40)!r}: expected up to {MOST_NAME} letters"
            raise Reject("invalid_agent", detail, status=422)


def check_team(team: str) -> None:
    """Raises Reject 422 `invalid_team` for one that cannot be named."""
    if len(team) > MOST_NAME or not team.isprintable():
        detail = f"the team is {clip(team, 40)!r}: expected up to {MOST_NAME} letters"
        raise Reject("invalid_team", detail, status=422)


def check_said(content: str) -> str:
    """What is said, if it is something and not too much.

    Raises Reject 422 `empty_message`, 413 `message_too_large`.
    """
    if not content.strip():
        raise Reject("empty_message", "the message is empty; send some text", status=422)
    if (size := len(content.encode())) > MOST_SAID:
        detail = f"the message takes {size} bytes, at most {MOST_SAID}; send it in parts"
        raise Reject("message_too_large", detail, status=413)
    return content


def check_note(content: str) -> None:
    """Raises Reject 413 `note_too_large`."""
    if len(content) > MOST_NOTE:
        detail = f"the note has {len(content)} characters, at most {MOST_NOTE}"
        raise Reject("note_too_large", detail, status=413)
