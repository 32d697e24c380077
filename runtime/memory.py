"""What a host may keep in memory, by bytes: idle instances, and messages it has not handled yet.

Both are caches of the stream, so the bounds cost time and never a message.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable

MOST_IDLE = 32 * 1024 * 1024
"""Bytes of instances with nothing to do."""
MOST_HELD = 32 * 1024 * 1024
"""Bytes of messages in hand; beyond it nothing more is asked for."""
INSTANCE_BYTES = 2500
REPLY_BYTES = 500
"""What an instance takes without its record, and each of its answers beside the text."""
MARGIN = 4096
"""What a message takes beside its payload and headers: its subject."""


def weigh(record: int, replies: int) -> int:
    """Bytes of an instance in memory, about, by those of its record as it is stored."""
    return INSTANCE_BYTES + 2 * record + REPLY_BYTES * replies


class Idle:
    """Those with nothing to do, the ones idle longest first; these are let go when all is full."""

    def __init__(self, limit: int = MOST_IDLE) -> None:
        self.limit = limit
        self.bytes = 0
        self._resting: OrderedDict[Hashable, tuple[int, Callable[[], None]]] = OrderedDict()

    def rest(self, one: Hashable, cost: int, let_go: Callable[[], None]) -> None:
        """Keep one of `cost` bytes for as long as there is room, then call `let_go`."""
        self.wake(one)
        self._resting[one] = (cost, let_go)
        self.bytes += cost
        while self.bytes > self.limit:
            _, (cost, let_go) = self._resting.popitem(last=False)
            self.bytes -= cost
            let_go()

    def wake(self, one: Hashable) -> None:
        """It has something to do, or is gone."""
        if found := self._resting.pop(one, None):
            self.bytes -= found[0]


class Held:
    """The messages that all shards of a host have in hand."""

    def __init__(self, limit: int = MOST_HELD) -> None:
        self.limit = limit
        self.bytes = 0

    def room(self, largest: int) -> int:
        """How many bytes one pull may ask for, where a payload has `largest` at most: 0 if none.

        Less than a whole message would never be given.
        """
        return largest + MARGIN if self.bytes < self.limit else 0
