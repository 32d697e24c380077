"""Keeps one conversation: who began it, what was asked in it, and which runs may speak in it.

Every run of a conversation is started here, so that all of them can be stopped in one turn.
"""

from datetime import datetime, timedelta

from actors.arriving import Arrivals
from actors.assisting import Assisting
from actors.drafts import Drafts
from actors.limits import check_customer, clip
from actors.live import GRACE, OVERDUE, Live
from actors.opening import (
    check_opening,
    check_owner,
    check_room,
    choose_actors,
    serves,
    text_of,
    title_of,
    unknown,
)
from actors.regulator import Regulated
from actors.session_options import MOST_MARKS
from actors.supervised import check_team
from runtime.actor import handler
from runtime.config import duration
from runtime.errors import Reject, TurnError
from runtime.turn import Turn
from schemas.arriving import ArrivingSet, SetArriving
from schemas.base import Address
from schemas.conversation import (
    Abort,
    Aborted,
    BatchBegan,
    BatchOpened,
    MessageSaid,
    OpenBatch,
    OpenTask,
    RunOpened,
    RunsOver,
    RunWanted,
    StartBatch,
    SweepDue,
    TaskMoved,
    Wanted,
)
from schemas.model import Utterance, history_topic
from schemas.ownership import Escalation
from schemas.session import Queued


class Session(Regulated, Assisting):
    """A conversation by its id."""

    # -- beginning -------------------------------------------------------------------------

    @handler
    def open_batch(self, message: OpenBatch, ctx: Turn) -> BatchOpened:
        """Start a run for each task and a batch that gathers them, or nothing at all."""
        check_owner(self.state.owner, ctx)
        self.ownership(ctx).check_bot()
        check_opening(message, longest=duration(self.options.longest))
        check_team(message.team)
        if message.customer is not None:
            check_customer(message.customer)
        self._check_thread(message.thread, ctx)
        if called := self.find_call(message, ctx):
            return self._call(message, called, ctx)
        waiting = sum(len(entry.tasks) for entry in self.state.queued)
        check_room(len(self.state.live) + waiting, message)
        self._check_batches(ctx)
        wanted = choose_actors(message, ctx)
        try:
            return self._open(ctx.new_id(), message, wanted, ctx)
        except TurnError as error:
            detail = f"it cannot be done like this: {error}"
            raise Reject("invalid_batch", detail, status=422) from None

    def _call(self, message: OpenBatch, why: Escalation, ctx: Turn) -> BatchOpened:
        """What is said calls a person: it is stored, and no model is asked."""
        self._note(message, "", (), ctx)
        notice = self.ownership(ctx).escalate(why)
        return BatchOpened(
            batch="",
            conversation=ctx.key,
            tasks=(),
            mode=self.state.hold.mode,
            escalation=self.state.hold.escalation,
            notice=notice,
            thread=self.state.thread,
        )

    def _open(
        self, batch: str, message: OpenBatch, wanted: tuple[Wanted, ...], ctx: Turn
    ) -> BatchOpened:
        seconds = message.deadline or duration(self.options.deadline).total_seconds()
        self._check_lifetime(timedelta(seconds=seconds), ctx)
        entry = _entry(batch, message, wanted, ctx.now + timedelta(seconds=seconds))
        arrivals = Arrivals(self.state, self.options, ctx)
        policy = arrivals.policy(message.arriving)
        joined = arrivals.interrupt() if policy == "interrupt" else ()
        context, before = arrivals.context(entry, joined), 0
        if policy == "queue":
            before = arrivals.wait(entry)
        self._note(message, batch, joined, ctx)
        tasks = entry.tasks if before else arrivals.begin(entry, context)
        Live(self.state, self.options, ctx).emit(BatchBegan(batch=batch, tasks=tasks))
        start = StartBatch(
            conversation=ctx.key,
            tasks=tasks,
            wanted=wanted,
            prompt=message.prompt,
            said=message.said,
            context=context,
            policy=message.policy,
            deadline=seconds,
            session=ctx.address.actor,
            after=ctx.sequence,
            keep=self.options.kept.total_seconds(),
            supervised=bool(self.state.hold.team),
        )
        ctx.tell(Address(self.options.batches, batch), start)
        return BatchOpened(
            batch=batch,
            conversation=ctx.key,
            tasks=tasks,
            queued=before,
            thread=self.state.thread,
        )

    def _note(self, message: OpenBatch, batch: str, joined: tuple[str, ...], ctx: Turn) -> None:
        """Remember that, when and by whom something was asked, and what was said with it."""
        ownership, hold = self.ownership(ctx), self.state.hold
        ownership.begin(ctx.envelope.principal)
        self.state.batches += bool(batch)
        hold.team = message.team or hold.team
        if message.customer is not None:
            ownership.know(message.customer)
        if joined:
            self.state.unanswered = [*joined, batch]
        if message.said is not None:
            self._say(message.said, batch, joined, ctx)

    def _say(self, said: Utterance, batch: str, joined: tuple[str, ...], ctx: Turn) -> None:
        self.state.title = self.state.title or title_of(said)
        self.state.marks = [*self.state.marks, ctx.sequence][-MOST_MARKS:]
        event = MessageSaid(batch=batch, message=said, by=ctx.envelope.principal, joined=joined)
        ctx.emit(history_topic(ctx.key), event, ttl=self.options.kept)
        Live(self.state, self.options, ctx).emit(event)
        self.ownership(ctx).note(text_of(said), "user")

    def _check_batches(self, ctx: Turn) -> None:
        if not ctx.deployed(self.options.batches, "keyed"):
            raise Reject(
                "batches_not_deployed",
                f"no keyed actor {self.options.batches!r} is deployed; deploy"
                " actors.batch:Batch under that name, or correct the option `batches`",
                status=503,
            )

    def _check_lifetime(self, span: timedelta, ctx: Turn) -> None:
        """Raises TurnError for a batch that could not be reminded of its own deadline."""
        batches = self.options.batches
        longest = ctx.furthest(batches)
        if span + GRACE > longest:  # the clocks of two hosts are not quite the same
            raise TurnError(
                f"a batch of {span}: instances of {batches!r} live {longest} from their last turn;"
                f" give the type a lifetime of {GRACE} more, or the batch a shorter deadline"
            )

    @handler
    def set_arriving(self, message: SetArriving, ctx: Turn) -> ArrivingSet:
        """What becomes of messages that come while one is answered."""
        check_owner(self.state.owner, ctx)
        if self.state.created is None:
            raise unknown(ctx)
        self.state.arriving = message.arriving
        return ArrivingSet(arriving=message.arriving)

    # -- going on --------------------------------------------------------------------------

    @handler
    def start_again(self, message: RunWanted, ctx: Turn) -> None:
        """Give a task to another actor, in place of a run that has ended."""
        live = Live(self.state, self.options, ctx)
        if reason := self._objection(message, ctx):
            opened = RunOpened(task=message.task, actor=message.actor, reason=reason)
        else:
            run = live.start(message)
            live.forget([message.over])
            opened = RunOpened(task=message.task, run=run, actor=message.actor)
            if not message.candidates:
                # Told here, so that it comes before anything that the new run says.
                live.emit(_moved(message, run))
        live.tell(message.batch, opened)

    def _objection(self, message: RunWanted, ctx: Turn) -> str:
        """Why a run is not started; nothing if it may be."""
        if self.state.hold.mode != "bot_active":
            return "a person was called to the conversation"
        if message.over not in self.state.live:
            return "its run was stopped"
        if message.expires is not None and ctx.now >= message.expires:
            return OVERDUE
        return "" if serves(message.actor, ctx) else f"no model {message.actor!r} is deployed"

    @handler
    def note_end(self, message: RunsOver, ctx: Turn) -> None:
        """Runs have ended: they need not be stopped any more."""
        Live(self.state, self.options, ctx).forget(message.runs)
        self._advance(ctx)

    def _advance(self, ctx: Turn) -> None:
        """Let those that wait begin, if nothing is before them any more."""
        Arrivals(self.state, self.options, ctx).advance()

    # -- stopping --------------------------------------------------------------------------

    @handler
    def abort(self, message: Abort, ctx: Turn) -> Aborted:
        """Stop what is named and is going; nothing of it is heard after this turn."""
        check_owner(self.state.owner, ctx)
        if self.state.created is None:
            raise unknown(ctx)
        live = Live(self.state, self.options, ctx)
        runs, reason = live.meant(message), clip(message.reason) or "aborted"
        live.stop(runs, reason)
        tasks = Arrivals(self.state, self.options, ctx).drop(reason, message)
        self._advance(ctx)
        return Aborted(runs=tuple(runs), tasks=tuple(tasks))

    @handler
    def sweep(self, message: SweepDue, ctx: Turn) -> None:
        """Stop runs whose batches should have ended them, so that nothing is live for ever."""
        Live(self.state, self.options, ctx).sweep()
        Drafts(self.state, self.options, ctx).sweep()
        self._advance(ctx)


def _entry(batch: str, message: OpenBatch, wanted: tuple[Wanted, ...], expires: datetime) -> Queued:
    """A batch as it may have to wait."""
    names = enumerate(wanted, start=1)
    return Queued(
        batch=batch,
        tasks=tuple(OpenTask(task=f"{batch}-{n}", model=one.model, run="") for n, one in names),
        wanted=wanted,
        prompt=message.prompt,
        remember=message.said is not None,
        whole=message.whole,
        expires=expires,
    )


def _moved(message: RunWanted, run: str) -> TaskMoved:
    return TaskMoved(
        batch=message.batch,
        task=message.task,
        run=run,
        model=message.actor,
        reason=message.reason,
    )
