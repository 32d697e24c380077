"""One attempt at a job: it holds the run by its record's sequence, and speaks only while it does.

Every claim, delta and result is refused by the broker itself once somebody else wrote the
run's record: a stop, a takeover, a newer attempt.
"""

import asyncio
import contextlib
import time
from datetime import timedelta
from typing import Any

import msgspec
import structlog

from runtime.answers import clip
from runtime.bus import Outgoing, Stored, expect, expiry
from runtime.errors import BusFault, Conflict, Denied, Forbidden, NoRoom, TurnError, Unknown
from runtime.pull import ACK_WAIT, Delivery
from runtime.system import System
from runtime.turn import EVENT_TTL, MOST_BYTES, MOST_REASON, ROLLUP, run_ttl
from schemas import subjects
from schemas.base import Address, Message, Topic, tag_of
from schemas.deployment import Deployment
from schemas.envelope import JSON, VERSION, Envelope, encode
from schemas.record import Delta, RunRecord, RunStarted, RunSuperseded
from schemas.subjects import ACTOR_NAME

log = structlog.get_logger()

GIVE_BACK_WITHIN = 1.0
OVERDUE = ACK_WAIT
"""Seconds after which a job comes again that nobody gave back: who had it was lost."""
DELTA_GRACE = timedelta(minutes=15)

decode_run = msgspec.json.Decoder(RunRecord).decode


class Fenced(Exception):
    """The run is not ours (any more): whatever we would say is refused."""


class Attempt:
    """One try at one job. `lease` is the sequence of the run's record that we hold."""

    def __init__(
        self, system: System, deployment: Deployment, envelope: Envelope[Any], delivery: Delivery
    ) -> None:
        self.system = system
        self.deployment = deployment
        self.envelope = envelope
        self.delivery = delivery
        # A job without a run is told from others by where it is stored.
        self.run = envelope.runid or f"seq-{delivery.seq}"
        self.subject = subjects.run(self.run)
        self.address = Address(deployment.name, envelope.subject)
        self.number = 1
        self.failures = 0
        """Attempts that ended with an error."""
        self.crashes = 0
        """Attempts that ended with their host."""
        self.claimed = False
        self.lease = 0
        self.lost = False
        """Somebody else wrote the run's record, and we were told."""
        self.storing = 0
        """Commits on their way, which move the lease when they are through."""
        self._said = 0
        self._ids = 0
        self._topic = _topic(envelope.topic)

    # -- holding the run -------------------------------------------------------------------

    async def open(self) -> None:
        """Find out whether the job is still to be done, and as which attempt.

        Raises Fenced if the run is gone, finished, stopped or another job's.
        """
        record = await self.read()
        self.number = record.attempt + 1
        self.failures = record.failures
        self.crashes = record.crashes + self._ended_with_its_host(record)

    def _ended_with_its_host(self, record: RunRecord) -> bool:
        """Whether nobody can have ended the last attempt but the end of its host.

        One that had claimed nothing has left no trace but a job that was not settled in time.
        """
        if record.state == "claimed":
            return record.host != self.system.incarnation
        overdue = time.time() - self.delivery.stored > OVERDUE
        return record.attempt == 0 and self.delivery.tries > 1 and overdue

    async def read(self) -> RunRecord:
        """The run's record, if the run is still open or claimed; takes its lease."""
        stored = await self.system.lookup.last(self.subject)
        return self._check(stored) if stored is not None else await self._missing()

    def _check(self, stored: Stored) -> RunRecord:
        record = decode_run(stored.data)
        if record.job and record.job != str(self.address):
            raise Fenced("the run is another job's")
        if record.state in ("finished", "stopped"):
            raise Fenced(f"the run is {record.state}")
        self.lease = stored.seq
        return record

    async def _missing(self) -> RunRecord:
        """Its record is created with its job, so one that is not there has outlived its time."""
        stored = await self.system.lookup.surely_last(self.subject, self.delivery.seq)
        if stored is not None:
            return self._check(stored)
        raise Fenced("the run is gone")

    async def claim(self) -> None:
        """Take the run, and tell the followers that this attempt speaks now."""
        event: Message = RunStarted(run=self.run, attempt=self.number)
        if self.number > 1:
            event = RunSuperseded(run=self.run, attempt=self.number)
        messages = [self._record("claimed"), *self._events(event)]
        self.lease = await self._commit(messages)
        self.claimed = True

    async def holds(self) -> bool:
        """Whether the run's record is still the one we hold, or is just being replaced by us."""
        lease, storing = self.lease, self.storing
        stored = await self.system.lookup.last(self.subject)
        moving = storing or self.storing or lease != self.lease
        # What is older, or not there, was read from a leader that is behind: the fence decides.
        return bool(moving) or stored is None or stored.seq <= lease

    async def is_over(self) -> bool:
        """Whether nobody will end the run any more; False if that cannot be found out."""
        try:
            await self.read()
        except Fenced:
            return True
        except BusFault:
            return False
        return False

    async def release(self, reason: str) -> None:
        """Give the run back for the next attempt, and remember that this one was made."""
        record = self._record("open", reason=clip(reason, MOST_REASON))
        self.lease = await self._commit([record])

    async def give_back(self) -> None:
        """Release the run because this host is leaving, if that can be done at once."""
        if self.claimed:
            with contextlib.suppress(Fenced, BusFault, TimeoutError):
                async with asyncio.timeout(GIVE_BACK_WITHIN):
                    await self.release("its host was stopped")

    # -- speaking --------------------------------------------------------------------------

    async def say(self, piece: Delta, text: str) -> None:
        """Store `text` as a delta like `piece`; raises Fenced if the broker refuses it."""
        if self._topic is None:
            return
        self._said += 1
        delta = Delta(
            text=text,
            kind=piece.kind,
            index=piece.index,
            call=piece.call,
            name=piece.name,
            run=self.run,
            attempt=self.number,
            n=self._said,
        )
        message = self.event(self._topic, delta, self.deployment.deadline + DELTA_GRACE)
        headers = {**expect(self.lease, self.subject), **message.headers}
        await self._commit([Outgoing(message.subject, message.data, headers)], resend=True)

    def event(self, topic: Topic, event: Message, ttl: timedelta) -> Outgoing:
        """An event as this attempt tells it; raises TurnError if it is too large."""
        subject, sealed = subjects.event(topic), self._seal(event, topic.id)
        if len(sealed) > MOST_BYTES:
            raise TurnError(f"{subject}: a message of {len(sealed)} bytes, at most {MOST_BYTES}")
        return Outgoing(subject, sealed, expiry(ttl))

    async def tell(self, to: Address, message: Message) -> None:
        """Send mail, perhaps twice; raises Fenced if the broker refuses it."""
        mail = self.mail(to, message)
        headers = {**expect(self.lease, self.subject), **mail.headers}
        await self._commit([Outgoing(mail.subject, mail.data, headers)], resend=True)

    def mail(self, to: Address, message: Message) -> Outgoing:
        """A message to a keyed actor, as this attempt sends it."""
        target = self.system.deployments.get(to.actor)
        ttl = target.mail_ttl if target else timedelta(hours=24)
        return Outgoing(subjects.mail(to), self._seal(message, to.key), expiry(ttl))

    async def excuse(self) -> None:
        """Forget that hosts have ended with it: it has long been waiting, and this one has not."""
        if self.crashes and self.claimed:
            self.crashes = 0
            self.lease = await self._commit([self._record("claimed")])
            if self.system.suspect == self.run:
                self.system.suspect = ""

    async def finish(self, result: Message, *extra: Outgoing) -> None:
        """Store the run's end, what else, and last the message to whoever started it."""
        await self._commit([self._record("finished"), *extra, *self.answer(result)])

    def answer(self, result: Message) -> list[Outgoing]:
        """The message that brings a result to whoever started the job, if that is an actor."""
        actor, _, key = (self.envelope.resultto or self.envelope.source).partition("/")
        if not ACTOR_NAME.fullmatch(actor):
            return []
        return [self.mail(Address(actor, key), result)]

    # -- storing ---------------------------------------------------------------------------

    async def _commit(self, messages: list[Outgoing], *, resend: bool = False) -> int:
        """Store under the lease; an unknown outcome is cleared up before anything else.

        Deltas are said again instead, under the same number: followers drop a repeat.
        Raises Denied if the server says no.
        """
        self.storing += 1
        try:
            return await self._commit_surely(messages, resend=resend)
        finally:
            self.storing -= 1

    async def _commit_surely(self, messages: list[Outgoing], *, resend: bool) -> int:
        while True:
            try:
                return await self.system.committer.submit(messages, self.subject)
            except Conflict:
                found = None if resend else await self._stored(messages[0].data)
                if found is None:
                    raise Fenced("somebody else wrote the run's record") from None
                return found
            except Forbidden as fault:
                log.error("cannot_store", run=self.run, error=str(fault))
                await asyncio.sleep(1)
            except Denied:
                raise
            except BusFault as fault:
                found = await self._recover(messages[0].data, fault, resend=resend)
                if found is not None:
                    return found

    async def _recover(self, mine: bytes, fault: BusFault, *, resend: bool) -> int | None:
        """After a fault that passes: whether the commit went through, else when to try again."""
        if isinstance(fault, NoRoom):
            log.error("no_room", run=self.run, error=str(fault))
            await asyncio.sleep(1)
            return None
        found = None
        if isinstance(fault, Unknown) and not resend:
            found = await self._stored(mine)
        if found is None:
            await asyncio.sleep(0.05)
            await self.system.bus.link.connected.wait()
        return found

    async def _stored(self, mine: bytes) -> int | None:
        """Where our own record stands, if a commit whose answer was lost went through."""
        while True:
            try:
                stored = await self.system.bus.last(self.subject)
            except BusFault:
                await asyncio.sleep(0.1)
                continue
            return stored.seq if stored is not None and stored.data == mine else None

    def _record(self, state: Any, reason: str = "") -> Outgoing:
        record = RunRecord(
            job=str(self.address),
            state=state,
            attempt=self.number,
            failures=self.failures,
            crashes=self.crashes,
            host=self.system.incarnation,
            # Makes each record of each try unlike any other, so that ours is recognised.
            epoch=time.time_ns(),
            reason=reason,
        )
        headers = {**ROLLUP, **expect(self.lease), **expiry(run_ttl(self.deployment))}
        return Outgoing(self.subject, encode(record), headers)

    def _events(self, event: Message) -> list[Outgoing]:
        return [] if self._topic is None else [self.event(self._topic, event, EVENT_TTL)]

    def _seal(self, message: Message, subject: str) -> bytes:
        came = self.envelope
        self._ids += 1
        return encode(
            Envelope(
                specversion=VERSION,
                datacontenttype=JSON,
                type=tag_of(message),
                data=message,
                id=f"{self.run}.{self.number}.{self._ids}",
                source=str(self.address),
                subject=subject,
                time=self.system.clock.now(),
                correlationid=came.correlationid or came.id,
                causationid=came.id,
                traceparent=came.traceparent,
                principal=came.principal,
                runid=came.runid,
                attempt=self.number,
                number=self._said if isinstance(message, Delta) else 0,
            )
        )


def _topic(text: str) -> Topic | None:
    kind, slash, name = text.partition("/")
    return Topic(kind, name) if slash else None
