"""What a model is given of what was said before: whole turns, read from the conversation's log.

Any worker can do so, for nothing of it is kept anywhere else.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from actors.models.options import ContextOptions
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

BYTES_A_TOKEN = 3
"""An estimate for all models alike: a little much for English, about right for Chinese."""
TOKENS_A_MESSAGE = 4
TOKENS_A_FILE = 1000
NO_LIMIT = 10**9
SPARE = 50
"""Turns that may fail between those that count, before older ones are given up."""

Told = TypeVar("Told", MessageSaid, MessageAnswered)


@dataclass
class _Turn:
    """What was said, and of all answers to it only the first and the asking actor's own: there
    may be many, and each may be long."""

    said: Utterance | None = None
    first: MessageAnswered | None = None
    own: dict[int, MessageAnswered] = field(default_factory=dict)
    """By the slots of their tasks."""

    @property
    def answer(self) -> MessageAnswered | None:
        """The actor's own answer, else the first."""
        return next(iter(self.own.values()), self.first)


@dataclass(frozen=True)
class Recalled:
    """What was said before, oldest first. `thread` is the answer after which the provider that
    gave it has a record of its own to go on with, if it has, and knows all that was said."""

    messages: list[Utterance] = field(default_factory=list)
    thread: MessageAnswered | None = None


async def recall(job: Generate, ctx: Work, options: ContextOptions) -> Recalled:
    """What is put in front of a job's messages; nothing without a `context`.

    The last turns that were answered, without the job's own batch, as far as they fit: of what
    the job and the deployment allow the less.
    """
    wanted = job.context
    if wanted is None or not options.turns:
        return Recalled()
    most = min(wanted.turns or options.turns, options.turns)
    tokens = min(one for one in (wanted.tokens, options.tokens, NO_LIMIT) if one)
    turns: OrderedDict[str, _Turn] = OrderedDict()
    # What was said since the request is no part of it, though the job may be a later one.
    until = wanted.until or ctx.sequence
    read = ctx.read(history_topic(job.conversation), wanted.after, until)
    async for _, envelope in read:
        _note(turns, envelope, job.batch, ctx)
        while len(turns) > most + SPARE:
            turns.popitem(last=False)
    chosen = _choose(turns, most, tokens)
    messages = _chain(chosen, job.prompt.messages)
    there = [await _with_files_that_are_there(one, ctx.files) for one in messages]
    # What an attempt that failed has told the provider, nobody knows.
    thread = _thread(turns, job.slot) if ctx.attempt == 1 else None
    return Recalled(there, thread)


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
    turns: OrderedDict[str, _Turn], envelope: Envelope[msgspec.Raw], own_batch: str, ctx: Work
) -> None:
    if said := _read(envelope, MessageSaid, ctx):
        if said.batch != own_batch:
            turns.setdefault(said.batch, _Turn()).said = said.message
    elif answer := _read(envelope, MessageAnswered, ctx):
        turn = turns.get(answer.batch)
        if turn is not None and answer.remembered and answer.outcome == "answered":
            turn.first = turn.first or answer
            if envelope.source.partition("/")[0] == ctx.address.actor:
                turn.own.setdefault(answer.slot, answer)


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


def _choose(
    turns: OrderedDict[str, _Turn], most: int, tokens: int
) -> list[tuple[Utterance, MessageAnswered]]:
    """The last turns that were answered, as many as are wanted and as fit."""
    chosen: list[tuple[Utterance, MessageAnswered]] = []
    for turn in reversed(turns.values()):
        answer = turn.answer
        if turn.said is None or answer is None:
            continue
        tokens -= estimate(turn.said) + estimate(_as_said(answer))
        if tokens < 0 or len(chosen) == most:
            break
        chosen.append((turn.said, answer))
    return chosen[::-1]


def _thread(turns: OrderedDict[str, _Turn], slot: int) -> MessageAnswered | None:
    """The actor's own answer to the very last turn, if its provider keeps the conversation."""
    answer = next(reversed(turns.values()), _Turn()).own.get(slot)
    return answer if answer is not None and answer.thread else None


def _chain(
    turns: list[tuple[Utterance, MessageAnswered]], then: tuple[Utterance, ...]
) -> list[Utterance]:
    """Turns as messages. Tool calls are left out unless what follows answers them, as providers
    demand; so is what answers a call that is not there."""
    messages: list[Utterance] = []
    following = [said for said, _ in turns[1:]] + list(then[:1])
    for n, (said, answer) in enumerate(turns):
        if said.role == "tool" and not (messages and messages[-1].calls):
            continue
        answered = n < len(following) and following[n].role == "tool"
        message = _as_said(answer, calls=answered)
        if message.content or message.calls:
            messages += [said, message]
    return messages


def _as_said(answer: MessageAnswered, *, calls: bool = True) -> Utterance:
    return Utterance(
        role="assistant",
        content=(Text(answer.text),) if answer.text else (),
        calls=answer.calls if calls else (),
        reasoning=answer.reasoning if calls and answer.calls else "",
    )


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
