"""What is said to a conversation's session and to the batches of it, and what they tell.

One request becomes a batch of tasks, each for one model. The session starts and stops their
runs, because only it knows who may speak; the batch gathers what comes of them.
"""

from datetime import datetime
from typing import Literal

import msgspec

from schemas.base import Message, Request
from schemas.model import Context, FileRef, Finish, Outcome, Prompt, ToolCall, Usage, Utterance
from schemas.ownership import Arriving, Customer, Escalation, Mode

SESSION = "session"
"""The type that keeps conversations, one instance each; its key is the conversation's id."""
COMPLETION = "completion"
"""The same for conversations of one request, which are soon forgotten."""
BATCH = "batch"
"""The type that gathers the answers to one request; its key is the batch's id."""
NOBODY = "anonymous"
"""Whoever does not say who they are."""

BatchStatus = Literal["PENDING", "PROCESSING", "SUCCESS", "FAILED", "PARTIAL"]
TaskStatus = Literal["PENDING", "PROCESSING", "SUCCESS", "FAILED"]
STATUS_NUMBERS = {"PENDING": 0, "SUCCESS": 1, "FAILED": 2, "PROCESSING": 3, "PARTIAL": 4}
"""As Async-Chat numbers them; PARTIAL is ours."""

FINAL = ("SUCCESS", "FAILED", "PARTIAL")
MOST_TASKS = 16
MOST_ACTORS = 8
"""Actors that one task may be given to, one after the other."""
MOST_NAME = 200
"""Characters of what a client calls a model."""
LONGEST = 12 * 3600.0
"""Seconds that a batch may take."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a batch is done: `all` answered, the `first` good answer, a `quorum` of `n`, or all
    and then the best of them as `judge` (an actor's name) says."""

    kind: Literal["all", "first", "quorum", "judge"] = "all"
    n: int = 1
    judge: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task: the actors that may do it, in order of preference, and what it is called.

    `model` is the name its client used. `slot` tells tasks of the same model apart.
    """

    actors: tuple[str, ...]
    model: str
    slot: int = 0


def is_open_to(owner: str, principal: str) -> bool:
    """Whether a principal may see and continue what belongs to an owner.

    What was begun without saying who one is belongs to nobody. Messages without a principal
    come from within.
    """
    return owner in ("", NOBODY) or principal in ("", owner)


class OpenTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it was begun. Its id is the batch's, a dash and its number from 1."""

    task: str
    model: str
    run: str


# -- said to a session ---------------------------------------------------------------------


class BatchOpened(Message, tag="session.batch_opened"):
    """The batch is stored, and its runs with it.

    Where what was said called a person, it is stored, and there is no batch: `mode` says how
    things stand then, `escalation` why, `notice` what the customer is told. `queued` is how many
    batches go before this one, whose tasks have no runs yet. `thread` is the conversation's.
    """

    batch: str
    conversation: str
    tasks: tuple[OpenTask, ...]
    mode: Mode = "bot_active"
    escalation: Escalation | None = None
    notice: str = ""
    queued: int = 0
    thread: str = ""


class OpenBatch(Request[BatchOpened], tag="session.open_batch"):
    """Say something to a conversation, for one or several models to answer.

    `prompt` is what the models are given. `said` is what the conversation remembers of it: None
    for a request that leaves nothing behind. A `whole` prompt brings its context along (as does
    one without `said`): nothing that was said before is put in front of it. `deadline` is in
    seconds from now (0: as the session's options say). Who asked is the envelope's principal.
    With a `team` that takes over, the regulator's rules look at what is said. `arriving` is what
    happens if a run is going (None: as the conversation's, else the deployment's policy is).
    `thread` is the provider's id that the client knows the conversation by, if it sends one.
    Refused: 404 `model_not_found` (no actor of a task is deployed) and `conversation_not_found`
    (it is somebody else's), 413 `prompt_too_large`, 422 `invalid_batch`, 429 `too_many_runs`,
    503 `batches_not_deployed`, 409 `MANUAL_IN_PROGRESS`, 429 `queue_full`, 400 `unknown_thread`.
    """

    tasks: tuple[Wanted, ...]
    prompt: Prompt
    said: Utterance | None = None
    whole: bool = False
    policy: Policy = Policy()
    deadline: float = 0
    team: str = ""
    arriving: Arriving | None = None
    customer: Customer | None = None
    thread: str = ""


class Aborted(Message, tag="session.aborted"):
    """The runs that were stopped by it, and the `tasks` that waited; none if there were none."""

    runs: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


class Abort(Request[Aborted], tag="session.abort"):
    """Stop one run or task, all of a batch, or (none is named) all of the conversation.

    Refused: 404 `conversation_not_found`.
    """

    run: str = ""
    batch: str = ""
    reason: str = ""
    task: str = ""


class RunWanted(Message, tag="session.run_wanted"):
    """A batch wants (another) run for a task; it is told of it by a `RunOpened`.

    It takes the place of the run `over`; one that is no longer live was stopped, and nothing
    follows it. Past `expires` it is not worth doing.
    """

    batch: str
    task: str
    actor: str
    model: str
    prompt: Prompt
    slot: int = 0
    candidates: tuple[str, ...] = ()
    remember: bool = True
    context: Context | None = None
    over: str = ""
    expires: datetime | None = None
    reason: str = ""


class RunsOver(Message, tag="session.runs_over"):
    """These runs have ended, or were stopped by their batch."""

    runs: tuple[str, ...]


class TaskEnded(Message, tag="session.task_ended"):
    """A batch tells what a task came to. `excerpt` is how the answer begins."""

    batch: str
    task: str
    outcome: Outcome = "answered"
    code: str = ""
    excerpt: str = ""


class SweepDue(Message, tag="session.sweep_due"):
    """A session's reminder, while runs are live: to end those whose time is over."""


# -- said to a batch -----------------------------------------------------------------------


class StartBatch(Message, tag="batch.start"):
    """Gather what comes of these tasks; their first runs are started already, unless they are ""
    and wait for their turn. A `supervised` batch tells its session how each task ended.

    `wanted` names only actors that were deployed, the first of which has the run. `session` is
    the type that keeps the conversation, `after` the sequence of the request, `deadline` in
    seconds from when this was said (0: the longest); `keep` is how many seconds events are kept
    (0: as all are).
    """

    conversation: str
    tasks: tuple[OpenTask, ...]
    wanted: tuple[Wanted, ...]
    prompt: Prompt
    said: Utterance | None = None
    context: Context | None = None
    policy: Policy = Policy()
    deadline: float = 0
    session: str = SESSION
    after: int = 0
    keep: float = 0
    supervised: bool = False


class RunOpened(Message, tag="batch.run_opened"):
    """The run that a batch wanted; empty if it was refused, with the reason. Who has waited gets
    the `context`."""

    task: str
    run: str = ""
    actor: str = ""
    reason: str = ""
    context: Context | None = None


class RunStopped(Message, tag="batch.run_stopped"):
    """Whoever may has stopped a run. `code` is what its task failed of (empty: aborted)."""

    task: str
    run: str
    reason: str
    code: str = ""


class BatchOverdue(Message, tag="batch.overdue"):
    """A batch's reminder: its deadline has come."""


# -- kept ----------------------------------------------------------------------------------


class TaskState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A task of a batch: which actors have had it, and what came of it.

    While it is `waiting` for another run, `run` is still the one that has ended.
    """

    wanted: Wanted
    status: TaskStatus = "PENDING"
    actor: str = ""
    run: str = ""
    waiting: bool = False
    tried: list[str] = []
    outcome: Outcome | None = None
    finish: Finish = "stop"
    usage: Usage = Usage()
    upstream: str = ""
    code: str = ""
    http_status: int = 0
    reason: str = ""
    excerpt: str = ""
    retry_after: float = 0
    finished: datetime | None = None


class BatchState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A batch by its id. `after` is a sequence before which nothing of it was said; `winner` is
    the task that its policy chose."""

    conversation: str = ""
    status: BatchStatus = "PENDING"
    prompt: Prompt = Prompt()
    said: Utterance | None = None
    context: Context | None = None
    policy: Policy = Policy()
    tasks: dict[str, TaskState] = {}
    judge: TaskState | None = None
    winner: str = ""
    created: datetime | None = None
    due: datetime | None = None
    finished: datetime | None = None
    reason: str = ""
    after: int = 0
    owner: str = ""
    session: str = SESSION
    keep: float = 0
    supervised: bool = False


# -- told on history/<conversation>: whole messages ------------------------------------------


class MessageSaid(Message, tag="message.said"):
    """What a person said; it interrupted the batches of `joined`, and is answered with them."""

    batch: str
    message: Utterance
    by: str = ""
    joined: tuple[str, ...] = ()


class MessageAnswered(Message, tag="message.answered"):
    """What a model answered: stored in one commit with the end of its run.

    `remembered` says whether later turns see it. `thread` is where a provider that keeps
    conversations itself has kept this one, for the tasks of this `slot` at this `upstream`.
    """

    batch: str
    task: str
    run: str
    attempt: int
    model: str
    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    files: tuple[FileRef, ...] = ()
    outcome: Outcome = "answered"
    finish: Finish = "stop"
    usage: Usage = Usage()
    upstream: str = ""
    reason: str = ""
    seconds: float = 0
    remembered: bool = True
    thread: str = ""
    slot: int = 0


# -- told on conversation/<conversation>, beside what its runs say -----------------------------


class BatchBegan(Message, tag="batch.began"):
    """A batch, and who answers it. After it come `run.started`, `run.delta`, …"""

    batch: str
    tasks: tuple[OpenTask, ...]


class RunFinished(Message, tag="run.finished"):
    """A run has said all it had to say: stored in one commit with its end."""

    run: str
    attempt: int
    task: str
    batch: str
    model: str
    outcome: Outcome = "answered"
    finish: Finish = "stop"
    usage: Usage = Usage()
    upstream: str = ""
    code: str = ""
    status: int = 0
    reason: str = ""


class TaskMoved(Message, tag="task.moved"):
    """A task has gone to another run, or now has its first; what the old one said is void."""

    batch: str
    task: str
    run: str
    model: str
    reason: str = ""


class TaskStopped(Message, tag="run.stopped"):
    """A run was stopped: nothing of it comes after this."""

    batch: str
    task: str
    run: str
    reason: str = ""


class TaskFinished(Message, tag="task.finished"):
    """A task is done, one way or the other. `code` and `http_status` say why it failed."""

    batch: str
    task: str
    run: str
    model: str
    status: TaskStatus
    finish: Finish = "stop"
    usage: Usage = Usage()
    code: str = ""
    http_status: int = 0
    reason: str = ""
    retry_after: float = 0


class BatchFinished(Message, tag="batch.finished"):
    """A batch is done; `winner` is the task that its policy chose, if it chooses."""

    batch: str
    status: BatchStatus
    winner: str = ""
    reason: str = ""


Ended = RunFinished | TaskStopped | TaskFinished | BatchFinished
ConversationEvent = MessageSaid | BatchBegan | TaskMoved | Ended
"""Beside these, a conversation's topic has the runtime's RunStarted, RunSuperseded and Delta."""
