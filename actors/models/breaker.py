"""Whether one upstream is worth asking, by how the last calls to it went."""

import math
import random
import time
from collections.abc import Callable

from actors.models.faults import UpstreamFault
from schemas.upstream import UpstreamStatus

LONGEST_REST = 3600.0
JITTER = 0.1
"""Of a rest, added by chance, so that not every host asks again at the same moment."""
KEY_TROUBLE = ("unauthorized", "quota_exhausted")
"""Faults that every further call would meet as well, until somebody sees to it."""


class Breaker:
    """Opens after some faults in a row, or at once where the upstream says for how long.

    When the time is over, one call is let through: how it begins decides.
    """

    def __init__(
        self, faults: int, rest: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`rest` is in seconds, for faults that say nothing of it themselves."""
        self._limit = faults
        self._rest = rest
        self._clock = clock
        self._row = 0
        self._until = 0.0
        self._open = False
        self._trial = False
        self.fault: UpstreamFault | None = None
        """What went wrong last, until something went well."""

    @property
    def wait(self) -> float:
        """Seconds until it may be asked; 0 if it may, or somebody is trying."""
        return max(self._until - self._clock(), 0.0) if self._open else 0.0

    @property
    def closed(self) -> bool:
        """Whether any number of calls may be made."""
        return not self._open

    @property
    def may_ask(self) -> bool:
        """Whether a call may be made now."""
        return not self._open or (not self._trial and not self.wait)

    @property
    def limited(self) -> bool:
        """Whether the upstream itself said that it wants to be left alone."""
        if not self._open or self.fault is None:
            return False
        return self.fault.code == "rate_limited" or _asked_rest(self.fault) > 0

    @property
    def status(self) -> UpstreamStatus:
        """In the words that nodes are shown in; whether it is busy is not known here."""
        if not self._open or self.fault is None:
            return "HEALTHY"
        if self.fault.code == "rate_limited":
            return "429_LIMIT"
        return "OFFLINE" if self.fault.code in ("unreachable", "timeout") else "ERROR"

    def begin(self) -> None:
        """A call is being made."""
        self._trial = self._open

    def leave(self) -> None:
        """A call ended, and nothing follows from how."""
        self._trial = False

    def answers(self) -> None:
        """A call is being answered: others may come, but the next fault opens it again."""
        if not self._open or (self.limited and self.wait):
            return
        self._open = self._trial = False
        self._row = self._limit - 1

    def succeed(self) -> None:
        """A call was answered whole, or the upstream is well and only this call was wrong."""
        self.answers()
        if not self._open:
            self._row = 0
            self.fault = None

    def fail(self, fault: UpstreamFault) -> None:
        """A call met a fault."""
        self._trial = False
        if not fault.passing and fault.code not in KEY_TROUBLE:
            self.succeed()
            return
        self._row += 1
        self.fault = fault
        if asked := _asked_rest(fault):
            self._rest_for(asked)
        elif fault.code in KEY_TROUBLE or self._row >= self._limit:
            self._rest_for(self._rest)

    def _rest_for(self, seconds: float) -> None:
        seconds = min(seconds, LONGEST_REST) * (1 + JITTER * random.random())
        self._until = max(self._until if self._open else 0.0, self._clock() + seconds)
        self._open = True

    def explain(self) -> str:
        """Why it is not asked, in a sentence without secrets."""
        if self.fault is None:
            return ""
        last = f"{self.fault.code}: {self.fault.reason}"
        if self.fault.code == "rate_limited" or self._row < 2:
            return last
        return f"{self._row} faults in a row, the last was {last}"


def _asked_rest(fault: UpstreamFault) -> float:
    """Seconds for which an upstream asks to be left alone; 0 if it says nothing sensible."""
    asked = fault.retry_after
    if fault.code not in ("rate_limited", "overloaded") or asked is None:
        return 0.0
    return asked if math.isfinite(asked) and asked > 0 else 0.0
