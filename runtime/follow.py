"""Reading topics at a terminal: the tail of what happens, and an archive of daily files."""

import asyncio
import contextlib
from pathlib import Path

import msgspec

from runtime.bus import Bus, Stored
from schemas import subjects
from schemas.base import Topic
from schemas.envelope import decode_any

POLL = 2.0


async def print_events(
    bus: Bus, topic: Topic | None, *, after: int | None, jsonl: bool, once: bool
) -> None:
    """Print events, from `after` (or from now) on, until cancelled, or `once` through the log."""
    subject = subjects.event(topic) if topic else "event.>"
    stirred = asyncio.Event()
    handle = bus.subscribe(f"live.{subject}", lambda _: stirred.set())
    cursor = after if after is not None else (0 if once else await _end_of(bus))
    try:
        while True:
            stirred.clear()
            for stored in await bus.read(subject, after=cursor):
                cursor = stored.seq
                print(_line(stored, jsonl=jsonl), flush=True)
                stirred.set()  # a whole page may have been read: look again
            if once and not stirred.is_set():
                return
            # What is said live is only a hint, and hints may be lost.
            await _wait(stirred)
    finally:
        bus.unsubscribe(handle)


async def _wait(stirred: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(POLL):
            await stirred.wait()


async def _end_of(bus: Bus) -> int:
    info = await bus.api(f"STREAM.INFO.{bus.stream}")
    return int(info["state"]["last_seq"])


def _line(stored: Stored, *, jsonl: bool) -> str:
    try:
        envelope = decode_any(stored.data)
    except msgspec.MsgspecError:
        return f"{stored.seq} {stored.subject} {stored.data!r}"
    if jsonl:
        return _json_line(stored)
    _, kind, _ = stored.subject.split(".", 2)
    told = msgspec.json.decode(envelope.data)
    told.pop("type", None)
    return (
        f"{stored.seq:>8} {envelope.time:%H:%M:%S.%f} {kind}/{_printable(envelope.subject)}"
        f" {envelope.type} {msgspec.json.encode(told).decode()}"
    )


def _json_line(stored: Stored) -> str:
    return f'{{"cursor":{stored.seq},"event":{stored.data.decode()}}}'


def _printable(text: str) -> str:
    """A key may hold anything; a terminal must not obey it."""
    return text if text.isprintable() else repr(text)


async def archive(bus: Bus, topic: Topic, folder: Path) -> int:
    """Append a topic's new events to `<folder>/<kind>-<day>.jsonl`; returns how many.

    It may be run as often as one likes: each line carries its cursor, and the last line tells
    where to go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cursor = _where_it_ended(sorted(folder.glob(f"{topic.kind}-*.jsonl")))
    written = 0
    while page := await bus.read(subjects.event(topic), after=cursor):
        for stored in page:
            day = folder / f"{topic.kind}-{stored.time:%Y-%m-%d}.jsonl"
            with day.open("a", encoding="utf-8") as file:
                file.write(_json_line(stored) + "\n")
        cursor = page[-1].seq
        written += len(page)
    return written


def _where_it_ended(files: list[Path]) -> int:
    """The last cursor of an archive; a line that a crash cut off is taken away."""
    for path in reversed(files):
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            path.write_bytes(whole)
        if whole:
            return int(msgspec.json.decode(whole.splitlines()[-1])["cursor"])
    return 0
