"""The questions that people have yet to answer, as the records tell: read once, then what changed.

Each record is in the stream once, where it was written last; so what changed comes after.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from edge.newest import read_newest
from edge.remembered import Remembered, read_key
from edge.shared import Shared
from runtime.bus import Stored
from runtime.errors import Unavailable
from schemas import subjects
from schemas.approval import APPROVAL, ApprovalState
from schemas.base import token

EVERY = subjects.state(APPROVAL, "*")
MOST_OPEN = 20_000
"""Questions that are kept track of at a time; of more, those that were asked last."""
MOST_BYTES = 4 * 1024 * 1024
FOR_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Known:
    """As much of an open question as is needed to choose it."""

    subject: str
    team: str
    due: datetime


class Questions:
    """Finds questions, without reading all of them for each client."""

    def __init__(self, shared: Shared, remembered: Remembered) -> None:
        self._bus = shared.bus
        self._remembered = remembered
        self._open: dict[str, Known] = {}
        """By subject, in the order of their records."""
        self._read_to = 0
        self._reading = asyncio.Lock()

    async def find(self, id: str) -> ApprovalState | None:
        """Return a question, None if nobody has asked it. Raises BusFault."""
        stored = await self._bus.last(subjects.state(APPROVAL, token(id)))
        return await self._read(stored) if stored else None

    async def open(
        self, sees: Callable[[str], bool], limit: int
    ) -> list[tuple[str, ApprovalState]]:
        """Return open questions of teams that one sees, the first to be due first.

        Raises BusFault.
        """
        async with self._reading:
            await self._catch_up()
        chosen = [known for known in self._open.values() if sees(known.team)]
        chosen.sort(key=lambda known: known.due)
        found: list[tuple[str, ApprovalState]] = []
        for start in range(0, len(chosen), limit):
            page = await self._bus.last_of([one.subject for one in chosen[start : start + limit]])
            ordered = [page[one.subject] for one in chosen[start:] if one.subject in page]
            found += [one for one in await self._states(ordered) if one[1].decided is None]
            if len(found) >= limit:
                break
        return found[:limit]

    async def newest(
        self, sees: Callable[[str], bool], limit: int
    ) -> list[tuple[str, ApprovalState]]:
        """Return those that changed last, whatever became of them, the newest first."""
        stored = await read_newest(self._bus, EVERY, 5 * limit, MOST_BYTES)
        found = await self._states(reversed(stored))
        return [one for one in found if one[1].ask and sees(one[1].ask.team)][:limit]

    async def _catch_up(self) -> None:
        """Read what changed since the last time."""
        newest = await self._bus.last(EVERY)
        if newest is None or newest.seq < self._read_to:
            # The log was started anew, and what we know is of another one.
            self._open, self._read_to = {}, 0
        if newest is None or newest.seq == self._read_to:
            return
        async for page in self._bus.pages(EVERY, after=self._read_to):
            for stored in page:
                await self._note(stored)
                self._read_to = stored.seq

    async def _note(self, stored: Stored) -> None:
        self._open.pop(stored.subject, None)
        try:
            state = await self._read(stored)
        except Unavailable:
            return  # whoever keeps it says so, and stands still
        if state is None or state.ask is None or state.decided is not None:
            return
        if len(self._open) >= MOST_OPEN:
            del self._open[next(iter(self._open))]
        due = state.due or FOR_EVER
        self._open[stored.subject] = Known(stored.subject, state.ask.team, due)

    async def _states(self, stored: Iterable[Stored]) -> list[tuple[str, ApprovalState]]:
        found: list[tuple[str, ApprovalState]] = []
        for one in stored:
            try:
                state = await self._read(one)
            except Unavailable:
                continue
            if state is not None:
                found.append((read_key(one), state))
        return found

    async def _read(self, stored: Stored) -> ApprovalState | None:
        state = await self._remembered.decode_state(APPROVAL, stored, ApprovalState)
        return state if state is not None and state.ask is not None else None
