"""Reading from any replica what is as new as the leader has it: one may be behind for a moment.

What a replica gives is the log as it was a moment ago, never with a hole in it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from runtime.errors import Unavailable

STALE_TRIES = 100
STALE_WAIT = 0.05


class _Sequenced(Protocol):
    @property
    def seq(self) -> int: ...


Found = TypeVar("Found", bound=_Sequenced)


async def read_caught_up(
    read: Callable[[], Awaitable[list[Found]]],
    newest: Callable[[], Awaitable[Found | None]],
    after: int,
) -> list[Found]:
    """Return what `read` finds past `after`, once that reaches what the leader had at the call.

    `newest` asks the leader for the last of the same subjects. Raises Unavailable if the
    replicas that answer stay behind it for seconds.
    """
    wanted = _seq_of(await newest())
    for _ in range(STALE_TRIES):
        found = await read()
        if (found[-1].seq if found else after) >= wanted:
            return found
        await asyncio.sleep(STALE_WAIT)
        # It may have been removed meanwhile: what nobody has is not waited for.
        wanted = min(wanted, _seq_of(await newest()))
    raise Unavailable(f"the replicas are behind {wanted}, which their leader has")


def _seq_of(found: _Sequenced | None) -> int:
    return found.seq if found else 0
