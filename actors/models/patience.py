"""How long one answer may take, and how long its first piece: one timer for both."""

import asyncio
from collections.abc import AsyncIterator

from actors.models.events import ProviderEvent
from actors.models.faults import UpstreamFault


class Patience:
    """Ends a wait for the next piece when the time is over, in the task that made it.

    Between pieces nothing is interrupted: what is being stored is stored first.
    """

    def __init__(self, total: float) -> None:
        """`total` seconds, from now on, for all that is asked."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.end = loop.time() + total
        self._reason = ""
        self._late = self._waiting = self._cancelled = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def over(self) -> bool:
        """Whether all the time has been used."""
        return asyncio.get_running_loop().time() >= self.end

    def expect_first(self, seconds: float, whose: str) -> None:
        """From now on the first piece of an answer may take so long."""
        soon = asyncio.get_running_loop().time() + seconds
        if soon < self.end:
            self._set(soon, f"{whose} said nothing for {seconds:g} s")
        else:
            self.expect_all(whose)

    def expect_all(self, whose: str) -> None:
        """The first piece has come: the rest has until the end."""
        self._set(self.end, f"{whose} has not ended its answer in time")

    def stop(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()

    async def next(self, stream: AsyncIterator[ProviderEvent]) -> ProviderEvent | None:
        """The next piece, None at the end; raises UpstreamFault when the time is over."""
        if self._late:
            raise self._fault()
        self._waiting = True
        try:
            return await anext(stream, None)
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task as well; that goes before.
            if not self._cancelled or self._task is None or self._task.uncancel():
                raise
            raise self._fault() from None
        finally:
            self._waiting = self._cancelled = False

    def _set(self, when: float, reason: str) -> None:
        self.stop()
        self._reason, self._late = reason, False
        self._timer = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        self._late = True
        if self._waiting and self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def _fault(self) -> UpstreamFault:
        return UpstreamFault("timeout", self._reason, status=504)
