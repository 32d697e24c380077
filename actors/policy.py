"""When a batch is done and how it went: pure, from its state alone.

`all` waits for everyone, `first` and `quorum` only for as many as they want; `judge` waits for
everyone, and then has a model choose.
"""

import re
from datetime import datetime, timedelta

from actors.limits import clip
from schemas.conversation import (
    FINAL,
    LONGEST,
    BatchState,
    BatchStatus,
    RunOpened,
    StartBatch,
    TaskEnded,
    TaskState,
    Wanted,
)
from schemas.model import Generated, Outcome

MOST_REASON = 300
"""Characters of a reason that are kept: sixteen of them must fit into a state."""
MOST_EXCERPT = 200
JUDGE = "judge"

_NUMBER = re.compile(r"[0-9]{1,9}")
_CONTROLS = dict.fromkeys(range(32), " ")


def begin(message: StartBatch, *, owner: str, at: datetime) -> BatchState:
    """The state of a batch whose first runs are started, or wait for their turn."""
    state = BatchState(
        conversation=message.conversation,
        status="PROCESSING" if any(task.run for task in message.tasks) else "PENDING",
        prompt=message.prompt,
        said=message.said,
        context=message.context,
        policy=message.policy,
        created=at,
        due=at + timedelta(seconds=message.deadline or LONGEST),
        after=message.after,
        owner=owner,
        session=message.session,
        keep=message.keep,
        supervised=message.supervised,
    )
    for task, wanted in zip(message.tasks, message.wanted, strict=True):
        first = wanted.actors[0]
        state.tasks[task.task] = TaskState(
            wanted=wanted,
            status="PROCESSING" if task.run else "PENDING",
            actor=first,
            run=task.run,
            waiting=not task.run,
            tried=[first],
        )
    return state


def enter(state: BatchState, task: TaskState, opened: RunOpened) -> None:
    """A task that has waited has its turn: by the first of its actors that is still there."""
    state.status, state.context = "PROCESSING", opened.context
    task.status, task.run, task.waiting = "PROCESSING", opened.run, False
    actors = task.wanted.actors
    if opened.actor in actors:
        task.actor, task.tried = opened.actor, list(actors[: actors.index(opened.actor) + 1])


def brief(text: str, most: int = MOST_REASON) -> str:
    """As much of a text as is kept; a control character in it would take six bytes of a state."""
    return clip(text.translate(_CONTROLS), most)


def is_over(task: TaskState) -> bool:
    """Whether a task has had its one end."""
    return task.status in FINAL


def succeeded(state: BatchState) -> list[str]:
    """The tasks that were answered, in the order in which they were asked for."""
    return [name for name, task in state.tasks.items() if task.status == "SUCCESS"]


def next_actor(task: TaskState) -> str:
    """Who is to have the task after all who have had it; nobody if there are no more."""
    left = task.wanted.actors[len(task.tried) :]
    return left[0] if left else ""


def note(task: TaskState, message: Generated) -> None:
    """Keep with a task what its run has said of itself."""
    task.outcome, task.finish = message.outcome, message.finish
    task.usage, task.upstream = message.usage, brief(message.upstream, MOST_EXCERPT)
    task.excerpt = brief(message.excerpt, MOST_EXCERPT)
    task.reason, task.retry_after = brief(message.reason), message.retry_after
    task.code, task.http_status = brief(message.code, 80), message.status
    if message.outcome == "refused":
        task.code = "refused"
    elif message.outcome == "failed":
        task.code = task.code or "failed"


def enough(state: BatchState) -> str:
    """Why no more answers are wanted; nothing as long as they are."""
    good = succeeded(state)
    if state.policy.kind == "first" and good:
        return f"task {good[0]} was answered first"
    if state.policy.kind == "quorum" and len(good) >= state.policy.n:
        return f"{len(good)} tasks were answered, and no more were wanted"
    return ""


def needs_judge(state: BatchState) -> bool:
    """Whether a model is to choose now: all are over, there is a choice, and nobody was asked."""
    ready = state.judge is None and all(is_over(task) for task in state.tasks.values())
    return state.policy.kind == JUDGE and ready and len(succeeded(state)) > 1


def judge_task(state: BatchState, over: str) -> TaskState:
    """The judge's own task, which waits for a run in place of the last one that has ended."""
    judge = state.policy.judge
    return TaskState(
        wanted=Wanted(actors=(judge,), model=judge),
        status="PROCESSING",
        actor=judge,
        run=over,
        waiting=True,
        tried=[judge],
    )


def task_ended(batch: str, name: str, task: TaskState) -> TaskEnded:
    """What a session that is supervised is told of a task's end."""
    outcome: Outcome = "answered" if task.status == "SUCCESS" else task.outcome or "failed"
    return TaskEnded(batch=batch, task=name, outcome=outcome, code=task.code, excerpt=task.excerpt)


def read_number(text: str, most: int) -> int | None:
    """The first number in a text, if it is one of 1 to `most`."""
    found = _NUMBER.search(text)
    number = int(found[0]) if found else 0
    return number if 1 <= number <= most else None


def choose(state: BatchState) -> tuple[str, str]:
    """The task that the policy chose, and why, if that is not plain."""
    good = succeeded(state)
    if not good or state.policy.kind not in ("first", JUDGE):
        return "", ""
    if state.policy.kind == "first" or len(good) == 1:
        return good[0], ""
    return _judged(good, state.judge)


def _judged(good: list[str], judge: TaskState | None) -> tuple[str, str]:
    if judge is None:
        return good[0], "the judge was not asked; the first answer in order was taken"
    if judge.status != "SUCCESS":
        return good[0], f"the judge failed ({judge.reason}); the first answer in order was taken"
    if number := read_number(judge.excerpt, len(good)):
        return good[number - 1], ""
    said = clip(judge.excerpt, 40)
    return good[0], (
        f"the judge said {said!r}, expected a number from 1 to {len(good)};"
        " the first answer in order was taken"
    )


def outcome(state: BatchState) -> BatchStatus:
    """How a batch went whose tasks are over."""
    good = len(succeeded(state))
    if good == len(state.tasks) or (good and enough(state)):
        return "SUCCESS"
    return "PARTIAL" if good else "FAILED"
