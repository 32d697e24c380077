"""What one commit costs by its size, and so why commits are grouped: `python -m bench.batches`."""

import statistics
import tempfile
import time
from pathlib import Path

from bench.contestants import SYNCS
from bench.ours import open_bus
from bench.role import run
from runtime.bus import Bus, Outgoing
from runtime.log import configure
from runtime.store.server import EmbeddedServer

SIZES = (1, 2, 3, 10, 30, 100, 300, 1000)
TIMES = 30
BYTES = 300


async def time_commit(bus: Bus, size: int) -> float:
    """The median seconds of a commit of `size` messages, one commit at a time."""
    messages = [Outgoing(f"event.batch.k{n}", b"x" * BYTES, {}) for n in range(size)]
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        await bus.commit(messages)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def time_commits(sync: str) -> list[float]:
    """As `time_commit`, for every size, on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = EmbeddedServer(Path(folder), sync=sync)
        await server.start()
        bus = await open_bus(server.url)
        try:
            return [await time_commit(bus, size) for size in SIZES]
        finally:
            await bus.link.close()
            await server.stop()


async def main() -> None:
    """Print a table: a row for each sync setting, milliseconds for each size."""
    configure(level="warning")
    print("| sync | " + " | ".join(f"{size}" for size in SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for sync in SYNCS:
        taken = await time_commits(sync)
        print(f"| {sync} | " + " | ".join(f"{1000 * one:.2f}" for one in taken) + " |", flush=True)


if __name__ == "__main__":
    run(main())
