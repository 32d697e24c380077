"""Keeps one conversation: who began it, what was asked in it, and which runs may speak in it.

Every run of a conversation is started here, so that all of them can be stopped in one turn.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar

import msgspec

from actors.limits import clip
from actors.opening import check_opening, title_of
from runtime.actor import Actor, handler
from runtime.config import duration
from runtime.errors import Reject, TurnError
from runtime.turn import Turn
from schemas.base import Address, Message
from schemas.conversation import (
    BATCH,
    LONGEST,
    Abort,
    Aborted,
    BatchBegan,
    BatchOpened,
    LiveRun,
    MessageSaid,
    OpenBatch,
    OpenTask,
    RunOpened,
    RunsOver,
    RunStopped,
    RunWanted,
    SessionState,
    StartBatch,
    SweepDue,
    TaskMoved,
    TaskStopped,
    Wanted,
    is_open_to,
)
from schemas.model import (
    Context,
    Generate,
    Utterance,
    conversation_topic,
    history_topic,
)

MOST_MARKS = 64
MOST_LIVE = 128
"""Runs at once: stopping all of them must fit into one turn."""
SWEEP = "sweep"
GRACE = timedelta(minutes=1)
"""How long after its time a run is swept: its batch should have ended it."""
OVERDUE = "its time was over"


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`batches` is the type that gathers, `keep` how long what is told is kept.

    A batch may take `deadline` unless its client says, and never more than `longest`, which
    sessions and batches must outlive. `turns` and `tokens` are of what a model is shown of the
    conversation (0: as the model's options say).
    """

    batches: str = BATCH
    keep: str = "30d"
    deadline: str = "30m"
    longest: str = "12h"
    turns: int = 10
    tokens: int = 0

    def __post_init__(self) -> None:
        duration(self.keep)
        if duration(self.longest).total_seconds() > LONGEST:
            raise ValueError(f"longest = {self.longest!r}: expected at most {LONGEST / 3600:.0f}h")
        if duration(self.deadline) > duration(self.longest):
            raise ValueError(f"deadline = {self.deadline!r}: expected at most {self.longest!r}")
        if not 0 <= self.turns <= MOST_MARKS:
            raise ValueError(f"turns = {self.turns!r}: expected 0 to {MOST_MARKS}")
        if self.tokens < 0:
            raise ValueError(f"tokens = {self.tokens!r}: expected 0 or more")


class Session(Actor):
    """A conversation by its id."""

    Options: ClassVar[type[msgspec.Struct] | None] = SessionOptions

    state: SessionState
    options: SessionOptions

    # -- beginning -------------------------------------------------------------------------

    @handler
    def open_batch(self, message: OpenBatch, ctx: Turn) -> BatchOpened:
        """Start a run for each task and a batch that gathers them, or nothing at all."""
        self._check_owner(ctx)
        check_opening(message, longest=duration(self.options.longest))
        wanted = self._check_actors(message, ctx)
        batch = ctx.new_id()
        try:
            return self._open(batch, message, wanted, ctx)
        except TurnError as error:
            raise Reject(
                "invalid_batch", f"it cannot be done like this: {error}", status=422
            ) from None

    def _open(
        self, batch: str, message: OpenBatch, wanted: tuple[Wanted, ...], ctx: Turn
    ) -> BatchOpened:
        context = self._context(message, ctx)
        seconds = message.deadline or duration(self.options.deadline).total_seconds()
        self._note(message, batch, ctx)
        tasks = tuple(
            self._begin(
                RunWanted(
                    batch=batch,
                    task=f"{batch}-{number}",
                    actor=one.actors[0],
                    model=one.model,
                    prompt=message.prompt,
                    slot=one.slot,
                    remember=message.said is not None,
                    context=context,
                    expires=ctx.now + timedelta(seconds=seconds),
                ),
                ctx,
            )
            for number, one in enumerate(wanted, start=1)
        )
        self._emit(BatchBegan(batch=batch, tasks=tasks), ctx)
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
            keep=self._keep.total_seconds(),
        )
        ctx.tell(Address(self.options.batches, batch), start)
        return BatchOpened(batch=batch, conversation=ctx.key, tasks=tasks)

    def _note(self, message: OpenBatch, batch: str, ctx: Turn) -> None:
        """Remember that, when and by whom something was asked, and what was said with it."""
        state = self.state
        if state.created is None:
            state.created, state.owner = ctx.now, ctx.envelope.principal
        state.modified = ctx.now
        state.batches += 1
        if message.said is not None:
            self._say(message.said, batch, ctx)

    def _say(self, said: Utterance, batch: str, ctx: Turn) -> None:
        self.state.title = self.state.title or title_of(said)
        self.state.marks = [*self.state.marks, ctx.sequence][-MOST_MARKS:]
        event = MessageSaid(batch=batch, message=said, by=ctx.envelope.principal)
        ctx.emit(history_topic(ctx.key), event, ttl=self._keep)
        self._emit(event, ctx)

    def _context(self, message: OpenBatch, ctx: Turn) -> Context | None:
        """What the models are shown of what was said before; nothing if they are given it all."""
        marks = self.state.marks
        if message.whole or message.said is None or not marks:
            return None
        turns = self.options.turns or MOST_MARKS
        # A mark is of a request; what was said with it is stored after it. Not every turn was
        # answered, so more than are wanted are looked through.
        after = marks[-2 * turns] if 2 * turns <= len(marks) else marks[0]
        return Context(
            after=after,
            until=ctx.sequence,
            turns=self.options.turns,
            tokens=self.options.tokens,
        )

    def _begin(self, wanted: RunWanted, ctx: Turn) -> OpenTask:
        return OpenTask(task=wanted.task, model=wanted.model, run=self._start(wanted, ctx))

    def _start(self, wanted: RunWanted, ctx: Turn) -> str:
        """Start a run and know of it until it is over."""
        job = Generate(
            task=wanted.task,
            batch=wanted.batch,
            conversation=ctx.key,
            model=wanted.model,
            prompt=wanted.prompt,
            slot=wanted.slot,
            context=wanted.context,
            candidates=wanted.candidates,
            remember=wanted.remember,
            keep=self._keep.total_seconds(),
        )
        run = ctx.start(
            Address(wanted.actor, ctx.key),
            job,
            topic=conversation_topic(ctx.key),
            expires=wanted.expires,
            answer_to=Address(self.options.batches, wanted.batch),
        )
        self.state.live[run] = LiveRun(
            task=wanted.task,
            batch=wanted.batch,
            actor=wanted.actor,
            model=wanted.model,
            since=ctx.now,
            until=wanted.expires,
        )
        self._watch(ctx)
        return run

    # -- checking --------------------------------------------------------------------------

    def _check_owner(self, ctx: Turn) -> None:
        """Somebody else's conversation is answered as one that does not exist."""
        if not is_open_to(self.state.owner, ctx.envelope.principal):
            raise _unknown(ctx)

    def _check_actors(self, message: OpenBatch, ctx: Turn) -> tuple[Wanted, ...]:
        """The tasks with those of their actors that are deployed."""
        if not ctx.deployed(self.options.batches, "keyed"):
            raise Reject(
                "batches_not_deployed",
                f"no keyed actor {self.options.batches!r} is deployed; deploy"
                " actors.batch:Batch under that name, or correct the option `batches`",
                status=503,
            )
        if len(self.state.live) + len(message.tasks) > MOST_LIVE:
            raise Reject(
                "too_many_runs",
                f"{len(self.state.live)} runs are going in this conversation, at most"
                f" {MOST_LIVE}; wait for some of them, or abort them",
                status=429,
            )
        if message.policy.kind == "judge" and not _serves(message.policy.judge, ctx):
            raise _no_model(message.policy.judge)
        return tuple(_choose_actors(wanted, ctx) for wanted in message.tasks)

    # -- going on --------------------------------------------------------------------------

    @handler
    def start_again(self, message: RunWanted, ctx: Turn) -> None:
        """Give a task to another actor, in place of a run that has ended."""
        if reason := self._objection(message, ctx):
            opened = RunOpened(task=message.task, actor=message.actor, reason=reason)
        else:
            run = self._start(message, ctx)
            self._forget([message.over], ctx)
            opened = RunOpened(task=message.task, run=run, actor=message.actor)
            if not message.candidates:
                self._tell_move(message, run, ctx)
        self._tell_batch(message.batch, opened, ctx)

    def _objection(self, message: RunWanted, ctx: Turn) -> str:
        """Why a run is not started; nothing if it may be."""
        if message.over and message.over not in self.state.live:
            return "its run was stopped"
        if message.expires is not None and ctx.now >= message.expires:
            return OVERDUE
        if not _serves(message.actor, ctx):
            return f"no model {message.actor!r} is deployed"
        return ""

    def _tell_move(self, message: RunWanted, run: str, ctx: Turn) -> None:
        """Told here, so that it comes before anything that the new run says."""
        moved = TaskMoved(
            batch=message.batch,
            task=message.task,
            run=run,
            model=message.actor,
            reason=message.reason,
        )
        self._emit(moved, ctx)

    @handler
    def note_end(self, message: RunsOver, ctx: Turn) -> None:
        """Runs have ended: they need not be stopped any more."""
        self._forget(message.runs, ctx)

    # -- stopping --------------------------------------------------------------------------

    @handler
    def abort(self, message: Abort, ctx: Turn) -> Aborted:
        """Stop what is named and is going; nothing of it is heard after this turn."""
        self._check_owner(ctx)
        if self.state.created is None:
            raise _unknown(ctx)
        runs = [run for run, live in self.state.live.items() if _is_meant(message, run, live)]
        self._stop(runs, clip(message.reason) or "aborted", ctx, entire=not message.run)
        return Aborted(runs=tuple(runs))

    @handler
    def sweep(self, message: SweepDue, ctx: Turn) -> None:
        """Stop runs whose batches should have ended them, so that nothing is live for ever."""
        late = [
            run
            for run, live in self.state.live.items()
            if live.until is None or live.until + GRACE <= ctx.now
        ]
        self._stop(late, OVERDUE, ctx)
        self.state.sweeps = None
        self._watch(ctx)

    def _stop(self, runs: list[str], reason: str, ctx: Turn, *, entire: bool = False) -> None:
        """Stop runs, for the broker, for the followers and for their batches, in this turn."""
        for run in runs:
            live = self.state.live[run]
            ctx.stop(run, reason)
            stopped = TaskStopped(batch=live.batch, task=live.task, run=run, reason=reason)
            self._emit(stopped, ctx)
            told = RunStopped(task=live.task, run=run, reason=reason, entire=entire)
            self._tell_batch(live.batch, told, ctx)
        self._forget(runs, ctx)

    # -- knowing what is live --------------------------------------------------------------

    def _watch(self, ctx: Turn) -> None:
        """Be reminded of the first run that should be over; one reminder serves all."""
        ends = [live.until for live in self.state.live.values() if live.until is not None]
        due = min(ends) + GRACE if ends else None
        if due and (self.state.sweeps is None or due < self.state.sweeps):
            self.state.sweeps = due
            ctx.remind(SWEEP, SweepDue(), after=due - ctx.now)

    def _forget(self, runs: Iterable[str], ctx: Turn) -> None:
        for run in runs:
            self.state.live.pop(run, None)
        if not self.state.live and self.state.sweeps is not None:
            self.state.sweeps = None
            ctx.forget(SWEEP)

    # -- telling ---------------------------------------------------------------------------

    @property
    def _keep(self) -> timedelta:
        return duration(self.options.keep)

    def _emit(self, event: Message, ctx: Turn) -> None:
        ctx.emit(conversation_topic(ctx.key), event, ttl=self._keep)

    def _tell_batch(self, batch: str, message: Message, ctx: Turn) -> None:
        """A batch of a type that is gone has nobody left who waits for it."""
        if ctx.deployed(self.options.batches, "keyed"):
            ctx.tell(Address(self.options.batches, batch), message)


def _serves(actor: str, ctx: Turn) -> bool:
    return ctx.deployed(actor, "worker", handling=Generate)


def _choose_actors(wanted: Wanted, ctx: Turn) -> Wanted:
    actors = tuple(actor for actor in wanted.actors if _serves(actor, ctx))
    if not actors:
        raise _no_model(" or ".join(wanted.actors), wanted.model)
    return msgspec.structs.replace(wanted, actors=actors)


def _is_meant(message: Abort, run: str, live: LiveRun) -> bool:
    return message.run in ("", run) and message.batch in ("", live.batch)


def _no_model(actors: str, model: str = "") -> Reject:
    named = f"model {clip(model, 80)!r}: " if model else ""
    detail = f"{named}no model is deployed as {clip(actors, 200)!r}; deploy it, or name another"
    return Reject("model_not_found", detail, status=404)


def _unknown(ctx: Turn) -> Reject:
    detail = f"there is no conversation {clip(ctx.key, 80)!r}"
    return Reject("conversation_not_found", detail, status=404)
