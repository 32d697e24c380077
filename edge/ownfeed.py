"""A feed of a session that was nobody's when it was opened, as long as it is not another's since.

Who may follow a session that nobody has begun yet cannot be told before somebody does.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from edge.auth import Principal
from edge.remembered import may_read
from edge.sse import Source
from runtime.errors import BusFault
from schemas.session import SessionState

log = structlog.get_logger("edge")

AGAIN_AFTER = 1.0

Find = Callable[[str], Awaitable[SessionState | None]]


class Foreign(Exception):
    """The session has become somebody else's."""


class OwnFeed:
    """A `Source` around another one, of which nothing is told once the session is another's.

    `find` reads a session's state; `owner` is whose it was when the feed was opened, if anybody's.
    """

    def __init__(
        self, feed: Source, session: str, principal: Principal, find: Find, owner: str
    ) -> None:
        self.first = feed.first
        self._feed = feed
        self._session = session
        self._principal = principal
        self._find = find
        self._settled = bool(owner)
        self._said = b""

    async def next(self) -> bytes:
        """Return what comes next. Raises Foreign. May be cancelled and begun again."""
        if not self._said:
            self._said = await self._feed.next()
        if self._said and not self._settled:
            self._settled = await self._look()
        said, self._said = self._said, b""
        return said

    def close(self) -> None:
        """Follow no more."""
        self._feed.close()

    async def _look(self) -> bool:
        """Whether it is known by now whose the session is; while that cannot be read, wait."""
        while True:
            try:
                state = await self._find(self._session)
            except BusFault as fault:
                log.debug("session_not_read", error=str(fault))
                await asyncio.sleep(AGAIN_AFTER)
                continue
            if state is not None and not may_read(self._principal, self._session, state):
                raise Foreign
            return bool(state and state.owner)
