"""Asking a keyed actor and getting its answer, even if it is lost on the way.

For the edge and for tests: a handler never asks.
"""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import msgspec

from runtime.bus import Bus, PubAck, expiry, new_id
from runtime.crash import crash_at
from runtime.errors import AskTimeout, BusFault, Refused, Unavailable, Unknown
from runtime.packet import Packet
from schemas import subjects
from schemas.base import Address, Message, Request, reply_type, token
from schemas.envelope import encode, seal
from schemas.record import Answer, Record, Refusal

Reply = TypeVar("Reply", bound=Message)

MAIL_TTL = timedelta(hours=24)
LOOK_AFTER = 0.5
STORED_WITHIN = 1.0
SAY_AGAIN_AFTER = 0.1
MOST_WAITING = 1000
"""Requests of one process that may wait for one address at the same time."""

REUSED = Refusal(
    code="idempotency_key_reuse",
    detail="the same Idempotency-Key came with another body before; use a new key",
    status=422,
)

_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_record = msgspec.json.Decoder(Record).decode


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a request came from: whose it is, under which id it is repeated, what it said.

    The same `id` again is the same request; with another `bodyhash` it is refused.
    """

    id: str = ""
    principal: str = ""
    bodyhash: str = ""
    traceparent: str = ""


async def ask(
    bus: Bus,
    to: Address,
    request: Request[Reply],
    *,
    timeout: float,
    origin: Origin | None = None,
    patience: float = math.inf,
) -> Reply:
    """Send a request and return its answer; `timeout` is in seconds.

    A connection that is lost is waited for within `timeout`, and no longer than `patience`
    seconds at a time. Raises Refused with the actor's reason, AskTimeout if it is stored but not
    answered yet (ask again under the same id), Unavailable if it was not stored, Unknown if it
    perhaps was.
    """
    question = _Question(bus, to, request, origin or Origin(), patience)
    with _counted(to):
        return await _answer(question, to, request, timeout)


_waiting: Counter[Address] = Counter()


@contextlib.contextmanager
def _counted(to: Address) -> Iterator[None]:
    """Refuse what would only wait behind very many others for the same address."""
    if _waiting[to] >= MOST_WAITING:
        detail = f"{MOST_WAITING} requests wait for {to} already; try again in a moment"
        raise Refused(Refusal("too_many_waiting", detail, 429))
    _waiting[to] += 1
    try:
        yield
    finally:
        _waiting[to] -= 1
        if not _waiting[to]:
            del _waiting[to]


async def _answer(
    question: "_Question", to: Address, request: Request[Reply], timeout: float
) -> Reply:
    try:
        async with asyncio.timeout(timeout):
            answer = await question.ask()
    except TimeoutError:
        if question.stored is None:
            kind = Unknown if question.doubtful else Unavailable
            raise kind(f"{to}: could not be stored within {timeout:g} s") from None
        raise AskTimeout(f"{to} did not answer within {timeout:g} s") from None
    if answer.refusal is not None:
        raise Refused(answer.refusal)
    wanted = reply_type(type(request))
    if not answer.data or wanted is None:
        raise Refused(Refusal("no_answer", f"{to} answered without an answer", 500))
    return msgspec.json.decode(answer.data, type=wanted)  # type: ignore[return-value]  # is Reply


class _Question:
    """One request on its way, until it is answered."""

    def __init__(
        self, bus: Bus, to: Address, request: Request[Reply], origin: Origin, patience: float
    ) -> None:
        self.stored: PubAck | None = None
        self.doubtful: Unknown | None = None
        """Why it is not known whether it was stored, if it is not."""
        self._patience = patience
        self._bus = bus
        self._to = to
        self._request = request
        self._origin = origin
        self._id = origin.id or new_id()

    async def ask(self) -> Answer:
        """Store the request and wait: for the answer, or for the record that holds it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def hear(packet: Packet) -> None:
            if not future.done():
                future.set_result(_decode_answer(packet.data))

        inbox = self._bus.link.new_inbox()
        sid = self._bus.subscribe(inbox, hear)
        try:
            self.stored = ack = await self._store(inbox)
            crash_at("edge.published")
            look_after = 0.01 if ack.duplicate else LOOK_AFTER
            while True:
                done, _ = await asyncio.wait([future], timeout=look_after)
                if done:
                    return future.result()
                if found := await self._look(ack.seq):
                    return found
                look_after = min(look_after * 2, LOOK_AFTER)
        finally:
            self._bus.unsubscribe(sid)

    async def _store(self, inbox: str) -> PubAck:
        envelope = seal(
            self._request,
            id=self._id,
            source="edge",
            subject=self._to.key,
            replyto=inbox,
            principal=self._origin.principal,
            bodyhash=self._origin.bodyhash,
            traceparent=self._origin.traceparent,
        )
        headers = {"Nats-Msg-Id": self._id, **expiry(MAIL_TTL)}
        data, subject = encode(envelope), subjects.mail(self._to)
        while True:
            heard = self._bus.link.heard
            try:
                return await self._bus.publish(
                    subject, data, headers=headers, timeout=STORED_WITHIN
                )
            except (Unknown, Unavailable) as fault:
                if isinstance(fault, Unknown):
                    self.doubtful = fault
                # The same id again: if it was stored, it is not stored twice.
                await asyncio.sleep(SAY_AGAIN_AFTER)
                await self._wait_for_bus(self.doubtful or fault, heard)

    async def _wait_for_bus(self, fault: BusFault, heard: int) -> None:
        """Return once it makes sense to say it again; raises `fault` when patience ends."""
        link = self._bus.link
        if link.connected.is_set():
            # A connection hears itself twice a second: one that heard nothing since is dead.
            if link.heard == heard and math.isfinite(self._patience):
                raise fault
            return
        try:
            async with asyncio.timeout(self._patience if math.isfinite(self._patience) else None):
                await link.connected.wait()
        except TimeoutError:
            raise fault from None

    async def _look(self, sequence: int) -> Answer | None:
        """The answer as the actor's record keeps it, once it has got that far."""
        subject = subjects.state(self._to.actor, token(self._to.key))
        try:
            stored = await self._bus.last(subject)
        except (Unknown, Unavailable):
            return None
        if stored is None:
            return None
        try:
            record = _decode_record(stored.data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None  # its owner says so, and stands still; no message is at fault
        if record.done < sequence:
            return None
        for entry in reversed(record.replies):
            if entry.answer.id == self._id:
                reused = entry.bodyhash != self._origin.bodyhash
                return Answer(id=self._id, refusal=REUSED) if reused else entry.answer
        return Answer(id=self._id, refusal=FORGOTTEN)


FORGOTTEN = Refusal(
    code="answer_forgotten",
    detail="this was done before, and its answer is no longer kept",
    status=409,
)
