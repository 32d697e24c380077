"""Goes on with what is left of a store, once an operator has accepted that the rest is lost.

Sequences are never used twice: a stream that lost its end is filled up beyond what was ever
acknowledged, so that no consumer, record or cursor takes a new message for one it has seen.
"""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from runtime.audit import record_action
from runtime.bus import GROUP_MESSAGES, Bus, Outgoing, expiry
from runtime.errors import DataMissing, Denied
from runtime.store.blind import reached
from runtime.store.inspection import Found, inspect
from runtime.store.marks import WATCHED, Kept, Mark, MarkFile, replace_mark
from runtime.streams import (
    create_stream,
    described,
    ensure_streams,
    find_stream,
    incarnation,
    new_incarnation,
)
from runtime.turn import DAY

log = structlog.get_logger()

NO_CURE = (
    "That cannot be mended by giving it up: restore the store from a backup; docs/durability.md"
    " says what else there is"
)
UNNOTED = 100_000
"""How many messages may have been acknowledged since the last mark was noted."""
FILLER = "run.filler"
FILLER_LIVES = DAY / 24


async def accept_loss(
    bus: Bus, file: MarkFile | None, *, replicas: int, store: Path | None = None
) -> int:
    """Make a store that lacks messages usable again; returns how many damages were accepted.

    `store` is the folder of an embedded server: what a stream that is gone has left there is
    copied aside first. Raises DataMissing for what cannot be mended, BusFault.
    """
    kept = file.read() if file else Kept()
    found = await inspect(bus, kept, thorough=True)
    damages = [*found.damages, *kept.complaints]
    for damage in damages:
        log.warning("data_loss_accepted", damage=damage)
    if not damages:
        return 0
    for wanted in described(replicas):
        if wanted["name"] not in found.streams:
            await _create(bus, wanted, found.marks.get(wanted["name"]), store)
    await ensure_streams(bus, replicas=replicas)
    await _fill(bus, found)
    await _note(bus, file, found.unreadable)
    for damage in damages:
        await record_action(bus, "accept-data-loss", bus.stream, damage)
    left = await inspect(bus, file.read() if file else None)
    if left.damages:
        raise DataMissing(f"{'; '.join(left.damages)}. {NO_CURE}")
    return len(damages)


async def _create(bus: Bus, wanted: dict[str, Any], mark: Mark | None, store: Path | None) -> None:
    """Create a stream again; where its messages are still found, it is the one it was."""
    name = str(wanted["name"])
    left = next(iter(store.glob(f"jetstream/**/streams/{name}")), None) if store else None
    aside = _copy_aside(left, store) if left and store else None
    created = mark.created if mark else new_incarnation()
    try:
        info = await create_stream(bus, wanted, created)
    except Denied:
        if left is None:
            raise
        # It cannot be read, and there is the copy.
        shutil.rmtree(left, ignore_errors=True)
        info = await create_stream(bus, wanted, created)
    held = int(info["state"]["messages"])
    if held:
        log.info("stream_taken_over", stream=name, messages=held)
        if aside:
            shutil.rmtree(aside.parent)
        return
    if aside:
        log.warning("store_copied_aside", stream=name, to=str(aside))
    if mark:
        # It must not pass for the one it was, nor give its sequences to other messages. Not at
        # once: a server that still finds messages would drop those before `first_seq`.
        await bus.api(f"STREAM.DELETE.{name}")
        later = {**wanted, "first_seq": mark.last_seq + UNNOTED + 1}
        await create_stream(bus, later, new_incarnation())


def _copy_aside(left: Path, store: Path) -> Path:
    """Keep what a stream has left in a server's store, at no cost: by links where that goes."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = store.parent / f"{store.name}.lost-{stamp}" / left.name
    shutil.copytree(left, aside, copy_function=_link)
    return aside


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


async def _fill(bus: Bus, found: Found) -> None:
    """Store messages that mean nothing until no sequence can come a second time."""
    info = await find_stream(bus, bus.stream)
    assert info is not None, "it was created or found"
    last, mark = int(info["state"]["last_seq"]), found.marks.get(bus.stream)
    same = mark is not None and mark.created == incarnation(info)
    passed = [mark.last_seq] if mark and same else []
    passed += [reached(one) for one in found.consumers or []]
    if last >= max(passed, default=0):
        return
    until = max(passed) + UNNOTED
    log.warning("stream_filled", stream=bus.stream, first=last + 1, last=until)
    filler = Outgoing(FILLER, b"", expiry(FILLER_LIVES))
    while last < until:
        count = min(GROUP_MESSAGES, until - last)
        last = await bus.commit([filler] * count) + count - 1


async def _note(bus: Bus, file: MarkFile | None, given_up: list[int]) -> None:
    """Begin the marks anew from what is there now."""
    marks: dict[str, Mark] = {}
    for name in WATCHED:
        if info := await find_stream(bus, name):
            last = int(info["state"]["last_seq"])
            marks[name] = Mark(created=incarnation(info), last_seq=last, at=datetime.now(UTC))
            await replace_mark(bus, name, marks[name])
    if file is not None:
        file.replace(marks, given_up)
