"""What processes hold while they live: memory and open files, looked at now and then. Linux only.

Told, and never judged: what is growth and what is a cache that fills takes minutes to tell.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.processes import Process

LOOK_EVERY = 10.0
WARM_AFTER = 0.25
"""The share of a life in which caches fill and pools grow to their size."""
MEGABYTE = 1024 * 1024
FEWEST = 4


@dataclass
class Life:
    """One process: when it was looked at, and its bytes in memory and open files then."""

    times: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self, pid: int) -> None:
        """Look once; a process that is gone is not there to be looked at."""
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            files = len(os.listdir(f"/proc/{pid}/fd"))
            self.times.append(time.monotonic())
            self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE)
            self.files.append(files)

    def describe(self) -> str:
        """From what to what, and how steeply at last."""
        if len(self.times) < FEWEST:
            return "did not live long enough"
        warm = int(len(self.times) * WARM_AFTER)
        times = [at - self.times[0] for at in self.times]
        half = len(times) // 2
        slope = slope_of(times[warm:], self.memory[warm:]) * 60
        late = slope_of(times[half:], self.memory[half:]) * 60
        return (
            f"{self.memory[0]:.1f} MB, after {times[warm]:.0f} s {self.memory[warm]:.1f},"
            f" after {times[-1]:.0f} s {self.memory[-1]:.1f} (most {max(self.memory):.1f}),"
            f" {slope:+.2f} MB/min, in the later half {late:+.2f};"
            f" files {self.files[warm]} to {self.files[-1]}"
        )


def slope_of(times: list[float], values: list[float]) -> float:
    """How much a value grows in a second, by least squares."""
    middle, level = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    pairs = zip(times, values, strict=True)
    return sum((at - middle) * (value - level) for at, value in pairs) / spread if spread else 0.0


class Growth:
    """Looks at processes for as long as it runs."""

    def __init__(self, processes: Callable[[], Iterable[Process]]) -> None:
        self.lives: dict[str, Life] = {}
        self._processes = processes

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            for process in self._processes():
                if process.pid:
                    self.lives.setdefault(process.name, Life()).look(process.pid)
            await asyncio.sleep(LOOK_EVERY)

    def describe(self) -> dict[str, str]:
        """A line for each process that lived long enough."""
        return {
            f"memory of {name}": life.describe()
            for name, life in self.lives.items()
            if len(life.times) >= FEWEST
        }
