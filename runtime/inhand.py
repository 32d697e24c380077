"""The jobs that a host has in hand, told to the others, so that they come again soon if it dies.

Without it a killed host's jobs would wait for the broker's `ACK_WAIT`. Only jobs that take a
while are told: the others are over before anybody could read of them.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta

import msgspec
import structlog

from runtime.bus import Outgoing, expect, expiry
from runtime.errors import BusFault, Conflict
from runtime.kv import Bucket
from runtime.pull import Delivery
from runtime.system import System
from runtime.turn import ROLLUP, run_ttl
from schemas import subjects
from schemas.base import token
from schemas.envelope import UNREADABLE, encode
from schemas.node import IN_HAND, Holding, InHand
from schemas.record import RunRecord

log = structlog.get_logger()

BUCKET = "nodes"
LOOK_EVERY = 0.5
LOOKS_FOR_NAMESAKE = 6
TELL_AGAIN = 20.0
TTL = timedelta(seconds=60)
MOST = 1000
"""Jobs that are told of; what is beyond waits for `ACK_WAIT`."""

_decode = msgspec.json.Decoder(InHand).decode
_decode_run = msgspec.json.Decoder(RunRecord).decode

Job = tuple[Delivery, str]
"""A delivery, and the run it is of."""


class Hands:
    """Tells what this host has in hand, and gives back what a dead one had."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._nodes = Bucket(system.bus, BUCKET)
        self._key = f"{_below(system.name)}{token(system.incarnation)}"
        self._seen: set[str] = set()
        self._told: list[Holding] = []
        self._told_at = 0.0

    async def run(self, jobs: Callable[[], Iterable[Job]], namesake: Callable[[], bool]) -> None:
        """Tell it again and again until cancelled; give back what our own last process had.

        Not while a `namesake` lives: two processes by one name are one too many already.
        """
        looks = 0
        while True:
            await self.look(jobs())
            await asyncio.sleep(LOOK_EVERY)
            looks += 1
            if looks == LOOKS_FOR_NAMESAKE and not namesake():
                await self.give_back(self._system.name)

    async def leave(self) -> None:
        """Have nothing in hand any more."""
        await self.look(())

    # -- what we have ----------------------------------------------------------------------

    async def look(self, jobs: Iterable[Job]) -> None:
        """Tell of the jobs that were there at the last look already."""
        now = {delivery.packet.reply: run for delivery, run in jobs}
        lasting = [Holding(ack, run) for ack, run in now.items() if ack in self._seen][:MOST]
        self._seen = set(now)
        due = asyncio.get_running_loop().time() - self._told_at > TELL_AGAIN
        if lasting == self._told and not (lasting and due):
            return
        try:
            await self._tell(lasting)
        except BusFault as fault:
            log.debug("in_hand_not_told", error=str(fault))
            return
        self._told, self._told_at = lasting, asyncio.get_running_loop().time()

    async def _tell(self, held: list[Holding]) -> None:
        if held:
            await self._nodes.put(self._key, encode(InHand(held=held)), ttl=TTL)
        else:
            await self._nodes.delete(self._key, forget=TTL)

    # -- what others had -------------------------------------------------------------------

    async def give_back(self, host: str) -> None:
        """Let the jobs come again that a host had in hand when it ended.

        Of several who try, one does it. Its own earlier processes are given as any other host.
        """
        try:
            for key, stored in (await self._nodes.all(_below(host))).items():
                if key != self._key:
                    await self._nodes.delete(key, forget=TTL, revision=stored.seq)
                    await self._release(host, stored.data)
        except Conflict:
            return
        except BusFault as fault:
            log.warning("jobs_not_given_back", host=host, error=str(fault))

    async def _release(self, host: str, data: bytes) -> None:
        try:
            held = _decode(data).held
        except UNREADABLE as error:
            log.warning("in_hand_unreadable", host=host, error=str(error))
            return
        for job in held:
            await self._count(job.run)
            self._system.bus.notify(job.ack, b"-NAK")
        log.warning("jobs_given_back", host=host, jobs=len(held))

    async def _count(self, run: str) -> None:
        """Remember that a host ended over a run that nobody had claimed: its record cannot tell.

        A claimed one names the host that claimed it.
        """
        stored = await self._system.bus.last(subjects.run(run)) if run else None
        if stored is None:
            return
        try:
            record = _decode_run(stored.data)
        except UNREADABLE as error:
            log.warning("run_unreadable", run=run, error=str(error))
            return
        known = self._system.deployments.get(record.job.partition("/")[0])
        if record.state != "open" or record.attempt or known is None:
            return
        counted = msgspec.structs.replace(record, attempt=1, crashes=record.crashes + 1)
        headers = {**ROLLUP, **expect(stored.seq), **expiry(run_ttl(known))}
        message = Outgoing(stored.subject, encode(counted), headers)
        try:
            await self._system.committer.submit([message], stored.subject)
        except Conflict:
            log.debug("run_moved_on", run=run)


def _below(host: str) -> str:
    return f"{IN_HAND}{token(host)}."
