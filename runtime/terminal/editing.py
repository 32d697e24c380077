"""Mending the message of a dead letter: in an editor, from a file, or field by field.

What comes out must be readable for the type it is for, where that type can be loaded here.
"""

import asyncio
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from runtime.actor import Actor
from runtime.dead import Letter
from runtime.errors import ConfigError, NotPossible
from runtime.system import load_class
from schemas.base import token
from schemas.deployment import Deployment
from schemas.envelope import UNREADABLE, decode_any


def pretty(body: bytes) -> str:
    """A message as a person reads it: indented where it is JSON."""
    try:
        return msgspec.json.format(body, indent=2).decode()
    except UNREADABLE:
        return body.decode("utf-8", "backslashreplace")


async def edit_in_editor(letter: Letter) -> bytes:
    """Let the operator change the message in `$VISUAL` or `$EDITOR`; raises NotPossible.

    What was written stays in a file if it cannot be sent, so that no work is lost.
    """
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "")
    if not words:
        raise NotPossible("EDITOR is not set; set it, or use --file FILE or --set PATH=VALUE")
    before = pretty(letter.body)
    with tempfile.NamedTemporaryFile(
        "w", suffix=".json", prefix=f"letter-{letter.seq}-", delete=False, encoding="utf-8"
    ) as file:
        file.write(before + "\n")
    path = Path(file.name)
    try:
        status = await (await asyncio.create_subprocess_exec(*words, file.name)).wait()
    except OSError as error:
        path.unlink()
        raise NotPossible(f"EDITOR {words[0]!r} cannot be started: {error.strerror}") from None
    after = path.read_bytes()
    if status or after.decode("utf-8", "replace").strip() == before.strip():
        path.unlink()
        what = f"the editor ended with {status}" if status else "nothing was changed"
        raise NotPossible(f"letter {letter.seq}: {what}, so nothing was sent")
    try:
        check(after, letter)
    except NotPossible as fault:
        raise NotPossible(f"{fault}; what you wrote is in {file.name}, for --file") from None
    path.unlink()
    return after


def set_fields(letter: Letter, settings: Sequence[str]) -> bytes:
    """The message with `path=value` set, as `data.order.to=child`; raises NotPossible.

    A value is JSON where it reads as JSON, else a text.
    """
    try:
        message: Any = msgspec.json.decode(letter.body)
    except UNREADABLE:
        raise NotPossible(
            f"letter {letter.seq} holds no JSON, so it has no fields to set; use --file"
        ) from None
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not (equals and path):
            raise NotPossible(f"--set {setting!r}: expected PATH=VALUE, as data.name=Ada")
        try:
            value = msgspec.json.decode(text)
        except UNREADABLE:
            value = text
        _set(message, path, value)
    return msgspec.json.encode(message)


def _set(message: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place = message
    try:
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        place[int(last) if isinstance(place, list) else last] = value
    except (KeyError, IndexError, ValueError, TypeError):
        raise NotPossible(f"--set {path}: there is no such place in the message") from None


def check(body: bytes, letter: Letter) -> None:
    """Raise NotPossible unless a body is an envelope for the letter's own address."""
    try:
        envelope = decode_any(body)
    except UNREADABLE as error:
        raise NotPossible(
            f"letter {letter.seq}: the edited message is no envelope: {error}"
        ) from None
    if token(envelope.subject) != letter.token:
        raise NotPossible(
            f"letter {letter.seq}: the edited message is for {envelope.subject!r}, expected"
            f" {letter.key!r}: a replay goes to the address the letter came from"
        )


def check_for_type(body: bytes, letter: Letter, deployment: Deployment) -> str:
    """Raise NotPossible unless the deployed type can read a body.

    Returns why that could not be found out, or nothing.
    """
    try:
        cls = load_class(deployment.name, deployment.type)
    except ConfigError as error:
        return str(error)
    decode = cls.decode_mail if issubclass(cls, Actor) else cls.decode_job
    try:
        decode(body)
    except UNREADABLE as error:
        raise NotPossible(
            f"letter {letter.seq}: {deployment.type} cannot read the edited message: {error}"
        ) from None
    return ""
