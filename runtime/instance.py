"""One instance of a keyed actor: it applies its messages in order, each exactly once.

The heart of the runtime: messages in, one atomic commit, answers and acks out.
Who hands it messages is in runtime/shard.py.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec
import structlog

from runtime.actor import Actor
from runtime.answers import clip, find_reply, make_answer, make_refusal, remember, same_again
from runtime.applied import Applied, collect_replies
from runtime.crash import crash_at
from runtime.errors import BusFault, Conflict, Denied, Forbidden, NoRoom, Reject, StateUndecodable
from runtime.memory import weigh
from runtime.patience import ATTEMPTS, Patience
from runtime.pull import Delivery
from runtime.record import encode_state, expired, new_record, read_record, write_record
from runtime.shelf import Shelf
from runtime.system import ActorType, System
from runtime.turn import MOST_EFFECTS, TURN_BYTES, Effects, Turn, dead_letter
from schemas import subjects
from schemas.base import Address, token
from schemas.control import Control
from schemas.envelope import UNREADABLE, Envelope, encode
from schemas.record import NOTHING, Answer, Record, Refusal, Replied

log = structlog.get_logger()

MOST_AT_ONCE = 64
BROKEN = "handler_failed"


class _Failed(Exception):
    """A handler raised; `cause` is what."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause


class Instance:
    """One key of one actor type, as its owner holds it: a cache of its record, and its mail."""

    def __init__(
        self,
        kind: ActorType,
        key: str,
        system: System,
        settled: Callable[[Delivery], None],
        rests: Callable[["Instance", str, int], None],
    ) -> None:
        """`settled` is called for each message that is done, `rests` when none is left."""
        self.kind = kind
        self.system = system
        self.address = Address(kind.name, key)
        self.waiting: deque[Delivery] = deque()
        self.task: asyncio.Task[None] | None = None
        self._token = key
        self._subject = subjects.state(kind.name, key)
        self.settled = settled
        self._rests = rests
        self._size = 0  # of the record as it is stored
        self._shelf = Shelf(self, key)
        self._control: Control | None = None
        """What operators have said about this key."""
        self._record: Record | None = None
        self._version = 0
        self._patience = Patience(system, kind.name, key)
        self._given: list[Replied] = []
        self._alone = False
        """The next message is a turn of its own: one of several could not be stored."""
        self._doomed = (0, "")
        """Which message is buried without being tried again, and why."""

    def push(self, delivery: Delivery) -> None:
        """Take a message; it is applied after those that came before it."""
        self.waiting.append(delivery)
        if self.task is None:
            self._begin()

    def call(self) -> None:
        """Look at what operators have said, though no message may have come."""
        self._shelf.called = True
        if self.task is None:
            self._begin()

    def calm(self) -> None:
        """What failed is tried anew, if it comes again."""
        self._patience.end()

    def stop(self) -> None:
        """Forget everything: somebody else may be applying these messages by now."""
        self.waiting.clear()
        self._shelf.called = False
        self.calm()
        if self.task:
            self.task.cancel()

    def _begin(self) -> None:
        self.task = asyncio.create_task(self._drain())
        self.task.add_done_callback(self._drained)

    def _drained(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if task.cancelled():
            return
        if error := task.exception():
            self.system.fail(error, self.kind.name)
        elif self.waiting or self._shelf.called:
            # It came between the task's last look and its end.
            self._begin()
        else:
            replies = len(self._record.replies) if self._record else 0
            self._rests(self, self._token, weigh(self._size, replies))

    async def _drain(self) -> None:
        conflicts = 0
        while self.waiting or self._shelf.called:
            crash_at("turn.fetched")
            try:
                await self._turn()
                conflicts = 0
            except Conflict:
                log.info("record_conflict", actor=str(self.address))
                self._record = None
                # Once is a new owner or a late commit; again and again is worth no hurry.
                await asyncio.sleep(min(0.01 * 2**conflicts - 0.01, 1))
                conflicts += 1
            except (NoRoom, Forbidden) as fault:
                log.error("cannot_store", actor=str(self.address), error=str(fault))
                self._record = None
                await asyncio.sleep(1)
            except BusFault as fault:
                # What became of the commit is not known: the record will tell.
                log.debug("commit_unknown", actor=str(self.address), error=str(fault))
                self._record = None
                await asyncio.sleep(0.05)
                await self.system.bus.link.connected.wait()

    async def _turn(self) -> None:
        """Apply what waits, as far as it goes, in one commit; then answer and acknowledge."""
        self._control = self.system.controls.find(self.kind.name, self._token)
        record = self._record or await self._load()
        if (self._control or record.parked or self._shelf.called) and not await self._shelf.opens(
            record, self._control
        ):
            return
        effects = Effects(record.timers)
        head = self.waiting[0]
        if head.care is None or head.seq <= record.done:
            applied, new, failure = self._apply(record, effects)
        else:
            async with head.care.handling(head.seq):
                applied, new, failure = self._apply(record, effects, head)
        fresh = [one for one in applied if one.outcome != "seen"]
        if fresh:
            try:
                await self._commit(record, new, effects, fresh)
            except Forbidden:
                raise
            except (Denied, ValueError, TypeError) as error:
                await self._blame(error, fresh)
                return
            self._alone, self._doomed = False, (0, "")
        for one in applied:
            self._finish(one)
        if failure is not None:
            await self._patience.back_off(self.address, failure.cause)

    async def _blame(self, error: Exception, fresh: list[Applied]) -> None:
        """What a turn sends cannot be stored: find the message it is due to, and only bury that.

        Several are tried again one by one; one alone is tried again as any that fails.
        """
        self._record = None
        if len(fresh) > 1:
            self._alone = True
            return
        if self._patience.is_over(fresh[0].delivery.seq):
            self._doomed = (fresh[0].delivery.seq, f"what it sends cannot be stored: {error}")
        await self._patience.back_off(self.address, error)

    async def _load(self) -> Record:
        async with self.system.loading:
            stored = await self.system.lookup.last(self._subject)
        if stored is None:
            self._version = 0
            self._record = new_record(self._token, self.system.bus)
        else:
            self._version, self._size = stored.seq, len(stored.data)
            try:
                self._record = read_record(stored.data, self.system.bus)
            except UNREADABLE as error:
                if self._control is None or self._control.kill is None:
                    raise StateUndecodable(f"{self.address}: record: {error}") from None
                self._record = new_record(self._token, self.system.bus)
        if self._record.key != self._token:
            self.address = Address(self.address.actor, self._record.key)
        if expired(self._record, self.system.clock.now(), self.kind.deployment.lifetime):
            self._record.data = NOTHING
        return self._record

    # -- applying --------------------------------------------------------------------------

    def _apply(
        self, record: Record, effects: Effects, only: Delivery | None = None
    ) -> tuple[list[Applied], msgspec.Raw, _Failed | None]:
        """Run handlers on what waits; stop at the first that fails. Nothing is stored yet.

        What needs care is applied as the `only` one.
        """
        data = record.data
        applied: list[Applied] = []
        self._given = record.replies
        most = 1 if self._alone or only else self._shelf.recalled or MOST_AT_ONCE
        for delivery in list(islice(self.waiting, most)):
            if delivery.seq <= record.done:
                applied.append(self._repeat(delivery, record))
                continue
            if delivery.care is not None and delivery is not only:
                break
            mark = effects.mark()
            try:
                one, data = self._handle(delivery, data, effects)
            except _Failed as failure:
                effects.undo(mark)
                if not self._patience.is_over(delivery.seq):
                    return applied, data, failure
                reason = f"{type(failure.cause).__name__}: {clip(failure.cause, 1000)}"
                one = self._bury(delivery, effects, reason, self._patience.tries + 1)
            applied.append(one)
            if len(effects) > MOST_EFFECTS // 2 or effects.size > TURN_BYTES // 2:
                break
        return applied, data, None

    def _handle(
        self, delivery: Delivery, data: msgspec.Raw, effects: Effects
    ) -> tuple[Applied, msgspec.Raw]:
        """Apply one message to the encoded state; returns the state after it."""
        if delivery.ended:
            reason = f"{delivery.ended} hosts in a row ended, or stood still, while they handled it"
            return self._bury(delivery, effects, reason, delivery.ended), data
        if delivery.seq == self._doomed[0]:
            return self._bury(delivery, effects, self._doomed[1], ATTEMPTS), data
        if self._control and (reason := self._control.sentence(delivery.seq)):
            return self._bury(delivery, effects, reason, self._patience.tried(delivery.seq)), data
        try:
            envelope = self.kind.cls.decode_mail(delivery.packet.data)
            self._check_key(envelope)
        except (*UNREADABLE, ValueError) as error:
            return self._bury(delivery, effects, f"unreadable: {clip(error, 500)}", 1), data
        one = Applied(delivery, "applied")
        one.reply_to, one.bodyhash, one.type = envelope.replyto, envelope.bodyhash, envelope.type
        asked = envelope.replyto and not envelope.replayed  # of which it may have been refused
        earlier = find_reply(self._given, envelope.id) if asked else None
        if earlier is not None:
            one.answer = same_again(earlier, envelope.bodyhash)
            one.outcome = "repeated"
        elif envelope.reminder and not effects.come(envelope.reminder, envelope.generation):
            one.outcome = "reminder_dropped"
        else:
            data = self._call(envelope, data, effects, one)
            # A repeat of it may be waiting in this very turn.
            if one.reply_to:
                self._given = [*self._given, *collect_replies([one], self.system.clock.now())]
        return one, data

    def _call(
        self,
        envelope: Envelope[Any],
        data: msgspec.Raw,
        effects: Effects,
        one: Applied,
    ) -> msgspec.Raw:
        actor = self._with_state(data)
        turn = Turn(
            self.kind.deployment,
            self.system.deployments,
            envelope,
            effects,
            sequence=one.delivery.seq,
            now=self.system.clock.now(),
        )
        mark = effects.mark()
        try:
            result = getattr(actor, self.kind.cls.handlers[type(envelope.data)])(
                envelope.data, turn
            )
            after = encode_state(actor.state)
            one.answer = make_answer(envelope.id, result)
        except Reject as reject:
            effects.undo(mark)
            one.answer = make_refusal(envelope.id, reject.refusal)
            one.outcome = "rejected"
            return data
        except (Exception, asyncio.CancelledError, SystemExit, GeneratorExit) as error:
            # Nothing here waits, so nobody but the handler can have cancelled anything; and one
            # that calls sys.exit() would end the host in good order, with nobody to blame.
            raise _Failed(error) from error
        return after

    def _with_state(self, data: msgspec.Raw) -> Actor:
        actor = self.kind.cls(self.kind.options)
        try:
            actor.state = self.kind.decode_state(data) if data else self.kind.new_state()
        except UNREADABLE as error:
            raise StateUndecodable(f"{self.address}: state: {error}") from None
        return actor

    def _check_key(self, envelope: Envelope[Any]) -> None:
        """The key in the envelope must be the one in the subject, which may be its hash."""
        if token(envelope.subject) != self._token:
            raise ValueError(f"for {envelope.subject!r}, but it came to {self._token!r}")
        if self.address.key != envelope.subject:
            self.address = Address(self.address.actor, envelope.subject)

    def _repeat(self, delivery: Delivery, record: Record) -> Applied:
        """Applied before: only the answer may have been lost, and the ack."""
        one = Applied(delivery, "seen")
        try:
            envelope = self.kind.cls.decode_mail(delivery.packet.data)
        except UNREADABLE:
            return one
        if envelope.replyto and (found := find_reply(record.replies, envelope.id)):
            one.reply_to, one.answer = envelope.replyto, found.answer
        return one

    def _bury(self, delivery: Delivery, effects: Effects, reason: str, tries: int) -> Applied:
        packet = delivery.packet
        effects.send(dead_letter(self.kind.name, self._token, packet, delivery.seq, reason, tries))
        log.error("message_dead", actor=str(self.address), seq=delivery.seq, reason=reason)
        one = Applied(delivery, "dead")
        try:
            envelope = msgspec.json.decode(packet.data, type=Envelope[msgspec.Raw])
        except UNREADABLE:
            return one
        one.reply_to, one.type = envelope.replyto, envelope.type
        detail = "the request could not be handled and was kept as a dead letter"
        one.answer = Answer(id=envelope.id, refusal=Refusal(BROKEN, detail, 500))
        return one

    # -- storing ---------------------------------------------------------------------------

    async def _commit(
        self, record: Record, data: msgspec.Raw, effects: Effects, fresh: list[Applied]
    ) -> None:
        now = self.system.clock.now()
        done = fresh[-1].delivery.seq
        new = Record(
            stream=record.stream,
            done=done,
            key=self.address.key,
            data=data,
            written=now,
            replies=remember(record.replies, collect_replies(fresh, now), now),
            timers=dict(effects.timers),
            parked=record.parked if record.parked > done else 0,
            killed=record.killed,
        )
        await self.store(new, effects)

    async def store(self, new: Record, effects: Effects) -> None:
        """Store a record and what goes with it; raises what the committer raises."""
        state = write_record(self._subject, new, self._version, self.kind.deployment)
        lanes = {state.subject, *(m.subject for m in effects.sent if m.subject[:4] == "run.")}
        messages = effects.outgoing(state, self.address)
        self._version = await self.system.committer.submit(messages, *lanes)
        self._record, self._size = new, len(state.data)

    def _finish(self, one: Applied) -> None:
        """The commit stands: answer whoever waits, acknowledge, say so in one line."""
        # A host may say more than whoever wrote `replyto`: it answers inboxes, nothing else.
        if one.reply_to.startswith("_INBOX") and one.answer is not None:
            try:
                self.system.bus.notify(one.reply_to, encode(one.answer))
            except (BusFault, ValueError) as fault:
                log.debug("answer_not_sent", actor=str(self.address), error=str(fault))
        crash_at("ack.before")
        one.delivery.ack()
        self.waiting.popleft()
        if self._shelf.recalled:
            self._shelf.recalled -= 1
        if self._patience.tries:
            self._patience.end()
        self.settled(one.delivery)
        log.info(
            "message_settled",
            actor=str(self.address),
            type=one.type,
            seq=one.delivery.seq,
            outcome=one.outcome,
        )
