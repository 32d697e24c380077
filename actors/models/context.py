"""What a model is given of what was said before: whole turns, read from the conversation's log.

Any worker can do so, for nothing of it is kept anywhere else.
"""

from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from actors.models.events import Thread
from actors.models.options import ContextOptions
from actors.models.turns import Entries, Turn, as_said, chain, make_turns
from runtime.objects import FileStore
from runtime.work import Work
from schemas.base import tag_of
from schemas.conversation import MessageAnswered, MessageSaid
from schemas.envelope import UNREADABLE, Envelope
from schemas.model import (
    Attachment,
    Generate,
    Image,
    Part,
    Text,
    Utterance,
    history_topic,
)
from schemas.ownership import ManualMessage

BYTES_A_TOKEN = 3
"""An estimate for all models alike: a little much for English, about right for Chinese."""
TOKENS_A_MESSAGE = 4
TOKENS_A_FILE = 1000
NO_LIMIT = 10**9
SPARE = 50
"""What may have failed between the turns that count, before older ones are given up."""

Told = TypeVar("Told", MessageSaid, MessageAnswered, ManualMessage)


@dataclass(frozen=True)
class Recalled:
    """What was said before, oldest first. `thread` is where the provider keeps it itself, if it
    does: its news are those of the messages, the last ones, that are not known there."""

    messages: list[Utterance] = field(default_factory=list)
    thread: Thread | None = None
    joined: list[Utterance] = field(default_factory=list)
    """What was said last and not answered, because it was interrupted by the job's prompt."""


async def recall(job: Generate, ctx: Work, options: ContextOptions) -> Recalled:
    """What is put in front of a job's messages; nothing without a `context`.

    The last turns that were answered, without the job's own batch, as far as they fit: of what
    the job and the deployment allow the less.
    """
    wanted = job.context
    if wanted is None or not (options.turns or wanted.joined):
        return Recalled(thread=_named(job, [], []))
    most = min(wanted.turns or options.turns, options.turns)
    tokens = min(one for one in (wanted.tokens, options.tokens, NO_LIMIT) if one)
    entries = Entries(most + SPARE)
    # What was said since the request is no part of it, though the job may be a later one.
    until = wanted.until or ctx.sequence
    # But what was interrupted may have been answered up to the very commit that did so.
    last = ctx.sequence if wanted.joined else until
    async for seq, envelope in ctx.read(history_topic(job.conversation), wanted.after, last):
        _note(entries, envelope, job.batch, ctx, only=wanted.joined if seq > until else None)
    joined = entries.take_unanswered(wanted.joined)
    turns = _choose(make_turns(entries.all(), unanswered=job.aside), most, tokens)
    chained = chain(turns, job.prompt.messages)
    thread = _named(job, turns, chained)
    if thread is None and not (job.aside or joined) and ctx.attempt == 1:
        # What an attempt that failed has told the provider, nobody knows; nor one interrupted.
        thread = _going_on(entries.last_own(job.slot))
    messages = [one for turn in chained for one in turn]
    there = [await _with_files_that_are_there(one, ctx.files) for one in messages]
    also = [await _with_files_that_are_there(one, ctx.files) for one in joined]
    return Recalled(there, thread, also)


async def read_candidates(job: Generate, ctx: Work) -> list[str]:
    """The answers that a job is to judge, in the order it names their tasks."""
    after = job.context.after if job.context else 0
    found: dict[str, str] = {}
    async for _, envelope in ctx.read(history_topic(job.conversation), after, ctx.sequence):
        answer = _read(envelope, MessageAnswered, ctx)
        if answer is not None and answer.task in job.candidates:
            found[answer.task] = answer.text
    return [found.get(task, "") for task in job.candidates]


def estimate(message: Utterance) -> int:
    """About how many tokens a message takes."""
    calls = sum(len(one.name) + len(one.arguments.encode()) for one in message.calls)
    total = TOKENS_A_MESSAGE + calls // BYTES_A_TOKEN
    for part in message.content:
        if isinstance(part, Text):
            total += -(-len(part.text.encode("utf-8", "replace")) // BYTES_A_TOKEN)
        else:
            total += TOKENS_A_FILE
    return total


def _note(
    entries: Entries,
    envelope: Envelope[msgspec.Raw],
    own_batch: str,
    ctx: Work,
    *,
    only: tuple[str, ...] | None = None,
) -> None:
    """Take in an event; with `only`, nothing but what belongs to those batches."""
    if said := _read(envelope, MessageSaid, ctx):
        if said.batch != own_batch and (only is None or said.batch in only):
            entries.add_said(envelope.id, said)
    elif answer := _read(envelope, MessageAnswered, ctx):
        if only is None or answer.batch in only:
            own = envelope.source.partition("/")[0] == ctx.address.actor
            entries.add_answer(answer, own=own)
    elif manual := _read(envelope, ManualMessage, ctx) if only is None else None:
        entries.add_manual(manual)


def _read(envelope: Envelope[msgspec.Raw], kind: type[Told], ctx: Work) -> Told | None:
    """An event of a kind; None for any other. One that nobody can read must not be the end of
    its conversation: it is passed over."""
    if envelope.type != tag_of(kind):
        return None
    try:
        return msgspec.json.decode(envelope.data, type=kind)
    except UNREADABLE as error:
        ctx.log.warning("history_unreadable", id=envelope.id, error=str(error))
        return None


def _choose(turns: list[Turn], most: int, tokens: int) -> list[Turn]:
    """The last turns, as many as are wanted and as fit."""
    chosen: list[Turn] = []
    for turn in reversed(turns):
        tokens -= sum(estimate(one) for one in turn.messages)
        tokens -= estimate(as_said(turn.answer)) if turn.answer else 0
        if tokens < 0 or len(chosen) == most:
            break
        chosen.append(turn)
    return chosen[::-1]


def _named(job: Generate, turns: list[Turn], chained: list[list[Utterance]]) -> Thread | None:
    """The thread that a job is told to go on in: whatever came after the last turn that is known
    there is news, all of it if there is none."""
    if not job.thread:
        return None
    known = [n for n, turn in enumerate(turns) if job.thread in turn.threads]
    if not known:
        return Thread(job.thread, job.thread_at, news=None)
    news = sum(len(messages) for messages in chained[known[-1] + 1 :])
    return Thread(job.thread, job.thread_at, news=news)


def _going_on(answer: MessageAnswered | None) -> Thread | None:
    """Where the provider keeps the conversation that it has answered last, if it does."""
    if answer is None or not answer.thread:
        return None
    return Thread(answer.thread, answer.upstream, news=0)


async def _with_files_that_are_there(message: Utterance, files: FileStore) -> Utterance:
    """Files expire; a note says that there was one."""
    parts: list[Part] = []
    for part in message.content:
        file = part.file if isinstance(part, Image | Attachment) else None
        if file is not None and await files.find(file.id) is None:
            parts.append(Text(f"[the file {file.name or file.id} is no longer kept]"))
        else:
            parts.append(part)
    return msgspec.structs.replace(message, content=tuple(parts))
