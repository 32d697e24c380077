"""Gathers what comes of one request's tasks until its policy has what it wants.

A task that fails goes to its next actor; the session starts that run, for it starts all.
What comes of a run that is not a task's current one is late, and ignored.
"""

from datetime import timedelta

from actors.policy import (
    JUDGE,
    begin,
    brief,
    choose,
    enough,
    enter,
    is_over,
    judge_task,
    needs_judge,
    next_actor,
    note,
    outcome,
    succeeded,
    task_ended,
)
from runtime.actor import Actor, handler
from runtime.turn import EVENT_TTL, Turn
from schemas.assist import ThreadFound
from schemas.base import Address, Message
from schemas.conversation import (
    FINAL,
    BatchFinished,
    BatchOverdue,
    BatchState,
    RunOpened,
    RunsOver,
    RunStopped,
    RunWanted,
    StartBatch,
    TaskFinished,
    TaskState,
    TaskStopped,
)
from schemas.model import Generated, conversation_topic
from schemas.record import RunFailed

DEADLINE = "deadline"
SUPERSEDED = "superseded"
ABORTED = "aborted"
GONE = "model_not_found"
STATUSES = {DEADLINE: 504, GONE: 404}


class Batch(Actor):
    """A batch by its id: each of its tasks ends once, and then it does."""

    state: BatchState

    @handler
    def start(self, message: StartBatch, ctx: Turn) -> None:
        """Gather from now on. Said twice, it is heard once."""
        if self.state.created is not None:
            return
        self.state = begin(message, owner=ctx.envelope.principal, at=ctx.envelope.time)
        due = self.state.due or ctx.now
        ctx.remind(DEADLINE, BatchOverdue(), after=max(due - ctx.now, timedelta()))

    # -- what comes of runs ----------------------------------------------------------------

    @handler
    def take_answer(self, message: Generated, ctx: Turn) -> None:
        """A run has ended as its model wanted: with an answer, or with a reason for none."""
        name, task = self._current(ctx)
        if task is None:
            return
        note(task, message)
        if message.thread:
            self._tell_thread(task, message, ctx)
        if message.outcome == "answered":
            self._finish(name, task, ctx)
            self._settle(ctx, [task.run])
        else:
            self._move(name, task, ctx)

    @handler
    def take_failure(self, message: RunFailed, ctx: Turn) -> None:
        """A run was given up: too many attempts failed, or it came too late to begin."""
        name, task = self._current(ctx)
        if task is None:
            return
        late = self.state.due is not None and ctx.now >= self.state.due
        task.outcome, task.reason = "failed", brief(message.reason)
        task.code, task.http_status = (DEADLINE, 504) if late else ("run_failed", 502)
        self._move(name, task, ctx)

    @handler
    def take_run(self, message: RunOpened, ctx: Turn) -> None:
        """The session has started another run, or says why it has not."""
        task = self._task(message.task, ctx)
        if task is None or not task.waiting:
            self._refuse(message, task, ctx)
        elif not task.run:
            self._enter(message, task, ctx)
        elif message.run:
            task.run, task.waiting = message.run, False
        else:
            task.reason = brief(f"{task.reason}; then {message.reason}")
            self._move(message.task, task, ctx)

    @handler
    def take_stop(self, message: RunStopped, ctx: Turn) -> None:
        """Somebody who may has stopped a run: its task does not go on."""
        task = self._task(message.task, ctx)
        if task is None or is_over(task) or task.run != message.run:
            return
        self._fail(message.task, task, message.code or ABORTED, message.reason, ctx)
        self._settle(ctx, [])

    @handler
    def give_up(self, message: BatchOverdue, ctx: Turn) -> None:
        """The deadline has come: what is not over ends here."""
        if self.state.created is None or self.state.status in FINAL:
            return
        began = self.state.created
        seconds = ((self.state.due or began) - began).total_seconds()
        over = self._stop_rest(DEADLINE, f"not done within {seconds:g} s", ctx)
        # Told in any case: what has waited for its turn does so no longer.
        self._tell(RunsOver(runs=tuple(over)), ctx)
        self._close(ctx)

    # -- where a task goes -----------------------------------------------------------------

    def _task(self, name: str, ctx: Turn) -> TaskState | None:
        return self.state.judge if name == _judge(ctx) else self.state.tasks.get(name)

    def _all(self, ctx: Turn) -> dict[str, TaskState]:
        """The tasks, and the judge's, if it was asked."""
        judge = {_judge(ctx): self.state.judge} if self.state.judge is not None else {}
        return {**self.state.tasks, **judge}

    def _current(self, ctx: Turn) -> tuple[str, TaskState | None]:
        """The task whose run the message is of, if it still waits for that."""
        run = ctx.envelope.runid
        for name, task in self._all(ctx).items():
            if run and task.run == run and not task.waiting and not is_over(task):
                return name, task
        return "", None

    def _move(self, name: str, task: TaskState, ctx: Turn) -> None:
        """To the task's next actor, if there is one and time left; else to its end."""
        actor = next_actor(task) if self._may_go_on(ctx) else ""
        if actor:
            task.tried.append(actor)
            task.actor, task.waiting = actor, True
            self._want(name, task, ctx)
        else:
            self._finish(name, task, ctx, failed=True)
            self._settle(ctx, [task.run])

    def _enter(self, message: RunOpened, task: TaskState, ctx: Turn) -> None:
        """The turn of a task has come that has waited; or nobody is there any more to do it."""
        enter(self.state, task, message)
        if not message.run:
            self._fail(message.task, task, GONE, message.reason, ctx)
            self._settle(ctx, [])

    def _may_go_on(self, ctx: Turn) -> bool:
        """Whether a further run can be asked for: there is time left, and somebody to ask."""
        late = self.state.due is not None and ctx.now >= self.state.due
        return not late and ctx.deployed(self.state.session, "keyed")

    def _want(
        self, name: str, task: TaskState, ctx: Turn, candidates: tuple[str, ...] = ()
    ) -> None:
        """Have the session start a run in place of the one that has ended."""
        wanted = RunWanted(
            batch=ctx.key,
            task=name,
            actor=task.actor,
            model=task.wanted.model,
            prompt=self.state.prompt,
            slot=task.wanted.slot,
            candidates=candidates,
            remember=self.state.said is not None and not candidates,
            context=self.state.context,
            over=task.run,
            expires=self.state.due,
            reason=task.reason,
        )
        self._tell(wanted, ctx)

    def _refuse(self, message: RunOpened, task: TaskState | None, ctx: Turn) -> None:
        """Stop a run that nobody waits for any more, unless it is the task's own."""
        if message.run and (task is None or task.run != message.run):
            self._stop(message.task, message.run, "its task is over", ctx)
            self._tell(RunsOver(runs=(message.run,)), ctx)

    # -- how it ends -----------------------------------------------------------------------

    def _settle(self, ctx: Turn, over: list[str]) -> None:
        """See whether the batch has what it wants. `over` are runs that the session still has."""
        if reason := enough(self.state):
            over = [*over, *self._stop_rest(SUPERSEDED, reason, ctx)]
        # Only the run that it follows proves that nobody has stopped the batch meanwhile.
        if over and self._may_go_on(ctx) and needs_judge(self.state):
            judge = self.state.judge = judge_task(self.state, over.pop())
            self._want(_judge(ctx), judge, ctx, tuple(succeeded(self.state)))
        if over:
            self._tell(RunsOver(runs=tuple(over)), ctx)
        if all(is_over(task) for task in self._all(ctx).values()):
            self._close(ctx)

    def _stop_rest(self, code: str, reason: str, ctx: Turn) -> list[str]:
        """End whatever is not over; returns the runs that were live."""
        rest = {name: task for name, task in self._all(ctx).items() if not is_over(task)}
        for name, task in rest.items():
            if not task.waiting:
                self._stop(name, task.run, reason, ctx)
            self._fail(name, task, code, reason, ctx)
        return [task.run for task in rest.values() if task.run]

    def _stop(self, name: str, run: str, reason: str, ctx: Turn) -> None:
        ctx.stop(run, reason)
        self._emit(TaskStopped(batch=ctx.key, task=name, run=run, reason=reason), ctx)

    def _fail(self, name: str, task: TaskState, code: str, reason: str, ctx: Turn) -> None:
        task.outcome, task.code, task.reason = "failed", code, brief(reason)
        task.http_status = STATUSES.get(code, 0)
        self._finish(name, task, ctx, failed=True)

    def _finish(self, name: str, task: TaskState, ctx: Turn, *, failed: bool = False) -> None:
        """The one end of a task. Nobody follows the judge's."""
        task.status, task.waiting = "FAILED" if failed else "SUCCESS", False
        task.finished = ctx.now
        if name == _judge(ctx):
            return
        event = TaskFinished(
            batch=ctx.key,
            task=name,
            run=task.run,
            model=task.wanted.model,
            status=task.status,
            finish=task.finish,
            usage=task.usage,
            code=task.code,
            http_status=task.http_status,
            reason=task.reason,
            retry_after=task.retry_after,
        )
        self._emit(event, ctx)
        if self.state.supervised:
            self._tell(task_ended(ctx.key, name, task), ctx)

    def _close(self, ctx: Turn) -> None:
        """The one end of the batch."""
        state = self.state
        state.status, state.finished = outcome(state), ctx.now
        state.winner, state.reason = choose(state)
        ctx.forget(DEADLINE)
        event = BatchFinished(
            batch=ctx.key, status=state.status, winner=state.winner, reason=state.reason
        )
        self._emit(event, ctx)

    # -- telling ---------------------------------------------------------------------------

    def _emit(self, event: Message, ctx: Turn) -> None:
        keep = timedelta(seconds=self.state.keep) or EVENT_TTL
        ctx.emit(conversation_topic(self.state.conversation), event, ttl=keep)

    def _tell_thread(self, task: TaskState, message: Generated, ctx: Turn) -> None:
        """The session is to know where an answer was kept, before anybody is told of that."""
        found = ThreadFound(
            thread=message.thread,
            actor=task.actor,
            upstream=message.upstream,
            left=message.left,
        )
        self._tell(found, ctx)

    def _tell(self, message: Message, ctx: Turn) -> None:
        """Tell the session, unless its type is not deployed any more."""
        if ctx.deployed(self.state.session, "keyed"):
            ctx.tell(Address(self.state.session, self.state.conversation), message)


def _judge(ctx: Turn) -> str:
    return f"{ctx.key}-{JUDGE}"
