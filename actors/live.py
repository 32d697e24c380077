"""The runs that may speak in a conversation: started, known, and stopped in one turn."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from actors.session_options import SessionOptions
from runtime.turn import Turn
from schemas.base import Address, Message
from schemas.conversation import Abort, RunStopped, RunWanted, SweepDue, TaskStopped
from schemas.model import Generate, conversation_topic
from schemas.session import LiveRun, SessionState

SWEEP = "sweep"
GRACE = timedelta(minutes=1)
"""How long after its time a run is swept: its batch should have ended it."""
OVERDUE = "its time was over"


class Live:
    """What a session's turn does with its runs; what it knows of them is in the state."""

    def __init__(self, state: SessionState, options: SessionOptions, ctx: Turn) -> None:
        self._state = state
        self._options = options
        self._ctx = ctx

    def start(self, wanted: RunWanted) -> str:
        """Start a run and know of it until it is over.

        Raises RuntimeError where the bot may not speak, which whoever calls has to look at first.
        """
        ctx = self._ctx
        if self._state.hold.mode != "bot_active":
            raise RuntimeError(f"{ctx.address} is {self._state.hold.mode}: no run is started in it")
        thread, thread_at = self._thread(wanted)
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
            keep=self._options.kept.total_seconds(),
            thread=thread,
            thread_at=thread_at,
        )
        run = ctx.start(
            Address(wanted.actor, ctx.key),
            job,
            topic=conversation_topic(ctx.key),
            expires=wanted.expires,
            answer_to=Address(self._options.batches, wanted.batch),
        )
        self._note(run, wanted)
        return run

    def stop(self, runs: Iterable[str], reason: str, *, code: str = "") -> None:
        """Stop runs: for the broker, for the followers and for their batches.

        `code` is why their tasks have failed, if it is not that somebody aborted them.
        """
        stopped = list(runs)
        for run in stopped:
            live = self._state.live[run]
            self._ctx.stop(run, reason)
            told = TaskStopped(batch=live.batch, task=live.task, run=run, reason=reason)
            self.emit(told)
            self.tell(live.batch, RunStopped(task=live.task, run=run, reason=reason, code=code))
        self.forget(stopped)

    def forget(self, runs: Iterable[str]) -> None:
        """Runs are over, and need not be stopped any more."""
        for run in runs:
            self._state.live.pop(run, None)
        if not self._state.live and self._state.sweeps is not None:
            self._state.sweeps = None
            self._ctx.forget(SWEEP)

    def meant(self, message: Abort) -> list[str]:
        """The runs that are to be aborted."""
        return [
            run
            for run, live in self._state.live.items()
            if message.run in ("", run)
            and message.batch in ("", live.batch)
            and message.task in ("", live.task)
        ]

    def sweep(self) -> None:
        """Stop runs whose time was over long ago, and come back for the others."""
        now = self._ctx.now
        self.stop((run for run, end in self._ends().items() if end <= now), OVERDUE)
        self._state.sweeps = None
        self._watch()

    def emit(self, event: Message) -> None:
        """Tell the followers of the conversation."""
        self._ctx.emit(conversation_topic(self._ctx.key), event, ttl=self._options.kept)

    def tell(self, batch: str, message: Message) -> None:
        """Tell a batch; one of a type that is gone has nobody left who waits for it."""
        if self._ctx.deployed(self._options.batches, "keyed"):
            self._ctx.tell(Address(self._options.batches, batch), message)

    def _thread(self, wanted: RunWanted) -> tuple[str, str]:
        """Where a run goes on, and at which upstream: in the conversation's thread, if that is
        its actor's. One that is told all again, or leaves nothing behind, has no part in it."""
        state = self._state
        told_all = wanted.context is None and len(state.marks) > 1
        theirs = wanted.actor == state.keeper.actor and not wanted.slot and not wanted.candidates
        if not theirs or not wanted.remember or told_all:
            return "", ""
        return state.thread, state.keeper.upstream

    def _note(self, run: str, wanted: RunWanted) -> None:
        self._state.live[run] = LiveRun(
            task=wanted.task,
            batch=wanted.batch,
            actor=wanted.actor,
            model=wanted.model,
            since=self._ctx.now,
            until=wanted.expires,
        )
        self._watch()

    def _ends(self) -> dict[str, datetime]:
        """When each run is swept."""
        now = self._ctx.now
        return {run: (live.until or now) + GRACE for run, live in self._state.live.items()}

    def _watch(self) -> None:
        """Be reminded of the first run that should be over; one reminder serves all."""
        due = min(self._ends().values(), default=None)
        if due and (self._state.sweeps is None or due < self._state.sweeps):
            self._state.sweeps = due
            self._ctx.remind(SWEEP, SweepDue(), after=due - self._ctx.now)
