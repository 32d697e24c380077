"""One attempt's way to an answer: from upstream to upstream, until one begins to answer.

What has begun is never glued to anything else: a fault after the first piece ends the attempt.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import structlog

from actors.models.events import (
    Adapter,
    Call,
    Ended,
    ProviderEvent,
    ReasoningDelta,
    Refusal,
    TextDelta,
    ToolDelta,
)
from actors.models.faults import Code, UpstreamFault
from actors.models.patience import Patience
from actors.models.upstreams import Fleet, NobodyLeft, Taken

log = structlog.get_logger()

OUR_FAULT: frozenset[Code] = frozenset({"bad_request", "context_too_long", "too_long"})
"""What no other upstream would take either."""
SPOKEN = (TextDelta, ReasoningDelta, ToolDelta)
FIRST_PAUSE = 0.5
"""Seconds before all upstreams are asked again; twice as many before each further round."""


class Asking:
    """Asks upstreams, each once in a round, before the first piece of an answer has come."""

    def __init__(
        self,
        fleet: Fleet,
        adapter: Adapter,
        *,
        slot: int,
        patience: Patience,
    ) -> None:
        self._fleet = fleet
        self._adapter = adapter
        self._slot = slot
        self._patience = patience
        self.upstream = ""
        """The one that was asked last."""
        self.began = False
        """Whether a piece of an answer has come."""

    async def events(
        self, call: Call, *, rounds: int, later: set[str]
    ) -> AsyncGenerator[ProviderEvent]:
        """What the first upstream says that answers; those in `later` are asked after others.

        Raises UpstreamFault: what the answering one met, or the last one that was asked.
        """
        last: UpstreamFault | None = None
        for number in range(rounds):
            if last is not None and not last.passing:
                break
            if number:
                await self._pause(number)
            tried: set[str] = set()
            while taken := await self._take(call.conversation, tried, later, last):
                tried.add(taken.place.name)
                try:
                    async with aclosing(self._ask(call, taken)) as events:
                        async for event in events:
                            yield event
                    return
                except UpstreamFault as fault:
                    if self.began or fault.code in OUR_FAULT or self._patience.over:
                        raise
                    last = fault
        raise last or UpstreamFault("unreachable", "there is no upstream", status=503)

    async def _take(
        self, conversation: str, tried: set[str], later: set[str], last: UpstreamFault | None
    ) -> Taken | None:
        """A path to one that was not tried in this round, or None.

        If none may be asked, what one of them answered itself says more than that.
        """
        try:
            return await self._fleet.take(
                conversation, self._slot, tried=tried, later=later, until=self._patience.end
            )
        except NobodyLeft:
            return None
        except UpstreamFault as fault:
            raise last or fault from None

    async def _pause(self, number: int) -> None:
        seconds = FIRST_PAUSE * 2 ** (number - 1) * random.uniform(0.8, 1.2)
        left = self._patience.end - asyncio.get_running_loop().time()
        await asyncio.sleep(max(min(seconds, left), 0))

    async def _ask(self, call: Call, taken: Taken) -> AsyncGenerator[ProviderEvent]:
        """One call. Whether it went well counts for the upstream, unless somebody ends it."""
        self.upstream = taken.place.name
        call = replace(call, upstream=taken.place.upstream)
        # What adapters return can be closed, which ends their request.
        stream = cast(AsyncGenerator[ProviderEvent], self._adapter.stream(call))
        self._patience.expect_first(call.timeouts.first, self.upstream)
        try:
            async with aclosing(self._heed(taken, stream)) as events:
                async for event in events:
                    yield event
            taken.succeed()
        except UpstreamFault as fault:
            taken.fail(fault)
            log.info("upstream_fault", upstream=self.upstream, code=fault.code, why=fault.reason)
            raise
        finally:
            self._patience.stop()
            taken.end()

    async def _heed(
        self, taken: Taken, stream: AsyncGenerator[ProviderEvent]
    ) -> AsyncGenerator[ProviderEvent]:
        """The pieces of an answer that is whole; raises UpstreamFault for any other."""
        ended = False
        async with aclosing(stream):
            while (event := await self._patience.next(stream)) is not None:
                if not self.began and isinstance(event, SPOKEN):
                    self.began = True
                    taken.answers()
                    self._patience.expect_all(self.upstream)
                ended = isinstance(event, Ended | Refusal) or ended
                yield event
        if not ended:
            raise UpstreamFault("truncated", "the answer ended without saying that it had ended")
