"""An attempt at a job that came without a run: nothing to stop, done at least once.

Whoever publishes to `work.<actor>.<priority>.<key>` without a `runid` sends one. It costs half
of what a run costs: one message in, one message out. Once it goes wrong it gets a run after all,
which counts what it failed and whom it ended.
"""

from typing import Any

from runtime.bus import Outgoing
from runtime.errors import BusFault, Denied
from runtime.pull import Delivery
from runtime.run import Attempt
from runtime.system import System
from schemas.base import Address, Message
from schemas.deployment import Deployment
from schemas.envelope import Envelope
from schemas.record import RunRecord


class PlainAttempt(Attempt):
    """One try; the first holds nothing. Its result may be stored twice after a crash."""

    def __init__(
        self,
        system: System,
        deployment: Deployment,
        envelope: Envelope[Any],
        delivery: Delivery,
    ) -> None:
        super().__init__(system, deployment, envelope, delivery)
        self._first = delivery.tries == 1
        # What is said under no fence could not be taken back: it is not said.
        self._topic = None

    async def open(self) -> None:
        """Find out what became of it before; raises Fenced as any attempt."""
        if not self._first:
            await super().open()

    async def read(self) -> RunRecord:
        """The run it was given, or one that nobody has written yet."""
        if self._first and not self.lease:
            return self._unwritten()
        return await super().read()

    async def _missing(self) -> RunRecord:
        return self._unwritten()

    def _unwritten(self) -> RunRecord:
        return RunRecord(job=str(self.address))

    async def claim(self) -> None:
        """Say that this host is at it, unless it is the first to be."""
        if not self._first:
            await super().claim()

    async def holds(self) -> bool:
        """Nobody can take what nobody holds."""
        return not self.lease or await super().holds()

    async def tell(self, to: Address, message: Message) -> None:
        """Send mail, perhaps twice, under no fence unless it has one by now."""
        if self.lease:
            await super().tell(to, message)
        else:
            await self._commit_loosely([self.mail(to, message)])

    async def finish(self, result: Message, *extra: Outgoing) -> None:
        """Store the result as a message to whoever is named as the source, and what else."""
        if self.lease:
            await super().finish(result, *extra)
        elif messages := [*extra, *self.answer(result)]:
            await self._commit_loosely(messages)

    async def _commit_loosely(self, messages: list[Outgoing]) -> None:
        """Store; what may not have been stored is stored again."""
        while True:
            try:
                await self.system.committer.submit(messages)
            except Denied:
                raise
            except BusFault as fault:
                await self._recover(b"", fault, resend=True)
            else:
                return
