"""What becomes of a message that arrives while a run is going: beside it, after it, in its place.

A batch that waits is in the session's state, and gathers already: only its runs are missing.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from actors.limits import clip
from actors.live import Live
from actors.opening import serves
from actors.session_options import MOST_MARKS, SessionOptions
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.conversation import (
    Abort,
    OpenTask,
    RunOpened,
    RunStopped,
    RunWanted,
    TaskMoved,
    TaskStopped,
)
from schemas.envelope import encode
from schemas.model import Context
from schemas.ownership import Arriving
from schemas.session import Queued, SessionState

MOST_QUEUED = 16
MOST_BYTES = 64 * 1024
"""Of all batches that wait: they stand in the session's state."""
MOST_IN_ALL = 112 * 1024
"""Of these and of the runs that are going."""
MOST_JOINED = 16
"""Batches that were interrupted and are answered together; of more, the newest."""
INTERRUPTED = "interrupted"
TURN = "its turn has come"


class Arrivals:
    """The batches of a conversation that begin now, and those that wait."""

    def __init__(self, state: SessionState, options: SessionOptions, ctx: Turn) -> None:
        self._state = state
        self._options = options
        self._ctx = ctx
        self._live = Live(state, options, ctx)

    def policy(self, wanted: Arriving | None) -> Arriving:
        """What becomes of a batch: as is asked for, else as the conversation or its type has it."""
        if not (self._state.live or self._state.queued):
            return "parallel"
        return wanted or self._state.arriving or self._options.arriving

    # -- now -------------------------------------------------------------------------------

    def begin(self, entry: Queued, context: Context | None) -> tuple[OpenTask, ...]:
        """Start the runs of a batch."""
        pairs = zip(entry.tasks, entry.wanted, strict=True)
        runs = [_run(entry, one, slot.actors[0], slot.slot, context) for one, slot in pairs]
        return tuple(OpenTask(task=r.task, model=r.model, run=self._live.start(r)) for r in runs)

    def interrupt(self) -> tuple[str, ...]:
        """Stop all that is going or waits; returns the batches that have no answer for it."""
        state = self._state
        going = dict.fromkeys(run.batch for run in state.live.values())
        waiting = [entry.batch for entry in state.queued]
        *earlier, last = state.unanswered or [""]
        joined = [*(earlier if last in going else ()), *going, *waiting]
        self._live.stop(list(state.live), INTERRUPTED)
        self.drop(INTERRUPTED)
        return tuple(joined[-MOST_JOINED:])

    def context(self, entry: Queued, joined: Iterable[str] = ()) -> Context | None:
        """What the models are shown of what was said before; nothing if they are given it all."""
        marks, options, joined = self._state.marks, self._options, tuple(joined)
        if entry.whole or not entry.remember or not marks:
            return None
        # A mark is of a request; what was said with it is stored after it. Not every turn was
        # answered, so twice as many as are wanted are looked through.
        most = 2 * (options.turns or MOST_MARKS) + len(joined) + len(self._state.queued)
        return Context(
            after=marks[-most:][0],
            until=self._ctx.sequence,
            turns=options.turns,
            tokens=options.tokens,
            joined=joined,
        )

    # -- later -----------------------------------------------------------------------------

    def wait(self, entry: Queued) -> int:
        """Put a batch behind those before it, and return how many these are.

        Raises Reject 429 `queue_full`.
        """
        state = self._state
        size = sum(len(encode(one)) for one in (*state.queued, entry))
        full = len(state.queued) >= MOST_QUEUED or (state.queued and size > MOST_BYTES)
        if full or size + len(encode(state.live)) > MOST_IN_ALL:
            detail = (
                f"{len(state.queued)} requests wait here already, at most {MOST_QUEUED} may,"
                f" and {MOST_BYTES} bytes of them; send it again once some are answered"
            )
            raise Reject("queue_full", detail, status=429)
        before = {run.batch for run in state.live.values()}
        state.queued = [*state.queued, entry]
        return len(before) + len(state.queued) - 1

    def advance(self) -> None:
        """Start the batches whose turn has come. Those whose time is over have ended already."""
        state, now = self._state, self._ctx.now
        state.queued = [one for one in state.queued if one.expires is None or one.expires > now]
        while state.queued and not state.live and state.hold.mode == "bot_active":
            self._start(state.queued[0])
            state.queued = state.queued[1:]

    def drop(self, reason: str, meant: Abort | None = None, *, code: str = "") -> list[str]:
        """End tasks that wait: all, or those that are to be aborted; returns which.

        `code` is what they have failed of (empty: they were aborted).
        """
        dropped: list[str] = []
        kept = [_split(entry, meant, dropped) for entry in self._state.queued]
        for batch, task in ((task.rpartition("-")[0], task) for task in dropped):
            self._live.emit(TaskStopped(batch=batch, task=task, run="", reason=reason))
            self._live.tell(batch, RunStopped(task=task, run="", reason=reason, code=code))
        self._state.queued = [entry for entry in kept if entry.tasks]
        return dropped

    def _start(self, entry: Queued) -> None:
        """Start what can be started by now, and tell the batch of each task."""
        context = self.context(entry)
        for task, wanted in zip(entry.tasks, entry.wanted, strict=True):
            actor = next((one for one in wanted.actors if serves(one, self._ctx)), "")
            told = RunOpened(task=task.task, actor=actor, context=context)
            if actor:
                run = self._live.start(_run(entry, task, actor, wanted.slot, context))
                told = replace(told, run=run)
                self._live.emit(_moved(entry.batch, task, run))
            else:
                names = clip(" or ".join(wanted.actors), 200)
                told = replace(told, reason=f"no model is deployed as {names!r} any more")
            self._live.tell(entry.batch, told)


def _run(
    entry: Queued, task: OpenTask, actor: str, slot: int, context: Context | None
) -> RunWanted:
    return RunWanted(
        batch=entry.batch,
        task=task.task,
        actor=actor,
        model=task.model,
        prompt=entry.prompt,
        slot=slot,
        remember=entry.remember,
        context=context,
        expires=entry.expires,
    )


def _split(entry: Queued, meant: Abort | None, dropped: list[str]) -> Queued:
    """What is left of an entry without the tasks that are meant, which are added to `dropped`."""
    kept = []
    for task, wanted in zip(entry.tasks, entry.wanted, strict=True):
        if meant is None or _is_meant(meant, entry.batch, task.task):
            dropped.append(task.task)
        else:
            kept.append((task, wanted))
    tasks, wants = tuple(one for one, _ in kept), tuple(one for _, one in kept)
    return replace(entry, tasks=tasks, wanted=wants)


def _moved(batch: str, task: OpenTask, run: str) -> TaskMoved:
    return TaskMoved(batch=batch, task=task.task, run=run, model=task.model, reason=TURN)


def _is_meant(message: Abort, batch: str, task: str) -> bool:
    return not message.run and message.batch in ("", batch) and message.task in ("", task)
