"""One side of a contest in a process of its own: it does what it is told on its standard input.

`python -m bench.role bench.plain:FetchWorker nats://127.0.0.1:4222`; told by bench/arena.py.
"""

import asyncio
import gc
import importlib
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import msgspec

from runtime.log import configure

WINDOW = 2000
"""The most sends of one flood that wait for the server at the same time."""
LOOK_EVERY = 0.002
"""Seconds between two looks whether enough was handled."""
ASK_EVERY = 0.02
"""Seconds between two questions to the server whether it has every ack."""

Send = Callable[[int], Awaitable["asyncio.Future[Any]"]]


class Role:
    """A worker, which settles what is sent, or a driver, which sends it and asks."""

    reported = 0
    """How many messages it had handled when it last said so."""

    async def open(self, url: str) -> None:
        """Connect, and be ready."""
        raise NotImplementedError

    async def settle(self, count: int) -> int:
        """Return when `count` messages more are handled, and all there are acknowledged.

        Returns how many were handled since the last time: some may have been before it is told.
        """
        while True:
            done = self.count_handled() >= self.reported + count
            # Asked only from then on: it costs the server.
            if done and await self.is_settled():
                break
            await asyncio.sleep(ASK_EVERY if done else LOOK_EVERY)
        before, self.reported = self.reported, self.count_handled()
        return self.reported - before

    def count_handled(self) -> int:
        """How many messages were handled so far; raises what it died of."""
        self._refuse()

    async def is_settled(self) -> bool:
        """Whether the server has every acknowledgement."""
        self._refuse()

    async def flood(self, count: int) -> None:
        """Send that many as fast as the server takes them, and see each of them stored."""
        self._refuse()

    async def trip(self, number: int) -> None:
        """Send one, and wait until what is to come of it is heard."""
        self._refuse()

    async def close(self) -> None:
        """Leave nothing behind."""

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} is told to do what it cannot")


class Told(msgspec.Struct):
    """One command: `settle`, `flood` or `trips`, and how many."""

    do: str
    count: int


class Report(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What came of it. Times are of the machine's monotonic clock, in seconds."""

    began: float = 0.0
    ended: float = 0.0
    handled: int = 0
    trips: list[float] = []


async def send_many(count: int, send: Send) -> None:
    """Send `count`, with at most `WINDOW` unacknowledged; raises what any of them raised."""
    waiting: deque[asyncio.Future[Any]] = deque()
    for number in range(count):
        if len(waiting) >= WINDOW:
            await waiting.popleft()
        waiting.append(await send(number))
    for future in waiting:
        await future


async def play(role: Role, url: str) -> None:
    """Open the role, then obey until the standard input ends."""
    await role.open(url)
    # As `callboard host` does, and for every contestant.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1000)
    _say(Report())
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            _say(await _obey(role, msgspec.json.decode(line, type=Told)))
    finally:
        await role.close()


async def _obey(role: Role, told: Told) -> Report:
    began, handled = time.monotonic(), 0
    trips: list[float] = []
    if told.do == "settle":
        handled = await role.settle(told.count)
    elif told.do == "flood":
        await role.flood(told.count)
    else:
        trips = [await _timed(role, number) for number in range(told.count)]
    return Report(began=began, ended=time.monotonic(), handled=handled, trips=trips)


async def _timed(role: Role, number: int) -> float:
    began = time.perf_counter()
    await role.trip(number)
    return time.perf_counter() - began


def _say(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def run(work: Any) -> None:
    """Run on uvloop where there is one: every contestant gets the same loop."""
    try:
        factory = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


def main(path: str, url: str, level: str) -> None:
    """Play the role `module:Class`; `level` is of the log on the standard error."""
    configure(format="json", level=level)
    module, _, name = path.partition(":")
    run(play(getattr(importlib.import_module(module), name)(), url))


if __name__ == "__main__":
    main(*sys.argv[1:])
