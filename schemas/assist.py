"""What a session has models do beside answering: open a thread with a provider, write a draft.

A thread is a provider's own record of a conversation (Coze calls it conversation_id); its id is
the provider's, never made up here for one that keeps threads.
"""

from schemas.base import Job, Message, Request
from schemas.ownership import Assignee


class ThreadKept(Message, tag="session.thread_kept"):
    """The thread of a conversation, or the run that has it opened.

    With a `run`, follow `conversation/<c>` for `ThreadOpened` or `ThreadFailed`.
    """

    thread: str = ""
    run: str = ""


class OpenThread(Request[ThreadKept], tag="session.open_thread"):
    """Have a provider open a thread for a conversation, unless it has one.

    `actors` are the models that will answer, the preferred one first. Where it keeps no threads,
    the conversation's own id is the answer. With `anew` the old thread is left behind. Refused:
    404 `model_not_found`, 409 `MANUAL_IN_PROGRESS` (for `anew`).
    """

    actors: tuple[str, ...]
    anew: bool = False
    team: str = ""


class ThreadMade(Message, tag="model.thread_made"):
    """What became of a `MakeThread`: the provider's id, or nothing and why."""

    thread: str = ""
    upstream: str = ""
    code: str = ""
    status: int = 0
    reason: str = ""


class MakeThread(Job[ThreadMade], tag="model.make_thread"):
    """Open a thread at the model's provider for a conversation."""

    conversation: str


class ThreadFound(Message, tag="session.thread_found"):
    """An answer was kept in another thread than its job named: one that `actor` had to open at
    its `upstream`, because there was none, or because the one that is `left` was gone."""

    thread: str
    actor: str
    upstream: str = ""
    left: str = ""


class ThreadOpened(Message, tag="session.thread_opened"):
    """Told on conversation/<c>: it has this thread from now on.

    `run` is the one that opened it; none if it was opened for the sake of an answer.
    """

    thread: str
    run: str = ""


class ThreadFailed(Message, tag="session.thread_failed"):
    """Told on conversation/<c>: the provider opened none."""

    run: str
    code: str = ""
    status: int = 0
    reason: str = ""


class DraftOpened(Message, tag="session.draft_opened"):
    """The run that writes it; it is heard on internal/<c> as `run.delta` and `DraftWritten`."""

    run: str


class WriteDraft(Request[DraftOpened], tag="session.write_draft"):
    """Have a model write what an agent might answer; only colleagues see it.

    `hint` is what the agent wants said. Refused: 404 `model_not_found`, 409 `INVALID_STATUS`
    (no person has it or is waited for), 429 `too_many_runs`.
    """

    agent: Assignee
    actor: str
    hint: str = ""
    model: str = ""


class DraftWritten(Message, tag="model.draft_written"):
    """Told on internal/<c> in one commit with the end of its run."""

    run: str
    text: str = ""
    reason: str = ""
