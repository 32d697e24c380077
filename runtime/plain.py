"""An attempt at a job that has no run: nothing to hold, nothing to stop, done at least once.

Whoever publishes to `work.<actor>.<priority>.<key>` without a `runid` sends one. It costs half
of what a run costs: one message in, one message out.
"""

from runtime.bus import Outgoing
from runtime.errors import BusFault, Denied
from runtime.run import Attempt
from schemas.base import Message
from schemas.record import RunRecord


class PlainAttempt(Attempt):
    """One try of as many as the server counts; its result may be stored twice after a crash."""

    async def open(self) -> None:
        """Nobody can have stopped it."""
        self.number = self.delivery.tries

    async def read(self) -> RunRecord:
        """There is no record: whoever looks for one finds it open."""
        return RunRecord(job=str(self.address), attempt=self.number)

    async def claim(self) -> None:
        """There is nobody to tell."""

    async def holds(self) -> bool:
        """Nobody can take it."""
        return True

    async def release(self, reason: str) -> None:
        """There is nothing to give back; the server counts the tries."""

    async def say(self, text: str) -> None:
        """What is said under no fence could not be taken back: it is not said."""

    async def finish(self, result: Message, *extra: Outgoing) -> None:
        """Store the result as a message to whoever is named as the source, and what else."""
        messages = [*extra, *self.answer(result)]
        if messages:
            await self._commit(messages)

    async def _commit(self, messages: list[Outgoing], *, resend: bool = True) -> int:
        """Store; what may not have been stored is stored again."""
        while True:
            try:
                return await self.system.committer.submit(messages)
            except Denied:
                raise
            except BusFault as fault:
                await self._recover(b"", fault, resend=resend)
