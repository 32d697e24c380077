"""One server on one store, by a lock that is held exactly as long as the server lives.

The server inherits the locked file and never closes it, so the kernel lets go of it when the
server is gone, however it went. On Windows there is no such lock; a fixed port must do there.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import structlog

from runtime.errors import ConfigError

if sys.platform != "win32":
    import fcntl

log = structlog.get_logger()

PAUSE = 0.01
STOP_WITHIN = 10.0
ENDING_WITHIN = 0.5
"""A server that has just been told to stop may hold its store a moment longer."""


class Claim:
    """The right to run a server on a store. Pass `files` on to it, and `close` when it has them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def files(self) -> tuple[int, ...]:
        """What the server has to inherit."""
        return () if sys.platform == "win32" else (self._descriptor,)

    def record(self, pid: int) -> None:
        """Note whose the lock is now, for those who find it taken."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, f"{pid} {os.getpid()}\n".encode())

    def close(self) -> None:
        """Leave the lock to the server; without one, give it up."""
        os.close(self._descriptor)


async def claim(store: Path, config: Path) -> Claim:
    """Claim a store for a server that will be run with the file `config`.

    A server of ours whose parent is gone is stopped first: it would be in everybody's way.
    Raises ConfigError, naming the process, if another one is in use.
    """
    path = store / "server.pid"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        if not _take(descriptor, path):
            await _wait_or_stop(descriptor, path, config)
        os.truncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return Claim(descriptor)


def _take(descriptor: int, path: Path) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be locked ({error.strerror}); put nats.data on a local disk"
        ) from None
    return True


async def _wait_or_stop(descriptor: int, path: Path, config: Path) -> None:
    if await _taken_within(ENDING_WITHIN, descriptor, path):
        return
    pid, parent = _read(path)
    if _runs(pid, config) and _is_orphan(pid, parent):
        log.warning("orphaned_nats_server_stopped", pid=pid, store=str(path.parent))
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.kill(pid, number)
            if await _taken_within(STOP_WITHIN, descriptor, path):
                return
    who = f"a nats-server (process {pid})" if pid else "another nats-server"
    raise ConfigError(f"{who} runs on {path.parent} already; stop it, or choose another nats.data")


async def _taken_within(seconds: float, descriptor: int, path: Path) -> bool:
    for _ in range(int(seconds / PAUSE)):
        if _take(descriptor, path):
            return True
        # A lock cannot be waited for without blocking everybody else here.
        await asyncio.sleep(PAUSE)
    return False


def _read(path: Path) -> tuple[int, int]:
    """The server and its parent, as the one who started it noted them; zeros if it could not."""
    with contextlib.suppress(OSError, ValueError):
        pid, parent = path.read_text().split()
        return int(pid), int(parent)
    return 0, 0


def _runs(pid: int, config: Path) -> bool:
    """Whether the process is a server of ours on this store, as far as the system tells."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return pid > 0 and not sys.platform.startswith("linux")
    return os.fsencode(config) in command.split(b"\0")


def _is_orphan(pid: int, parent: int) -> bool:
    """Whether the one who started it is gone; if in doubt, not."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)
        return found is not None and int(found[1]) != parent
    try:
        os.kill(parent, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
