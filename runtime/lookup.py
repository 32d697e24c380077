"""Reads last messages: all that are asked for in one turn of the loop, in one request.

A pool that takes a hundred jobs wants a hundred runs, a shard after a start every record.
"""

import asyncio

from runtime.bus import Bus, Stored
from runtime.errors import Unavailable

MOST_AT_ONCE = 250
LOOKS = 4
LOOK_EVERY = 0.25
"""Looks, and seconds between them, for what a cluster says is not there."""


class Lookup:
    """Gathers questions for the last message of a subject."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._asked: list[tuple[str, asyncio.Future[Stored | None]]] = []
        self._reading: set[asyncio.Task[None]] = set()

    async def last(self, subject: str) -> Stored | None:
        """The last message on a subject; raises what `Bus.last` raises."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._begin)
        future: asyncio.Future[Stored | None] = loop.create_future()
        self._asked.append((subject, future))
        return await future

    async def surely_last(self, subject: str, seq: int) -> Stored | None:
        """What `last` did not find, if it is there; `seq` is known to be in the stream.

        Among replicas a new leader may not know yet what the last one stored. Taken at its word
        a job that has just begun would be lost: only what stays away is gone. Raises
        Unavailable if the leader is behind.
        """
        bus = self._bus
        for _ in range(LOOKS if bus.replicas > 1 else 0):
            await asyncio.sleep(LOOK_EVERY)
            if (stored := await bus.last(subject)) is not None:
                return stored
            info = await bus.api(f"STREAM.INFO.{bus.stream}")
            if int(info["state"]["last_seq"]) < seq:
                raise Unavailable(f"the leader has not got to {seq} yet, which was delivered")
        return None

    def _begin(self) -> None:
        asked, self._asked = self._asked, []
        for start in range(0, len(asked), MOST_AT_ONCE):
            task = asyncio.create_task(self._read(asked[start : start + MOST_AT_ONCE]))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _read(self, asked: list[tuple[str, asyncio.Future[Stored | None]]]) -> None:
        try:
            found = await self._bus.last_of({subject for subject, _ in asked})
        except Exception as fault:  # whatever it is, it belongs to those who wait
            for _, future in asked:
                if not future.done():
                    future.set_exception(fault)
            return
        for subject, future in asked:
            if not future.done():
                future.set_result(found.get(subject))
