"""Makes of a job what a model is given: its messages, its settings, the bytes of its files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from actors.models.events import Thread
from actors.models.faults import UpstreamFault
from actors.models.turns import as_one
from runtime.errors import FileFault
from runtime.objects import FileStore
from schemas.model import FileRef, Prompt, Text, Utterance

MOST_PROMPT = 16 * 1024 * 1024
MOST_FILE = 32 * 1024 * 1024
"""Bytes of a file that is given to a model, which is in memory as a whole while it is asked."""
MOST_CANDIDATE = 16 * 1024
LENGTHS = ("max_tokens", "max_completion_tokens")
JUDGE = (
    "Here are {count} answers to what is asked above, each after its number in brackets."
    " Reply with the number of the best one, and nothing else."
)


async def load_prompt(prompt: Prompt, files: FileStore) -> Prompt:
    """The prompt itself, if it was too long for a message and is a file."""
    if prompt.body is None:
        return prompt
    data = await load_file(prompt.body, files, most=MOST_PROMPT)
    try:
        body = msgspec.json.decode(data, type=Prompt)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UpstreamFault("bad_request", f"the prompt's file cannot be read: {error}") from None
    return Prompt(
        messages=(*body.messages, *prompt.messages),
        settings={**body.settings, **prompt.settings},
    )


async def load_file(file: FileRef, files: FileStore, *, most: int = MOST_FILE) -> bytes:
    """A file's bytes; raises UpstreamFault if it is gone or too large."""
    name = file.name or file.id
    found = await files.find(file.id)
    if found is None:
        raise UpstreamFault("bad_request", f"the file {name!r} is no longer kept", status=404)
    if found.size > most:
        reason = f"the file {name!r} has {found.size} bytes, at most {most}"
        raise UpstreamFault("too_long", reason, status=413)
    data = bytearray()
    try:
        async for chunk in files.read(file.id):
            data += chunk
    except FileFault as error:
        raise UpstreamFault("bad_request", f"the file {name!r}: {error}", status=404) from None
    return bytes(data)


def put_first(system: str, messages: Sequence[Utterance]) -> list[Utterance]:
    """Messages with the deployment's own words first: one system message, as some demand."""
    if not system:
        return list(messages)
    own = Text(system)
    if messages and messages[0].role in ("system", "developer"):
        first = messages[0]
        content = (own, Text("\n\n"), *first.content)
        return [msgspec.structs.replace(first, content=content), *messages[1:]]
    return [Utterance(role="system", content=(own,)), *messages]


def go_on(thread: Thread | None, messages: Sequence[Utterance]) -> Thread | None:
    """Where the provider keeps what was said before these messages, if it does: they are news."""
    if thread is None or thread.news is None:
        return thread
    return replace(thread, news=thread.news + len(messages) - _count_rules(messages))


def _count_rules(messages: Sequence[Utterance]) -> int:
    """How many system messages come first."""
    roles = [message.role in ("system", "developer") for message in messages]
    return roles.index(False) if False in roles else len(roles)


def put_before(said: Sequence[Utterance], messages: Sequence[Utterance]) -> list[Utterance]:
    """What was said before, between the system messages and the rest."""
    rules = _count_rules(messages)
    return [*messages[:rules], *said, *messages[rules:]]


def put_together(said: Sequence[Utterance], messages: Sequence[Utterance]) -> list[Utterance]:
    """What was interrupted, and the messages that did so: as one where it can be one."""
    if not said:
        return list(messages)
    rules = _count_rules(messages)
    first, rest = list(messages[rules : rules + 1]), messages[rules + 1 :]
    if first and first[0].role == said[-1].role == "user":
        return [*messages[:rules], as_one([*said, *first]), *rest]
    return [*messages[:rules], *said, *first, *rest]


def put_to_judge(candidates: Sequence[str]) -> Utterance:
    """The message that asks which of some answers is the best."""
    shown = [f"[{n}]\n{text[:MOST_CANDIDATE]}" for n, text in enumerate(candidates, 1)]
    text = "\n\n".join([JUDGE.format(count=len(candidates)), *shown])
    return Utterance(role="user", content=(Text(text),))


def read_choice(text: str, count: int) -> int | None:
    """The number that a judge named: the last in its answer that is one of theirs."""
    named = [int(digits) for digits in re.findall(r"\d{1,3}", text, re.ASCII)]
    return next((number for number in reversed(named) if 1 <= number <= count), None)


def settle(
    defaults: Mapping[str, Any], given: Mapping[str, Any], limits: Mapping[str, float]
) -> dict[str, Any]:
    """Settings as they are sent: what was asked for, else the defaults, none beyond a limit.

    A limit of `max_tokens` holds by either of its names, and for who asked for no number too.
    """
    settings = {**defaults, **given}
    for name, most in limits.items():
        names = LENGTHS if name in LENGTHS else (name,)
        for each in names:
            value = settings.get(each)
            if isinstance(value, int | float) and not isinstance(value, bool) and value > most:
                settings[each] = type(value)(most)
        if name in LENGTHS and not any(settings.get(each) for each in LENGTHS):
            settings["max_tokens"] = int(most)
    return settings
