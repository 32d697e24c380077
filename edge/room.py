"""Room in memory: how many bytes of what clients send one process holds at the same time."""

import contextlib
from collections.abc import Callable, Iterator

from edge.problem import Refusal


class Room:
    """So many bytes, shared by all who ask for some."""

    def __init__(self, size: int) -> None:
        self._free = size

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Hold what the function given is told, until the end of the block.

        It raises Refusal 503 for more than there is.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > self._free:
                detail = "too much is being sent by everybody at once; try again in a moment"
                raise Refusal(503, "too_much_at_once", detail)
            taken += size
            self._free -= size

        try:
            yield take
        finally:
            self._free += taken
