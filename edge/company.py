"""A feed with company: what is stored, and beside it who is there and who is typing.

Whatever is stored has an id and is never left out; the rest has none, and is left out for a
client that does not read.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from edge.auth import DESK_READ, Principal
from edge.presence import Presence, Seen
from edge.sse import Source, block
from schemas.base import token
from schemas.presence import Person

Writing: TypeAlias = Callable[[str, dict[str, Any]], bytes]
"""How `typing` and `presence` are written as blocks of server-sent events."""

LONGEST = 200


def named(name: str, said: dict[str, Any]) -> bytes:
    """Write an event by its name: `event: typing`."""
    return block(name, said)


def typed(name: str, said: dict[str, Any]) -> bytes:
    """Write an event without a name, whose data has the `type` at the top."""
    return b"data: %b\n\n" % msgspec.json.encode({"type": name, **said})


class WithPresence:
    """A `Source` around another one, with what is heard of a conversation merged into it.

    Closing it closes both. Waiting for `next` may be cancelled and begun again.
    """

    def __init__(self, feed: Source, seen: Seen, write: Writing = named) -> None:
        self.first = feed.first
        self._feed = feed
        self._seen = seen
        self._write = write
        # What is being waited for outlives a wait that is cancelled, and is never begun twice:
        # a feed that is interrupted again and again would not get anywhere.
        self._coming: asyncio.Task[bytes] | None = None
        self._waiting: asyncio.Task[Any] | None = None

    async def next(self) -> bytes:
        """Return what comes next of the feed, or who types and who is there, or both."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._feed.next())
        if not self._seen.wake.is_set():
            await self._wait(self._coming)
        said = b"".join(self._write(name, data) for name, data in self._seen.take())
        if not self._coming.done():
            return said
        coming, self._coming = self._coming, None
        return coming.result() + said

    def close(self) -> None:
        """Follow no more."""
        for task in (self._coming, self._waiting):
            if task is not None:
                task.cancel()
        self._seen.close()
        self._feed.close()

    async def _wait(self, coming: asyncio.Task[bytes]) -> None:
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.create_task(self._seen.wake.wait())
        await asyncio.wait((coming, self._waiting), return_when=asyncio.FIRST_COMPLETED)


def person_of(principal: Principal, *, colleague: bool) -> Person:
    """Who somebody is to others; only an agent with a token of their own has a name."""
    name = principal.name if principal.kind == "agent" else ""
    id = principal.agent or principal.id
    return Person(id[:LONGEST], "agent" if colleague else "user", name[:LONGEST])


def customer_of(principal: Principal, session: str) -> Person:
    """Who a customer is to others: somebody of their own in each session, whatever their key."""
    return Person(token(f"{principal.id}/{session}"))


def accompany(
    feed: Source,
    presence: Presence,
    session: str,
    principal: Principal,
    *,
    colleague: bool | None = None,
    me: Person | None = None,
    write: Writing = named,
) -> WithPresence:
    """Merge into a feed who is there and who types in its conversation.

    As long as it is open others are told that the principal is there (`me`, if it is somebody
    the edge knows otherwise). A `colleague` is there as an agent, and told who the others are; a
    customer is not. Unless it is said, who may read the desk is a colleague. `write` is `named`
    for `event: typing`, `typed` for `data: {"type": "typing", …}`.
    """
    if colleague is None:
        colleague = principal.kind == "agent" or DESK_READ in principal.scopes
    me = me or person_of(principal, colleague=colleague)
    seen = presence.follow(session, me, colleague=colleague)
    return WithPresence(feed, seen, write)


def accompany_desk(
    feed: Source, presence: Presence, principal: Principal, *, write: Writing = typed
) -> WithPresence:
    """Merge into a feed of the desk who is there and who types in all conversations."""
    with contextlib.ExitStack() as undo:
        undo.callback(feed.close)
        seen = presence.follow_all(person_of(principal, colleague=True))
        undo.pop_all()
    return WithPresence(feed, seen, write)
