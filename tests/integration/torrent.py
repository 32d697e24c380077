"""A model that speaks as fast as the broker stores, and does not stop by itself."""

from collections.abc import AsyncGenerator

from runtime import Work, Worker, handler
from schemas.model import Generate, Generated
from schemas.record import Delta

PIECE = "word " * 204
"""About as much as is said at once, so that nothing is kept waiting for more."""

begun: set[str] = set()
"""Runs that have begun to speak."""
silenced: dict[str, int] = {}
"""Runs that do not speak any more, and how many pieces they had to say until then."""


class Torrent(Worker):
    """Speaks until it is stopped."""

    @handler
    async def generate(self, job: Generate, ctx: Work) -> AsyncGenerator[Delta | Generated, None]:
        said = 0
        begun.add(ctx.run)
        try:
            while True:
                said += 1
                yield Delta(text=PIECE)
        finally:
            silenced[ctx.run] = said
