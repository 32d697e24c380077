"""How a pulled job becomes a remote child's task: its master is asked for a lease first.

Until the lease is granted the job is only borrowed: whatever goes wrong, it is given back.
"""

import asyncio
import base64
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import structlog

from edge import shapes
from edge.asking import ANSWER_WITHIN
from runtime.ask import Origin, ask
from runtime.bus import Bus, expiry
from runtime.errors import AskTimeout, BusFault, Refused
from runtime.pull import Delivery
from schemas import subjects
from schemas.base import Address
from schemas.envelope import Envelope, encode, seal
from schemas.record import DeadLetter
from schemas.relay import MASTER, Execute, GiveBack, Leased, Take

log = structlog.get_logger("edge")

DEAD_TTL = timedelta(days=30)
GIVEN_BACK_FOR = 1.0
"""Seconds until a job comes again whose master could not be asked."""
NOT_OURS = frozenset({"not_available", "task_not_found"})

_decode = msgspec.json.Decoder(Envelope[Execute]).decode


@dataclass(frozen=True)
class Claim:
    """Who wants a task, for how long, and as whom they came."""

    child_id: str
    seconds: float
    principal: str
    traceparent: str = ""


async def lease(bus: Bus, delivery: Delivery, claim: Claim) -> shapes.LeasedTask | None:
    """Get the task of a job for a child; None if it is not to be had, and the job is settled.

    Raises as `runtime.ask.ask` does; the job comes again then.
    """
    try:
        job = _decode(delivery.packet.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        await _bury(bus, delivery, f"unreadable: {error}")
        return None
    try:
        leased = await _ask(bus, job, claim)
    except Refused as refused:
        if refused.refusal.code not in NOT_OURS:
            delivery.nak(GIVEN_BACK_FOR)
            raise
        # Another has it, or it has ended: this job for it is old.
        leased = None
    except (AskTimeout, BusFault, asyncio.CancelledError):
        # If it was granted all the same, its lease ends by itself, and a new job comes.
        delivery.nak(GIVEN_BACK_FOR)
        raise
    delivery.ack()
    return None if leased is None else _task(leased, job.data)


async def give_back(bus: Bus, task: shapes.LeasedTask, reason: str) -> None:
    """Let a task go that its child never got; if that fails its lease ends by itself."""
    message = GiveBack(task_id=task.task_id, lease=task.lease, reason=reason)
    try:
        await ask(bus, Address(MASTER, task.task_id), message, timeout=ANSWER_WITHIN)
    except (Refused, AskTimeout, BusFault) as fault:
        log.info("task_not_given_back", task=task.task_id, error=str(fault))


async def _ask(bus: Bus, job: Envelope[Execute], claim: Claim) -> Leased:
    message = Take(
        task_id=job.data.task_id,
        child_id=claim.child_id,
        run=job.runid,
        seconds=claim.seconds,
    )
    origin = Origin(principal=claim.principal, traceparent=claim.traceparent or job.traceparent)
    to = Address(MASTER, job.data.task_id)
    return await ask(bus, to, message, timeout=ANSWER_WITHIN, origin=origin)


def _task(leased: Leased, job: Execute) -> shapes.LeasedTask:
    return shapes.LeasedTask(
        task_id=leased.task_id,
        **shapes.order_fields(job.order),
        lease=leased.lease,
        until=leased.until,
        attempt=leased.attempt,
    )


async def _bury(bus: Bus, delivery: Delivery, reason: str) -> None:
    """Keep a job that nobody can read as a dead letter, and take it off the queue."""
    packet = delivery.packet
    _, actor, _, key = packet.subject.split(".")
    try:
        text, raw = packet.data.decode(), ""
    except UnicodeDecodeError:
        text, raw = "", base64.b64encode(packet.data).decode()
    letter = DeadLetter(
        subject=packet.subject,
        sequence=delivery.seq,
        reason=reason,
        attempts=delivery.tries,
        body=text,
        body_base64=raw,
    )
    sealed = seal(letter, id=f"{delivery.seq}.dead", source="edge", subject=key)
    try:
        await bus.publish(subjects.dead(actor, key), encode(sealed), headers=expiry(DEAD_TTL))
    except BusFault:
        delivery.nak(GIVEN_BACK_FOR)
        raise
    delivery.ack()
    log.error("job_unreadable", actor=actor, reason=reason)
