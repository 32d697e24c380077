"""What any model is asked and what it answers, whichever provider it is.

The words of a request's `settings` are those of OpenAI's chat completions; each adapter
translates them.
"""

from typing import Any, Literal

import msgspec

from schemas.base import Job, Message, Topic

Role = Literal["system", "developer", "user", "assistant", "tool"]
Finish = Literal["stop", "length", "tool_calls", "content_filter"]
Outcome = Literal["answered", "refused", "failed"]

MOST_INLINE = 32 * 1024
"""Bytes of a prompt that travel in messages and stay in states; more goes to the file store."""
MOST_TEXT = 256 * 1024
"""Characters of one answer that are kept; what is longer ends with the finish `length`."""

KINDS = (
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "application/pdf",
    "audio/wav",
    "audio/mpeg",
    "audio/flac",
    "audio/ogg",
    "text/plain",
)
"""What an uploaded file may be, as sniffed: no archives, and nothing that a browser would run."""


class FileRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file in the store: its id there, what its sender calls it, its sniffed type, its bytes."""

    id: str
    name: str = ""
    media: str = "application/octet-stream"
    size: int = 0


class Text(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    """A piece of text."""

    text: str


class Image(msgspec.Struct, frozen=True, tag="image", tag_field="type", omit_defaults=True):
    """An image: a file of ours, or a URL that the provider is to fetch."""

    file: FileRef | None = None
    url: str = ""
    detail: str = ""


class Attachment(msgspec.Struct, frozen=True, tag="file", tag_field="type", omit_defaults=True):
    """Any other file of ours: a document, a recording."""

    file: FileRef


Part = Text | Image | Attachment


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that a model wants made; `arguments` is JSON as text, as OpenAI has it."""

    id: str
    name: str
    arguments: str = "{}"


class Utterance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a chat. `call` is the id of the tool call that a `tool` message answers."""

    role: Role
    content: tuple[Part, ...] = ()
    name: str = ""
    calls: tuple[ToolCall, ...] = ()
    call: str = ""
    reasoning: str = ""


class Prompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model is given: messages, and how to answer.

    One of more than MOST_INLINE bytes is a file that holds a Prompt as JSON: `body`.
    """

    messages: tuple[Utterance, ...] = ()
    settings: dict[str, Any] = {}
    body: FileRef | None = None


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker reads from the log of a conversation before it asks its model.

    What counts was stored after the sequence `after` and not after `until`, which is that of the
    request itself; only the last `turns` whole turns are taken, and of those what fits into
    about `tokens` tokens (0: as the model's options say). What was said in the batches of
    `joined`, and has no answer, is put to the model together with the prompt.
    """

    after: int = 0
    until: int = 0
    turns: int = 0
    tokens: int = 0
    joined: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens, as the provider counted them; `reasoning` is part of `completion`."""

    prompt: int = 0
    completion: int = 0
    reasoning: int = 0
    cached: int = 0


class Generated(Message, tag="model.generated"):
    """What came of a job: the answer itself is an event of its conversation's history.

    `refused` is an answer that says no (the provider's filter, or a rule of ours); `failed` one
    that no further attempt at this model would mend. `code`, `status` (the HTTP status that
    its client should get) and `reason` say why, `retry_after` in how many seconds it may be
    worth another try; `excerpt` is how the answer begins, at most 500 characters, or the number
    that a judge named. `thread` is where the provider keeps the conversation now, if it is not
    the thread that the job named, which was `left`.
    """

    task: str
    batch: str
    model: str = ""
    outcome: Outcome = "answered"
    finish: Finish = "stop"
    usage: Usage = Usage()
    upstream: str = ""
    code: str = ""
    status: int = 0
    reason: str = ""
    retry_after: float = 0
    excerpt: str = ""
    thread: str = ""
    left: str = ""


class Generate(Job[Generated], tag="model.generate"):
    """Answer a prompt, as one task of a batch in a conversation.

    `slot` tells tasks of the same model apart. With a `context` the worker puts what was said
    before in front of the messages. `candidates` are tasks of the batch whose answers are to be
    judged: the worker puts them behind the prompt, numbered from 1, and the answer is a number.
    `remember` says whether the answer becomes part of the conversation's history for later
    turns; it is kept as an event of it in any case, for `keep` seconds (0: as all events).
    `thread` is where the provider keeps the conversation, at the upstream `thread_at`. What is
    said `aside` is for an agent: it is told on internal/<c> alone, and kept nowhere else.
    """

    task: str
    batch: str
    conversation: str
    model: str
    prompt: Prompt
    slot: int = 0
    context: Context | None = None
    candidates: tuple[str, ...] = ()
    remember: bool = True
    keep: float = 0
    thread: str = ""
    thread_at: str = ""
    aside: bool = False


def conversation_topic(conversation: str) -> Topic:
    """Where a conversation is heard: who says what, every piece of it as it comes."""
    return Topic("conversation", conversation)


def history_topic(conversation: str) -> Topic:
    """Where the whole messages of a conversation are kept, without the pieces they came in."""
    return Topic("history", conversation)
