"""A topic as a feed of server-sent events: what was said, what is said, and where a hole is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import structlog

from edge.following import Following, Hub, Reset
from edge.sse import block
from runtime.errors import BusFault
from schemas.base import Topic

log = structlog.get_logger("edge")

AGAIN_AFTER = 0.5
AT_ONCE = 64 * 1024
"""Bytes that are written together, if they wait already."""

Snapshot: TypeAlias = Callable[[], Awaitable[Any]]


class TopicFeed:
    """The events of a topic. After a hole comes a `reset` with a snapshot of how things stand."""

    def __init__(self, following: Following, snapshot: Snapshot) -> None:
        self._following = following
        self._snapshot = snapshot
        self._hole: Reset | None = None
        self.first = b""
        # The cursor is told although nothing has happened: a client that loses its connection
        # before the first event would else begin anew, and miss what happened meanwhile.
        if following.cursor and not following.has_hole:
            self.first = b"id: %d\n\n" % following.cursor

    async def next(self) -> bytes:
        """Return what comes next, together with what is there already."""
        if self._hole is None:
            item = await anext(self._following)
            if not isinstance(item, Reset):
                return self._with_more(item.block)
            self._hole = item
        while True:
            try:
                data = {"reason": self._hole.reason, "snapshot": await self._snapshot()}
                break
            except BusFault as fault:
                log.debug("snapshot_not_made", error=str(fault))
                await asyncio.sleep(AGAIN_AFTER)
        hole, self._hole = self._hole, None
        return block("reset", data, cursor=hole.cursor)

    def close(self) -> None:
        """Follow no more."""
        self._following.close()

    def _with_more(self, first: bytes) -> bytes:
        blocks, size = [first], len(first)
        while size < AT_ONCE and (event := self._following.ready()) is not None:
            blocks.append(event.block)
            size += len(event.block)
        return b"".join(blocks)


async def open_feed(hub: Hub, topic: Topic, after: int | None, snapshot: Snapshot) -> TopicFeed:
    """Follow a topic past a cursor, from now on if there is none. Raises BusFault."""
    return TopicFeed(await hub.follow(topic, after), snapshot)
