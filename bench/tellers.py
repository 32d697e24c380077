"""Runs that speak at a steady rate: each piece is the moment at which it was said.

Shared by the benchmark and by the host that it starts.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta

from bench.role import send_many
from runtime import Work, Worker, handler
from runtime.bus import Bus, Outgoing, expect, expiry, new_id
from runtime.committer import Committer
from schemas import subjects
from schemas.base import Job, Message, Topic
from schemas.envelope import encode, seal
from schemas.record import Delta, RunRecord

STAMP = re.compile(rb"(\d{9,}) ")
KEEP = timedelta(hours=1)


class Told(Message, tag="teller.told"):
    """All was said."""


class Tell(Job[Told], tag="teller.tell"):
    """Say so many pieces, one `every` so many seconds, the first `after` so many."""

    pieces: int
    every: float
    after: float = 0.0


class Teller(Worker):
    """Says what time it is."""

    @handler
    async def tell(self, job: Tell, ctx: Work) -> AsyncIterator[Delta | Told]:
        due = asyncio.get_running_loop().time() + job.after
        for _ in range(job.pieces):
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            yield Delta(text=f"{time.monotonic_ns()} ")
            due += job.every
        yield Told()


async def start_runs(bus: Bus, topics: list[Topic], rate: float, pieces: int) -> None:
    """Start a run for each topic, spread over the time that one piece takes."""
    committer = Committer(bus)
    running = asyncio.create_task(committer.run())

    async def start(number: int) -> "asyncio.Future[int]":
        run, key = new_id(), f"k{number:04}"
        job = Tell(pieces=pieces, every=1 / rate, after=number / len(topics) / rate)
        facts = {"id": new_id(), "source": "bench/b", "subject": key, "runid": run}
        sealed = encode(seal(job, topic=str(topics[number]), **facts))
        record = encode(RunRecord(job=f"teller/{key}"))
        opened = Outgoing(subjects.run(run), record, {**expect(0), **expiry(KEEP)})
        return committer.submit(
            [opened, Outgoing(subjects.work("teller", 1, key), sealed, expiry(KEEP))],
            opened.subject,
        )

    try:
        await send_many(len(topics), start)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
