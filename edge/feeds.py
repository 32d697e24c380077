"""A topic as a feed of server-sent events: what was said, what is said, and where a hole is."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
"""Tells how things stand: as of now about, or exactly `AsOf` a place in the log."""
JOINED = "this is how things stand where you come in"


@dataclass(frozen=True)
class AsOf:
    """How things stand at a cursor: what comes after it is not in the data, all before it is."""

    cursor: int
    data: Any


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
        found, cursor = await self._look(), self._hole.cursor
        if isinstance(found, AsOf):
            self._following.skip(found.cursor)
            found, cursor = found.data, found.cursor
        hole, self._hole = self._hole, None
        return block("reset", {"reason": hole.reason, "snapshot": found}, cursor=cursor)

    def close(self) -> None:
        """Follow no more."""
        self._following.close()

    async def _look(self) -> Any:
        while True:
            try:
                return await self._snapshot()
            except BusFault as fault:
                log.debug("snapshot_not_made", error=str(fault))
                await asyncio.sleep(AGAIN_AFTER)

    def _with_more(self, first: bytes) -> bytes:
        blocks, size = [first], len(first)
        while size < AT_ONCE and (event := self._following.ready()) is not None:
            blocks.append(event.block)
            size += len(event.block)
        return b"".join(blocks)


async def open_feed(hub: Hub, topic: Topic, after: int | None, snapshot: Snapshot) -> TopicFeed:
    """Follow a topic past a cursor, from now on if there is none. Raises BusFault."""
    return TopicFeed(await hub.follow(topic, after), snapshot)


async def join_feed(hub: Hub, topic: Topic, after: int | None, snapshot: Snapshot) -> TopicFeed:
    """The same, but who brings no cursor is first told how things stand, by a `reset`."""
    following = await hub.follow(topic, after)
    if after is None:
        following.restart(Reset(following.cursor, JOINED))
    return TopicFeed(following, snapshot)
