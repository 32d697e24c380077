"""Where the runtime gets the time from: from its server, so that all hosts have one time.

Reminders, deadlines and lifetimes go by it. Tests have a clock that they can move.
"""

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta

import structlog

from runtime.bus import Bus
from runtime.errors import BusFault
from runtime.packet import read_stamp

log = structlog.get_logger()

LOOK_EVERY = 30.0
LARGE = timedelta(seconds=2)
"""By which a machine's own clock may differ before it is said."""


class Clock:
    """The machine's clock, in UTC."""

    def now(self) -> datetime:
        """This moment."""
        return datetime.now(UTC)


class ServerClock(Clock):
    """The server's time, kept by what no one can set: a machine's own clock may jump."""

    def __init__(self) -> None:
        self._offset = datetime.now(UTC) - _since_start()
        self._told = timedelta()

    def now(self) -> datetime:
        """This moment, by the server."""
        return self._offset + _since_start()

    async def learn(self, bus: Bus) -> None:
        """Ask the server what time it is. Raises BusFault."""
        before = _since_start()
        info = await bus.api(f"STREAM.INFO.{bus.stream}")
        middle = (before + _since_start()) / 2
        self._offset = read_stamp(info["ts"]) - middle
        self._tell(datetime.now(UTC) - self.now())

    async def keep(self, bus: Bus) -> None:
        """Ask again and again."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            with contextlib.suppress(BusFault):
                await self.learn(bus)

    def _tell(self, ahead: timedelta) -> None:
        """Say once that this machine's clock is wrong; it does no harm here, but elsewhere."""
        if abs(ahead - self._told) > LARGE:
            self._told = ahead
            log.warning("clock_differs", from_server_by=round(ahead.total_seconds(), 1))


def _since_start() -> timedelta:
    return timedelta(seconds=time.monotonic())


class ManualClock(Clock):
    """A clock that runs, and jumps when told to."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """This moment, plus what it was moved ahead."""
        return super().now() + self.ahead

    def advance(self, by: timedelta) -> None:
        """Jump ahead, or back."""
        self.ahead += by
