"""High-water marks: how far each stream had got, kept where the loss of the stream leaves them.

One copy is in the bucket `nodes`, which is another stream; one is in a file, which is in
neither, so that a store that was put back to an older copy is noticed.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from runtime.bus import Bus, Stored, expect
from runtime.errors import ConfigError, Conflict
from schemas import subjects

if sys.platform != "win32":
    import fcntl

log = structlog.get_logger()

WATCHED = (subjects.BUS, "KV_config", "KV_identities", "OBJ_files")
"""Streams that may lose nothing; what is in the others comes again by itself."""

BUCKET = "nodes"
KEY = "mark."


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stream, created at `created`, had got to `last_seq` at the time `at`.

    `until` is how long its last message lives: None if it was gone then, or is not known.
    """

    created: str
    last_seq: int
    at: datetime
    until: datetime | None = None

    def stays(self, now: datetime) -> bool:
        """Whether the last message has to be there still."""
        return self.until is not None and now < self.until - CLOCKS_DIFFER


_SECONDS = re.compile(r"[0-9]{1,9}s")
CLOCKS_DIFFER = timedelta(minutes=1)
FOR_EVER = datetime.max.replace(tzinfo=UTC)

Marks = Mapping[str, Mark]
"""By stream."""


class Kept(msgspec.Struct, omit_defaults=True):
    """What the file holds: marks, and what the server said of its store that cannot pass.

    `given_up` are sequences that cannot be read, and about which enough was said.
    """

    marks: dict[str, Mark] = {}
    complaints: list[str] = []
    given_up: list[int] = []


def newest(*several: Marks) -> dict[str, Mark]:
    """The highest mark of each stream; of two incarnations, the one that was seen last."""
    found: dict[str, Mark] = {}
    for marks in several:
        for name, mark in marks.items():
            known = found.get(name)
            found[name] = mark if known is None else _newer(known, mark)
    return found


def _newer(one: Mark, other: Mark) -> Mark:
    if one.created == other.created:
        return max(one, other, key=lambda mark: mark.last_seq)
    return max(one, other, key=lambda mark: mark.at)


class MarkFile:
    """Marks in a file. Several processes of one machine may write the same one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Kept:
        """What is in it; nothing if it is not there. Raises ConfigError if it is no such file."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.path}: cannot be read as high-water marks: {error};"
                " if it is of no use any more, remove it"
            ) from None

    def note(self, marks: Marks) -> None:
        """Raise what is noted; never lowers a mark of the same incarnation. Raises OSError."""
        with self._alone():
            kept = self.read()
            self._write(msgspec.structs.replace(kept, marks=newest(kept.marks, marks)))

    def complain(self, complaints: list[str]) -> None:
        """Remember what the server says once and then never again. Raises OSError."""
        with self._alone():
            kept = self.read()
            known = [*kept.complaints, *(c for c in complaints if c not in kept.complaints)]
            self._write(msgspec.structs.replace(kept, complaints=known))

    def replace(self, marks: Marks, given_up: Iterable[int] = ()) -> None:
        """Begin anew from `marks`: what was noted before was accepted as lost."""
        with self._alone():
            self._write(Kept(marks=dict(marks), given_up=sorted(given_up)))

    def clear(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)

    def _write(self, kept: Kept) -> None:
        """Whole or not at all, and on the disk: a mark that a power cut halves is of no use."""
        new = self.path.with_name(f"{self.path.name}.new")
        with new.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(kept)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        with contextlib.suppress(OSError):  # not every system syncs a folder
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Two that read, raise and write at once would lower each other's marks."""
        with self.path.with_name(f"{self.path.name}.lock").open("w") as lock:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def lives_until(stored: Stored | None) -> datetime | None:
    """When a message goes by itself, for a `Mark`."""
    if stored is None:
        return None
    ttl = stored.headers.get("Nats-TTL", "")
    if not ttl:
        return FOR_EVER
    # Ours are whole seconds; whatever else stands there, nothing is claimed of it.
    return stored.time + timedelta(seconds=int(ttl[:-1])) if _SECONDS.fullmatch(ttl) else None


def beside(data: Path) -> Path:
    """Where the embedded server's marks are: not inside, or an older copy would bring its own."""
    data = data.resolve()
    return data.with_name(f"{data.name}.mark.json")


def file_at(path: str) -> MarkFile | None:
    """The file of marks at a configured path, if there is one."""
    return MarkFile(Path(path)) if path else None


async def read_marks(bus: Bus) -> dict[str, Mark]:
    """The marks of the bucket; raises BusFault."""
    found = await bus.lasts(f"$KV.{BUCKET}.{KEY}>", stream=f"KV_{BUCKET}")
    marks: dict[str, Mark] = {}
    for stored in found:
        if mark := _decode(stored):
            marks[stored.subject.removeprefix(f"$KV.{BUCKET}.{KEY}")] = mark
    return marks


async def note_mark(bus: Bus, name: str, mark: Mark) -> None:
    """Raise a stream's mark in the bucket, unless somebody has noted as much; raises BusFault."""
    subject = f"$KV.{BUCKET}.{KEY}{name}"
    stored = await bus.last(subject, stream=f"KV_{BUCKET}")
    known = _decode(stored)
    if known and known.created == mark.created and known.last_seq >= mark.last_seq:
        return
    revision = stored.seq if stored is not None else 0
    with contextlib.suppress(Conflict):  # somebody else noted at the same moment
        await bus.publish(subject, msgspec.json.encode(mark), headers=expect(revision))


async def replace_mark(bus: Bus, name: str, mark: Mark) -> None:
    """Set a mark in the bucket, whatever is there."""
    await bus.publish(f"$KV.{BUCKET}.{KEY}{name}", msgspec.json.encode(mark))


def _decode(stored: Stored | None) -> Mark | None:
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(stored.data, type=Mark) if stored else None
    return None
