"""How far back the log reaches: whether what was said after a cursor can still all be there."""

import asyncio
from datetime import UTC, datetime, timedelta

from runtime.bus import Bus

AHEAD = "the cursor is not one of this log, which may have been started anew"
EXPIRED = "the log no longer reaches back to the cursor"

FARTHEST = 2**40
STALE_TRIES = 40
STALE_WAIT = 0.5
"""A leader that is cut off from the others learns within twenty seconds that it leads no more."""


class Reach:
    """The stream's last sequence, and why a cursor is out of reach; empty if it is not."""

    def __init__(self, last: int, reason: str = "") -> None:
        self.last = last
        self.reason = reason


async def find_reach(bus: Bus, subject: str, cursor: int | None, ttl: timedelta) -> Reach:
    """Find out whether everything on `subject` after `cursor` is still there.

    Events of a topic go `ttl` after they were stored, oldest first. So nothing is missing if
    the event at the cursor is still there, or if anything was stored at or before the cursor
    less than `ttl` ago. A cursor beyond the stream's end is of another stream. None and 0 are
    no places a follower has been, so nothing can be missing behind them.

    Where the time of a cursor cannot be told any more, something may be missing, and that is
    what is said. Raises BusFault if the stream cannot be asked.
    """
    begins, last = await _find_ends(bus, cursor or 0)
    if cursor is None or cursor in (0, last):
        return Reach(last)
    if cursor > last or cursor < begins - 1:
        return Reach(last, AHEAD)
    horizon = datetime.now(UTC) - ttl
    if _time(bus.created) > horizon:
        return Reach(last)
    at = await bus.at(cursor)
    if at is not None and (at.subject == subject or at.time > horizon):
        return Reach(last)
    if at is None and await _stored_before(bus, cursor, horizon):
        return Reach(last)
    return Reach(last, EXPIRED)


async def _find_ends(bus: Bus, cursor: int) -> tuple[int, int]:
    """The sequence the stream began with, more than 1 if it replaced a lost one, and its last.

    In a cluster somebody may answer who does not know yet that it leads no more, or who leads
    since a moment and has not caught up: an end before the cursor is not believed at once.
    """
    for pause in (STALE_WAIT,) * STALE_TRIES if bus.replicas > 1 else ():
        if (ends := await _ends(bus))[1] >= cursor:
            return ends
        await asyncio.sleep(pause)
    return await _ends(bus)


async def _ends(bus: Bus) -> tuple[int, int]:
    info = await bus.api(f"STREAM.INFO.{bus.stream}")
    return int(info["config"].get("first_seq") or 1), int(info["state"]["last_seq"])


async def _stored_before(bus: Bus, cursor: int, horizon: datetime) -> bool:
    """Whether something before `cursor` was stored after `horizon`.

    The stream only reads forward, so the steps back double until one finds something.
    """
    step = 1
    while step < FARTHEST:
        found = await bus.read(">", after=max(0, cursor - step), limit=1)
        if found and found[0].seq < cursor:
            return found[0].time > horizon
        if step >= cursor:
            return False
        step *= 4
    return False


def _time(stamp: str) -> datetime:
    """Read the server's time, which has nanoseconds, as far as Python can."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6] or '0'}+00:00")
