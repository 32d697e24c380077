"""The jobs of a remote child, pulled only as long as somebody waits for one.

From high priority to low, and now and then from low, so that nothing starves.
"""

import asyncio
import contextlib
import time
from collections import deque
from typing import Any, TypeAlias

import structlog

from runtime.bus import Bus
from runtime.errors import BusFault
from runtime.pull import Delivery, SharedPull, ensure_consumer
from schemas import subjects

log = structlog.get_logger("edge")

LONG_PULL = 5.0
LOW_FIRST_EVERY = 8
AGAIN_AFTER = 0.5

Wait: TypeAlias = "asyncio.Future[Delivery | None]"


class Jobs:
    """The jobs of one remote child, handed to those who wait, in the order in which they came."""

    def __init__(self, bus: Bus, child: str) -> None:
        self._bus = bus
        self._child = child
        self._waiting: deque[Wait] = deque()
        self._pulls, self._waits = self._make_pulls(), self._make_pulls()
        self._rounds = 0
        self._ended = False
        self._filling: asyncio.Task[None] | None = None
        bus.link.on_lost.append(self._lose)

    async def next(
        self, wait: float | None, gone: "asyncio.Future[None] | None" = None
    ) -> Delivery | None:
        """Wait for a job; None if none comes within `wait` seconds, or the edge is stopping.

        Whoever gets one must settle it. Nothing is lost if the waiting is cancelled, or `gone`
        ends: the job is given back.
        """
        if self._ended:
            return None
        mine: Wait = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill(), name=f"jobs {self._child}")
        ends: list[asyncio.Future[Any]] = [mine] if gone is None else [mine, gone]
        try:
            await asyncio.wait(ends, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._leave(mine)
            raise
        if gone is not None and gone.done():
            self._leave(mine)
            return None
        if mine.done():
            return mine.result()
        self._leave(mine)
        return None

    def end(self) -> None:
        """Tell everybody who waits that nothing comes any more."""
        self._ended = True
        for each in self._waiting:
            if not each.done():
                each.set_result(None)

    async def close(self) -> None:
        """Take nothing more."""
        self.end()
        self._bus.link.on_lost.remove(self._lose)
        if self._filling:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        for pull in (*self._pulls, *self._waits):
            with contextlib.suppress(BusFault):
                pull.stop()

    def _leave(self, mine: Wait) -> None:
        if mine.done():
            if (delivery := mine.result()) is not None:
                delivery.nak(0)
        else:
            mine.cancel()
            self._waiting.remove(mine)

    def _make_pulls(self) -> list[SharedPull]:
        return [
            SharedPull(self._bus, subjects.work_consumer(self._child, level), self._hand_out)
            for level in range(subjects.PRIORITIES)
        ]

    def _hand_out(self, delivery: Delivery) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(delivery)
                return
        delivery.nak(0)

    def _lose(self) -> None:
        for pull in (*self._pulls, *self._waits):
            pull.lose()

    # -- pulling ---------------------------------------------------------------------------

    async def _fill(self) -> None:
        while self._waiting and not self._ended:
            await self._bus.link.connected.wait()
            if any(pull.gone for pull in (*self._pulls, *self._waits)):
                await self._create_consumers()
            elif not await self._take_what_waits():
                await self._wait_for_one()

    async def _take_what_waits(self) -> int:
        self._rounds += 1
        order = self._pulls if self._rounds % LOW_FIRST_EVERY else self._pulls[::-1]
        got = 0
        for pull in order:
            if not self._waiting:
                break
            got += await pull.request(len(self._waiting))
        return got

    async def _wait_for_one(self) -> None:
        """Wait until something comes at any level; what nobody waits for is given back."""
        began = time.monotonic()
        waits = [pull.request(1, wait=LONG_PULL) for pull in self._waits]
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not any(each.result() for each in done) and time.monotonic() - began < AGAIN_AFTER:
            # Refused, not waited for: asking again at once would only be refused again.
            await asyncio.sleep(AGAIN_AFTER / 10)

    async def _create_consumers(self) -> None:
        """A host creates them when it starts; after a loss nobody else may be there to do it."""
        try:
            for level in range(subjects.PRIORITIES):
                await ensure_consumer(
                    self._bus,
                    subjects.work_consumer(self._child, level),
                    filter_subject=subjects.all_work(self._child, level),
                )
            for pull in (*self._pulls, *self._waits):
                pull.gone = False
        except BusFault as fault:
            log.warning("consumer_not_created", child=self._child, error=str(fault))
            await asyncio.sleep(AGAIN_AFTER)
