"""How long a message that fails is tried again before it is buried: its key waits meanwhile."""

import asyncio
import time
from datetime import timedelta

import structlog

from runtime.answers import clip
from runtime.system import System
from schemas.base import Address
from schemas.node import Failing

log = structlog.get_logger()

ATTEMPTS = 5
LONGEST_BACKOFF = 10.0
LONGEST = timedelta(seconds=30)
SHOWN = 200


class Patience:
    """What one instance has with the first of its messages: which one, how often it failed."""

    def __init__(self, system: System, actor: str, key: str) -> None:
        self._system = system
        self._name = (actor, key)
        self._seq = 0
        self._since = 0.0
        self.tries = 0
        """How often that message has failed."""

    def tried(self, seq: int) -> int:
        """How often the message at a sequence has failed."""
        return self.tries if seq == self._seq else 0

    def is_over(self, seq: int) -> bool:
        """Whether a message that fails once more is not to be tried again."""
        if seq != self._seq:
            self._seq, self.tries, self._since = seq, 0, time.monotonic()
        spent = time.monotonic() - self._since
        return self.tries + 1 >= ATTEMPTS or spent > LONGEST.total_seconds()

    def end(self) -> None:
        """Nothing fails any more, or it is not ours."""
        if self.tries:
            self._seq = self.tries = 0
            self._system.failing.pop(self._name, None)

    async def back_off(self, address: Address, cause: BaseException) -> None:
        """Wait before the next try, and let operators see what for."""
        self.tries += 1
        delay = min(self._system.first_backoff * 4 ** (self.tries - 1), LONGEST_BACKOFF)
        reason = f"{type(cause).__name__}: {clip(cause, SHOWN)}"
        self._system.failing[self._name] = Failing(
            address=str(address), seq=self._seq, tries=self.tries, reason=reason
        )
        log.warning(
            "handler_failed",
            actor=str(address),
            attempt=self.tries,
            retry_in=delay,
            exc_info=cause,
        )
        await asyncio.sleep(delay)
