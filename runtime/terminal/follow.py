"""Reading topics at a terminal: the tail of what happens, and an archive of daily files."""

import asyncio
import contextlib
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec

from runtime.bus import Bus, Stored
from runtime.errors import BusFault, ConfigError, Denied
from runtime.terminal.shown import harmless
from schemas import subjects
from schemas.base import Topic, token
from schemas.envelope import decode_any

POLL = 2.0
LOOK_AGAIN = 0.1
MOST_SHOWN = 200
UNREADABLE = "unreadable"
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_LINE_ENDS = str.maketrans("\r\n", "  ")


async def print_events(
    bus: Bus, topic: Topic | None, *, after: int | None, jsonl: bool, once: bool
) -> None:
    """Print events, from `after` (or from now) on, until cancelled, or `once` through the log."""
    subject = subjects.event(topic) if topic else "event.>"
    stirred = asyncio.Event()
    handle = bus.subscribe(f"live.{subject}", lambda _: stirred.set())
    cursor = await _begin(bus, after, once=once)
    try:
        while True:
            stirred.clear()
            for stored in await _read_on(bus, subject, cursor, once=once):
                cursor = stored.seq
                print(_line(stored, jsonl=jsonl), flush=True)
                stirred.set()  # a whole page may have been read: look again
            if once and not stirred.is_set():
                return
            # What is said live is only a hint, and hints may be lost.
            await _wait(stirred)
    finally:
        bus.unsubscribe(handle)


async def _read_on(bus: Bus, subject: str, cursor: int, *, once: bool) -> list[Stored]:
    """The next events; one who follows waits for a server that is away, as it may come back."""
    told = False
    while True:
        try:
            return await bus.read(subject, after=cursor)
        except Denied:
            raise
        except BusFault as fault:
            if once:
                raise
            if not told:
                print(f"callboard: waiting for the server: {fault}", file=sys.stderr)
            told = True
        await asyncio.sleep(LOOK_AGAIN)
        await bus.link.connected.wait()


async def _begin(bus: Bus, after: int | None, *, once: bool) -> int:
    if after is None:
        return 0 if once else await _end_of(bus)
    if after > (end := await _end_of(bus)):
        print(f"callboard: there is no {after} yet; the log ends at {end}", file=sys.stderr)
    return min(after, end)


async def _wait(stirred: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(POLL):
            await stirred.wait()


async def _end_of(bus: Bus) -> int:
    info = await bus.api(f"STREAM.INFO.{bus.stream}")
    return int(info["state"]["last_seq"])


def _line(stored: Stored, *, jsonl: bool) -> str:
    if jsonl:
        return _json_line(stored)
    try:
        envelope = decode_any(stored.data)
        told = msgspec.json.decode(envelope.data, type=dict[str, Any])
        told.pop("type", None)
        said = msgspec.json.encode(told).decode()
    except _UNREADABLE:
        return f"{stored.seq:>8} {_printable(stored.subject)} {UNREADABLE} {_begin_of(stored.data)}"
    _, kind, _ = stored.subject.split(".", 2)
    when, who = f"{envelope.time:%H:%M:%S.%f}", f"{kind}/{_printable(envelope.subject)}"
    return f"{stored.seq:>8} {when} {who} {_printable(envelope.type)} {harmless(said)}"


def _json_line(stored: Stored) -> str:
    """One line of JSON, whatever is stored: what is no event stands there as a text."""
    try:
        decode_any(stored.data)
        text = stored.data.decode()
    except _UNREADABLE:
        text = stored.data.decode("utf-8", "backslashreplace")
        return f'{{"cursor":{stored.seq},"{UNREADABLE}":{msgspec.json.encode(text).decode()}}}'
    # Line ends are white space there: in the texts of JSON they are escaped.
    return f'{{"cursor":{stored.seq},"event":{text.translate(_LINE_ENDS)}}}'


def _begin_of(data: bytes) -> str:
    return repr(data[:MOST_SHOWN]) + ("…" if len(data) > MOST_SHOWN else "")


def _printable(text: str) -> str:
    """A key may hold anything; a terminal must not obey it."""
    return text if text.isprintable() else repr(text)


async def archive(bus: Bus, topic: Topic, folder: Path) -> int:
    """Append a topic's new events to `<folder>/<kind>-<id>-<day>.jsonl`; returns how many.

    It may be run as often as one likes: each line carries its cursor, and the last line tells
    where to go on. Raises ConfigError for a folder that is not such an archive of this bus.
    """
    try:
        return await _append(bus, topic, folder)
    except OSError as error:
        where = error.filename or folder
        raise ConfigError(
            f"{str(where)!r} cannot be written: {error.strerror}; choose another folder by --to"
        ) from None


async def _append(bus: Bus, topic: Topic, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{token(topic.kind)}-{token(topic.id)}"
    cursor = _where_it_ended(_files_of(name, folder))
    if cursor > (end := await _end_of(bus)):
        raise ConfigError(
            f"the archive of {topic} in {str(folder)!r} ends at {cursor}, but the log ends at"
            f" {end}: it is of another server, or of another time; choose another folder by --to"
        )
    written = 0
    while page := await bus.read(subjects.event(topic), after=cursor):
        for stored in page:
            day = folder / f"{name}-{stored.time:%Y-%m-%d}.jsonl"
            with day.open("a", encoding="utf-8") as file:
                file.write(_json_line(stored) + "\n")
        cursor = page[-1].seq
        written += len(page)
    return written


def _files_of(name: str, folder: Path) -> list[Path]:
    """One topic's files by day; the id of another may begin with the same words."""
    days = re.compile(rf"{re.escape(name)}-[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}\.jsonl")
    return sorted(path for path in folder.iterdir() if days.fullmatch(path.name))


def _where_it_ended(files: list[Path]) -> int:
    """The last cursor of an archive; a line that a crash cut off is taken away."""
    for path in reversed(files):
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole:
            cursor = _cursor_of(path, whole.splitlines()[-1])
        if whole != text:
            path.write_bytes(whole)
        if whole:
            return cursor
    return 0


def _cursor_of(path: Path, line: bytes) -> int:
    try:
        return msgspec.json.decode(line, type=_Line).cursor
    except _UNREADABLE:
        raise ConfigError(
            f"{str(path)!r}: its last line is no event of an archive; mend it, or move the file"
            " away"
        ) from None


class _Line(msgspec.Struct):
    cursor: Annotated[int, msgspec.Meta(ge=1)]
