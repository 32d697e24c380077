"""What Async-Chat's clients send and get, field by field.

Source: Async-Chat, whose clients rely on these names; more fields are only added.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from schemas.conversation import BatchStatus, TaskStatus
from schemas.model import Finish, Usage
from schemas.ownership import Arriving

DISPATCHED = "Tasks dispatched successfully"
THINKING = "thinking..."

Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Binary = Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]
StatusCode = Annotated[
    int, msgspec.Meta(description="0 PENDING, 1 SUCCESS, 2 FAILED, 3 PROCESSING, 4 PARTIAL")
]


class BatchForm(msgspec.Struct, kw_only=True):
    """One prompt for one or several models, with files if need be.

    `model` is a list with commas. With a `gemini_concurrency` of more than 1 each Gemini model
    is asked that often at once. `policy` says when the batch is done: `all` answered, the
    `first` good answer, `quorum:2` of them, or all and then the one that a model chooses,
    `judge:<model>`. `deadline` is in seconds, or as `90s`, `5m`.
    """

    prompt: Annotated[str, msgspec.Meta(min_length=1)]
    model: str = "gemini-2.5-flash"
    conversation_id: Word | msgspec.UnsetType = msgspec.UNSET
    files: list[Binary] = []
    mode: Literal["text", "image"] = "text"
    gemini_concurrency: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    policy: str = "all"
    deadline: str | msgspec.UnsetType = msgspec.UNSET


class BatchAccepted(msgspec.Struct):
    """All of it is stored: the batch, its tasks, its files."""

    batch_id: str
    conversation_id: str
    message: str
    task_ids: list[str]


class TaskResult(msgspec.Struct, kw_only=True):
    """One task of a batch. `response_text` is there once the model has said all of it.

    `error_msg` says why there is no answer, `error_code` says it to programs. `cost_time` is in
    seconds. `winner` is the task that the batch's policy chose.
    """

    task_id: str
    model_name: str
    status: TaskStatus
    status_code: StatusCode
    response_text: str | None = None
    reasoning_text: str | None = None
    error_msg: str | None = None
    error_code: str | None = None
    cost_time: float | None = None
    finish_reason: Finish | None = None
    usage: Usage | None = None
    files: list[str] = []
    winner: bool = False


class BatchView(msgspec.Struct, kw_only=True):
    """How far a batch is."""

    batch_id: str
    conversation_id: str
    status: BatchStatus
    status_code: StatusCode
    user_prompt: str
    created_at: datetime | None
    finished_at: datetime | None
    results: list[TaskResult]


class TaskView(TaskResult, kw_only=True):
    """A task by itself, with what was asked."""

    batch_id: str
    conversation_id: str
    task_type: Literal["TEXT", "IMAGE", "MULTIMODAL"]
    prompt: str
    created_at: datetime | None


class HistoryEntry(msgspec.Struct, kw_only=True):
    """One message of a conversation. `model` names who is asked, or who answers.

    An answer that is still coming `is_loading`, and its content is a placeholder. What was said
    from person to person has no batch, but a `message_id`: a user's, a human `agent`'s with that
    one's `name`, or the desk's own (`system`).
    """

    role: str
    content: str
    model: str | None
    files: list[str] = []
    is_loading: bool = False
    created_at: datetime | None = None
    batch_id: str = ""
    task_id: str | None = None
    name: str | None = None
    message_id: str | None = None


class ConversationEntry(msgspec.Struct, kw_only=True):
    """A conversation in the list of them."""

    conversation_id: str
    title: str
    modified: datetime | None


class ConversationList(msgspec.Struct):
    """Conversations, the one that changed last first."""

    conversations: list[ConversationEntry]


class Aborting(msgspec.Struct):
    """Why something is stopped."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class AbortedView(msgspec.Struct):
    """The runs that were stopped by it, and the tasks that waited for their turn; none if all had
    ended."""

    runs: list[str]
    tasks: list[str] = []


class ArrivingPolicy(msgspec.Struct):
    """What becomes of a message that comes while another is answered, unless it says so itself;
    null: as the deployment has it."""

    arriving: Arriving | None


class RunningTask(msgspec.Struct, kw_only=True):
    """What a run has said so far; what it says next has a greater `n`, or another attempt."""

    batch_id: str
    task_id: str
    model: str
    run: str
    attempt: int = 0
    n: int = 0
    text: str = ""
    reasoning: str = ""


class Snapshot(msgspec.Struct, kw_only=True):
    """A conversation as it stands at a cursor: nothing of what comes after it is in here."""

    conversation_id: str
    cursor: int
    messages: list[HistoryEntry]
    running: list[RunningTask]
