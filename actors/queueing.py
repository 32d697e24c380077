"""What a desk does with its queue in one turn: offers that lapse, cases that are offered, those
that come while it is closed, go back to the bot, or come back because an agent has gone.

The sessions decide; what they are told by an older epoch they ignore, and say how things are.
"""

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from actors.desk_options import DeskOptions
from actors.roster import able, by_urgency, choose, is_there, is_watched, loads, trim_case
from runtime.turn import Turn
from schemas.base import Address, Message
from schemas.desk import Beyond, DeskDue, DeskState, SendMail, Taken, Waiting
from schemas.ownership import (
    Assignee,
    Case,
    CloseForNow,
    OfferCase,
    Requeue,
    ReturnToBot,
    SlaAlert,
    desk_topic,
)
from schemas.shifts import closing, is_open, next_opening

MOST_WAITING = 150
MOST_BEYOND = 500
MOST_BEYOND_BYTES = 12 * 1024
MOST_TAKEN = 500
MOST_TAKEN_BYTES = 32 * 1024
"""Of what agents have, and when it goes back: the queue needs room beside it."""
DUE_BYTES = 32
MOST_MAILS = 100
MOST_MAIL_BYTES = 6 * 1024
MOST_AT_ONCE = 50
"""Cases that one turn tells that the desk is closed: the next turn tells the others."""
MOST_BYTES = 112 * 1024
"""Of the state, after which no further case is kept."""
DUE = "due"
NOBODY = "nobody came"
GONE = "the agent has gone"


class Queue:
    """A desk's queue, in the turn that changes it."""

    def __init__(self, state: DeskState, options: DeskOptions, ctx: Turn) -> None:
        self._state = state
        self._options = options
        self._ctx = ctx
        self._now = ctx.now

    # -- what is heard ---------------------------------------------------------------------

    def is_late(self, case: Case) -> bool:
        """Whether something newer is known of a session than this."""
        state, name = self._state, case.session
        if waiting := state.waiting.get(name):
            return waiting.case.created == case.created and case.epoch < waiting.case.epoch
        known = (state.taken.get(name), state.beyond.get(name))
        return any(one is not None and case.epoch < one.epoch for one in known)

    def wait(self, case: Case) -> None:
        """A case waits for a person."""
        state, name = self._state, case.session
        mailed = name in state.beyond and state.beyond[name].mailed
        self._drop(name)
        waiting = state.waiting.get(name)
        if waiting is None:
            since = case.pending_since or self._now
            waiting = Waiting(case=trim_case(case), since=since, mailed=mailed)
            state.waiting[name] = waiting
            if case.assignee is not None:
                self._offer(waiting, case.assignee)
            return
        was, waiting.case = waiting.case, trim_case(case)
        if case.epoch != was.epoch and case.closed_until is None:
            waiting.closed = False  # it may have been told by an epoch that was over
        offered, told = waiting.offered, waiting.asked == was.epoch and not waiting.asked_for
        had = offered is not None and was.assignee is not None and was.assignee.id == offered.id
        if had and case.assignee is None and not told:
            # The session's own clock has taken the offer back.
            self._let_pass(waiting)

    def take(self, case: Case, agent: str) -> None:
        """A person has a case."""
        state, name = self._state, case.session
        had = state.taken.get(name)
        state.waiting.pop(name, None)
        state.beyond.pop(name, None)
        if had is None or had.agent != agent:
            self._drop(name)
            self._stir(agent)
        taken = Taken(agent, case.epoch, had.due if had and had.agent == agent else None)
        seen = state.agents.get(agent)
        # Who seems to be gone has as long as any other to show that they are not.
        if (had is None or had.agent != agent) and is_watched(seen) and not is_there(seen):
            taken = replace(taken, due=self._now + self._options.missed_for)
        if name not in state.taken and not self._can_watch(name, taken):
            self._ctx.log.warning("case_not_watched", session=name, taken=len(state.taken))
            return
        state.taken[name] = taken

    def end(self, case: Case) -> None:
        """The bot has a case."""
        self._state.waiting.pop(case.session, None)
        self._drop(case.session)

    def leave(self, agent: str) -> None:
        """An agent has gone: their cases go back after a grace."""
        due = self._now + self._options.missed_for
        for session, one in self._state.taken.items():
            if one.agent == agent and one.due is None:
                self._state.taken[session] = replace(one, due=due)

    def come(self, agent: str) -> None:
        """An agent is there again: their cases stay, and what they let pass may be offered."""
        state = self._state
        for session, one in state.taken.items():
            if one.agent == agent:
                state.taken[session] = replace(one, due=None)
        self._ask_again(agent)

    def _ask_again(self, agent: str) -> None:
        """What an agent has let pass may be offered to them once more: they have shown up."""
        for waiting in self._state.waiting.values():
            if agent in waiting.tried:
                waiting.tried.remove(agent)

    def mail(self, case: Case, to: tuple[str, ...] = (), messages: int = 10) -> str:
        """Have a letter written; returns its run."""
        job = SendMail(case=case, to=to, messages=messages)
        run = self._ctx.start(Address(self._options.mailer, case.session), job)
        self._state.mails[run] = case.session
        mails = self._state.mails
        while len(mails) > MOST_MAILS or len(msgspec.json.encode(mails)) > MOST_MAIL_BYTES:
            mails.pop(next(iter(mails)))
        return run

    @property
    def can_mail(self) -> bool:
        """Whether somebody is there to write."""
        return self._ctx.deployed(self._options.mailer, "worker", handling=SendMail)

    # -- what follows ----------------------------------------------------------------------

    def go_on(self) -> None:
        """Do all that is due, and come back for the rest."""
        opened = is_open(self._options.calendar, self._now)
        self._make_room()
        self._lapse()
        # Before anything is offered: what was offered just now would be put out again.
        self._bound()
        if opened:
            self._reopen()
        else:
            self._close()
        self._give_up()
        self._put_back()
        self._bound()
        self._ask()
        self._watch(opened)

    def _make_room(self) -> None:
        """Take in those beyond, of whom no more is known than that they wait."""
        state = self._state
        if self._ctx.deployed(self._options.sessions, "keyed"):
            lives = self._ctx.furthest(self._options.sessions)
            for name in [n for n, one in state.waiting.items() if one.since + lives < self._now]:
                del state.waiting[name]  # the session itself is no more
        while state.beyond and self._has_room():
            name = next(iter(state.beyond))
            one = state.beyond.pop(name)
            case = Case(session=name, mode="pending_manual", epoch=one.epoch, team=self._ctx.key)
            state.waiting[name] = Waiting(case=case, since=self._now, mailed=one.mailed)

    def _lapse(self) -> None:
        """Withdraw what is offered to agents who have gone, have let it pass, or have too much."""
        state, held = self._state, loads(self._state)
        for waiting in state.waiting.values():
            if waiting.offered is None:
                continue
            if waiting.until is not None and waiting.until <= self._now:
                self._let_pass(waiting)
            elif not is_there(state.agents.get(waiting.offered.id)):
                waiting.offered = waiting.until = None
        much = {one.id for one in state.agents.values() if len(held[one.id]) > one.capacity}
        for waiting in reversed(by_urgency(state, self._now)) if much else ():
            agent = waiting.offered.id if waiting.offered else ""
            if agent in much and len(held[agent]) > state.agents[agent].capacity:
                held[agent].discard(waiting.case.session)
                waiting.offered = waiting.until = None

    def _let_pass(self, waiting: Waiting) -> None:
        limit = self._options.offered_for
        since = (waiting.until or self._now) - limit
        if waiting.offered is not None:
            waiting.tried.append(waiting.offered.id)
        waiting.offered = waiting.until = None
        alert = SlaAlert(case=waiting.case, kind="offer", since=since, limit=limit.total_seconds())
        self._ctx.emit(desk_topic(self._ctx.key), alert)

    def _reopen(self) -> None:
        """Offer what waits to whoever has room, the most urgent first."""
        state = self._state
        for waiting in state.waiting.values():
            waiting.closed = False
        held = loads(state)
        if not (self._options.auto_assign and state.waiting and able(state, held)):
            return
        for waiting in by_urgency(state, self._now):
            if waiting.offered is None and (agent := choose(state, waiting, held)):
                self._offer(waiting, Assignee(agent.id, agent.name))
                held[agent.id].add(waiting.case.session)

    def _offer(self, waiting: Waiting, agent: Assignee) -> None:
        waiting.offered, waiting.until = agent, self._now + self._options.offered_for

    def _close(self) -> None:
        """Say that nobody is there, and have the team written to, once for each case."""
        new = [one for one in self._state.waiting.values() if not (one.closed or one.offered)]
        if not new:
            return
        until = next_opening(self._options.calendar, self._now)
        for waiting in new[:MOST_AT_ONCE]:
            case, waiting.closed = waiting.case, True
            if not waiting.mailed and self.can_mail:
                self.mail(case)
                waiting.mailed = True
            told = CloseForNow(epoch=case.epoch, until=until, mailed=waiting.mailed)
            self._tell(case.session, told)

    def _give_up(self) -> None:
        """Let the bot go on with what nobody has taken for too long."""
        for waiting in self._state.waiting.values():
            due = self._given_up_at(waiting)
            if due is not None and due <= self._now:
                waiting.returned = waiting.case.epoch
                self._tell(
                    waiting.case.session, ReturnToBot(epoch=waiting.case.epoch, reason=NOBODY)
                )

    def _given_up_at(self, waiting: Waiting) -> datetime | None:
        patience, tells = self._options.patience, waiting.returned != waiting.case.epoch
        if patience is None or waiting.offered is not None or not tells:
            return None
        return waiting.since + patience

    def _put_back(self) -> None:
        """Have those whose agent has not come back wait again; the session says when they do."""
        state = self._state
        for name, one in state.taken.items():
            if one.due is not None and one.due <= self._now:
                state.taken[name] = replace(one, due=None)
                self._tell(name, Requeue(epoch=one.epoch, reason=GONE))

    def _drop(self, name: str) -> None:
        """Nobody has a session any more, as far as is known."""
        state = self._state
        if (taken := state.taken.pop(name, None)) is not None:
            self._stir(taken.agent)
            self._ask_again(taken.agent)
        state.beyond.pop(name, None)

    def _stir(self, agent: str) -> None:
        """An agent has begun something, or ended it."""
        if agent in self._state.agents:
            self._state.idle[agent] = self._now

    # -- telling ---------------------------------------------------------------------------

    def _ask(self) -> None:
        """Tell each session to whom it is offered, where it says otherwise; once an epoch."""
        for name, waiting in self._state.waiting.items():
            case, offered = waiting.case, waiting.offered
            wanted = "" if offered is None else offered.id
            known = "" if case.assignee is None else case.assignee.id
            if wanted == known or (waiting.asked, waiting.asked_for) == (case.epoch, wanted):
                continue
            waiting.asked, waiting.asked_for = case.epoch, wanted
            self._tell(name, OfferCase(epoch=case.epoch, agent=offered, until=waiting.until))

    def _tell(self, session: str, message: Message) -> None:
        if self._ctx.deployed(self._options.sessions, "keyed", handling=type(message)):
            self._ctx.tell(Address(self._options.sessions, session), message)

    # -- what is kept ----------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether one more case can be kept for some while: room is not taken for one turn."""
        if len(self._state.waiting) >= MOST_WAITING * 9 // 10:
            return False
        return len(msgspec.json.encode(self._state)) < MOST_BYTES * 9 // 10

    def _can_watch(self, name: str, one: Taken) -> bool:
        """Whether there is room for one more case that an agent has, should all of them leave."""
        taken = self._state.taken
        size = len(msgspec.json.encode({**taken, name: one})) + DUE_BYTES * len(taken)
        return len(taken) < MOST_TAKEN and size <= MOST_TAKEN_BYTES

    def _bound(self) -> None:
        """Keep as many cases as there is room for; the least urgent wait beyond, by their names.

        What is offered stays, unless that alone is too much.
        """
        state = self._state
        while excess := self._excess():
            queue = by_urgency(state, self._now)
            free = [one for one in queue if one.offered is None]
            for waiting in (free or queue)[-excess:]:
                self._put_out(waiting)
        while state.beyond and (self._is_beyond() or self._is_large()):
            name = next(reversed(state.beyond))
            del state.beyond[name]
            self._ctx.log.warning("queue_full", session=name, waiting=len(state.waiting))

    def _is_beyond(self) -> bool:
        """Whether more wait for room than may: they would take it all from those who have some."""
        beyond = self._state.beyond
        return len(beyond) > MOST_BEYOND or len(msgspec.json.encode(beyond)) > MOST_BEYOND_BYTES

    def _excess(self) -> int:
        """How many cases are too many, at least."""
        waiting = self._state.waiting.values()
        free = sum(1 for one in waiting if one.offered is None)
        if free and len(waiting) > MOST_WAITING:
            return min(free, len(waiting) - MOST_WAITING)
        return min(len(waiting), 5) if self._is_large() else 0

    def _put_out(self, waiting: Waiting) -> None:
        name, case = waiting.case.session, waiting.case
        del self._state.waiting[name]
        self._state.beyond[name] = Beyond(case.epoch, waiting.mailed)
        if waiting.offered is not None:
            self._tell(name, OfferCase(epoch=case.epoch))

    def _is_large(self) -> bool:
        return len(msgspec.json.encode(self._state)) > MOST_BYTES

    def _watch(self, opened: bool) -> None:
        """Be reminded of what comes next; one reminder serves all."""
        state = self._state
        dues = [one.due for one in state.taken.values() if one.due is not None]
        for waiting in state.waiting.values():
            dues += [due for due in (waiting.until, self._given_up_at(waiting)) if due is not None]
        if state.waiting and (change := self._change(opened)) is not None:
            dues.append(change)
        due = min(dues, default=None)
        if due == state.due:
            return
        state.due = due
        if due is None:
            self._ctx.forget(DUE)
            return
        furthest = self._ctx.furthest(self._ctx.address.actor)
        self._ctx.remind(DUE, DeskDue(), after=min(max(due - self._now, timedelta()), furthest))

    def _change(self, opened: bool) -> datetime | None:
        """When the desk opens or closes, as far as that changes anything."""
        if opened:
            return closing(self._options.calendar, self._now)
        if any(not (one.closed or one.offered) for one in self._state.waiting.values()):
            return self._now
        return next_opening(self._options.calendar, self._now)
