"""What a remote child has worked on, in one JSON file that survives it.

{task id: {status, ts, …}}: executed → processed (its callback got through) | refused.
Beside them, under the id that no task has, who this child is.
"""

import contextlib
import os
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

KEPT = 5000
OURSELVES = ""

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One task. `said` is the status its callback says; with `result` it is kept until then."""

    status: Literal["executed", "processed", "refused", "ourselves"]
    ts: str
    said: str = ""
    result: Any = None
    lease: str = ""


class JournalFault(Exception):
    """The file cannot be used: what is wrong with it, and the way out."""


class Journal:
    """The file, held by one process at a time. Every change is on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        """Raises JournalFault if another process holds it or it cannot be read."""
        self._path = path
        try:
            self._handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise JournalFault(f"{path}: {error.strerror}; name another file") from None
        try:
            self._entries = _hold(path, self._handle)
        except JournalFault:
            self.close()
            raise

    def close(self) -> None:
        """Let another process have it. More than once is harmless."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def identify(self, name: str) -> str:
        """Who we are among the children of this name: made up once, and the same ever after."""
        known = self._entries.get(OURSELVES)
        if known is None or known.said.rpartition("-")[0] != name:
            said = f"{name}-{secrets.token_hex(4)}"
            known = self._entries[OURSELVES] = Entry(status="ourselves", ts=_now(), said=said)
            self._write()
        return known.said

    def find(self, task_id: str) -> Entry | None:
        """What is known of a task."""
        return self._entries.get(task_id)

    def unsettled(self) -> list[str]:
        """The tasks whose result has not reached the relay yet, oldest first."""
        return [key for key, entry in self._entries.items() if entry.status == "executed"]

    def execute(self, task_id: str, said: str, result: Any, lease: str) -> Entry:
        """Keep what came of a task, until its callback got through."""
        entry = Entry(status="executed", ts=_now(), said=said, result=result, lease=lease)
        self._entries.pop(task_id, None)
        self._entries[task_id] = entry
        self._write()
        return entry

    def settle(self, task_id: str, status: Literal["processed", "refused"]) -> None:
        """The relay has the result, or will never take it."""
        self._entries[task_id] = Entry(status=status, ts=_now())
        settled = [
            key for key, entry in self._entries.items() if entry.status in ("processed", "refused")
        ]
        for key in settled[: max(0, len(settled) - KEPT)]:
            del self._entries[key]
        self._write()

    def _write(self) -> None:
        """Replace the file as a whole: a crash leaves the old one or the new one."""
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self._entries), indent=1))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        with contextlib.suppress(OSError):  # not every system can open a folder
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _hold(path: Path, handle: int) -> dict[str, Entry]:
    try:
        _lock(handle)
    except OSError:
        fault = f"{path} is in use by another child; give each a file of its own"
        raise JournalFault(fault) from None
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Entry])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        fault = f"{path} cannot be read: {error}; move it away to start afresh"
        raise JournalFault(fault) from None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
