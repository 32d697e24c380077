"""Has a provider open a thread for a conversation, by way of its upstreams as any question is."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from actors.models.asking import Asking
from actors.models.events import Adapter, Call, Ended, InThread, ProviderEvent
from actors.models.faults import UpstreamFault
from actors.models.patience import Patience
from actors.models.report import REASON, STATUSES
from actors.models.upstreams import Fleet
from runtime.answers import clip
from schemas.assist import ThreadMade

WITHIN = 40.0
"""Seconds, whichever upstreams are asked."""


@runtime_checkable
class KeepsThreads(Adapter, Protocol):
    """An adapter whose provider keeps conversations itself."""

    async def open(self, call: Call) -> str:
        """Have one made: the provider's id for it. Raises UpstreamFault."""
        ...


class _Opener:
    """An adapter whose answers say where they are kept, and nothing else."""

    def __init__(self, keeper: KeepsThreads) -> None:
        self._keeper = keeper

    async def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        yield InThread(await self._keeper.open(call))
        yield Ended()

    async def close(self) -> None:
        """The adapter itself is closed by whoever made it."""


async def make_thread(fleet: Fleet, keeper: KeepsThreads, call: Call, *, rounds: int) -> ThreadMade:
    """A thread at the upstream that is best for the conversation, or why there is none."""
    asking = Asking(fleet, _Opener(keeper), slot=0, patience=Patience(WITHIN))
    made = ""
    try:
        async with aclosing(asking.events(call, rounds=rounds, later=set())) as events:
            async for event in events:
                if isinstance(event, InThread):
                    made = event.id
    except UpstreamFault as fault:
        return ThreadMade(
            upstream=asking.upstream,
            code=fault.code,
            status=STATUSES[fault.code],
            reason=clip(fault.reason, REASON),
        )
    return ThreadMade(thread=made, upstream=asking.upstream)
