"""Whether the disk below a store takes what is written: by writing, and by what is free.

A full disk does not answer: nats-server acknowledges nothing on it, and goes on refusing when
there is room again until it is restarted.
"""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from schemas.node import StoreTrouble

PROBE = "disk.probe"
PROBE_BYTES = 64 * 1024
LEAST_FREE = 32 * 1024 * 1024
LEAST_SHARE = 50
"""Of a small disk, one part in so many has to be free."""

FINE = StoreTrouble()


def look_at_disk(folder: Path, *, before: StoreTrouble = FINE) -> StoreTrouble:
    """Write a small file in `folder`, sync it, take it away; returns what went wrong, if anything.

    Below what has to be free the disk counts as full before it is: then nothing is lost in
    the server. After trouble, twice as much has to be free.
    """
    try:
        _write(folder / PROBE)
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return _trouble(folder, error)
    least = min(LEAST_FREE, usage.total // LEAST_SHARE) * (2 if before.kind else 1)
    if usage.free < least:
        free, wanted = usage.free // 1024, least // 1024
        return StoreTrouble(
            "full", f"the disk below {folder} has {free} KiB free, {wanted} are needed"
        )
    return FINE


def _write(path: Path) -> None:
    try:
        with path.open("wb") as file:
            file.write(os.urandom(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _trouble(folder: Path, error: OSError) -> StoreTrouble:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreTrouble("full", f"the disk below {folder} is full")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreTrouble("read_only", f"{folder} cannot be written: {error.strerror}")
    return StoreTrouble("failing", f"the disk below {folder} fails: {error.strerror}")
