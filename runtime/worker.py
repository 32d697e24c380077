"""Does the jobs of one worker type on this host: a free slot first, then a pull.

How an attempt holds its run and speaks is in runtime/run.py.
"""

import asyncio
import contextlib
import time
from typing import Any

import msgspec
import structlog

from runtime.actor import Worker, read_options
from runtime.answers import clip
from runtime.crash import crash_at
from runtime.deadline import Deadline
from runtime.errors import BusFault, Reject, Retry
from runtime.fitness import check_result, find_unfit, retry_delay
from runtime.plain import PlainAttempt
from runtime.pull import ACK_WAIT, Delivery, SharedPull, ensure_consumer
from runtime.run import Attempt, Fenced
from runtime.system import System
from runtime.turn import MOST_REASON, dead_letter
from runtime.voice import listen
from runtime.work import Work
from runtime.workplace import Workplace
from schemas import subjects
from schemas.base import Message
from schemas.deployment import Deployment
from schemas.envelope import UNREADABLE, Envelope
from schemas.record import RunFailed

log = structlog.get_logger()

HEARTBEAT = ACK_WAIT / 3
LOOK_EVERY = 2.0
"""Seconds in which a job that says nothing is found to have been stopped."""
LONG_PULL = 5.0
LOW_FIRST_EVERY = 8
PAUSE = 0.05
SUSPECT = 2
"""Hosts that ended while they did a job, from which on it is done while no other such job is."""
CULPRIT = 3
"""The same, from which on it is not done any more; more often if it may be tried more often."""
NEXT_TURN = 1.0
PUT_OFF = "put_off"


async def create_work_consumers(system: System, name: str) -> None:
    """Create a worker type's durables, one per priority."""
    for priority in range(subjects.PRIORITIES):
        await ensure_consumer(
            system.bus,
            subjects.work_consumer(name, priority),
            filter_subject=subjects.all_work(name, priority),
        )


class Pool:
    """The slots of one worker type on this host, and the loop that fills them."""

    def __init__(
        self,
        deployment: Deployment,
        cls: type[Worker],
        system: System,
        *,
        after: "Pool | None" = None,
    ) -> None:
        """`after` is the pool that this one replaces, which may be finishing its jobs yet."""
        self.deployment = deployment
        self.system = system
        self.cls = cls
        self.worker = cls(read_options(cls, deployment.name, deployment.options))
        self.worker.workplace = Workplace(deployment, system.name, system.bus)
        self.running: dict[asyncio.Task[None], Delivery] = {}
        self._attempts: dict[asyncio.Task[None], Attempt] = {}
        self._deadline = Deadline(deployment.deadline.total_seconds())
        self._held: set[int] = set() if after is None else after._held
        self._freed = asyncio.Event()
        self._pulls: list[SharedPull] = []
        self._waits: list[SharedPull] = []
        self._rounds = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False

    @property
    def free(self) -> int:
        """Slots with nothing to do."""
        return self.deployment.concurrency - len(self.running)

    def in_hand(self) -> list[tuple[Delivery, str]]:
        """The jobs that are being done, each with its run."""
        return [(self.running[task], one.run) for task, one in self._attempts.items()]

    async def start(self) -> None:
        """Take jobs, from consumers that are there."""
        await self.worker.on_start()
        self._pulls, self._waits = self._make_pulls(), self._make_pulls()
        for loop in (self._fill(), self._keep(), self._look()):
            self._tasks.append(asyncio.create_task(self._guard(loop)))

    def _make_pulls(self) -> list[SharedPull]:
        return [
            SharedPull(self.system.bus, subjects.work_consumer(self.deployment.name, p), self._take)
            for p in range(subjects.PRIORITIES)
        ]

    async def stop(self, grace: float = 0.0) -> None:
        """Take nothing more; give running jobs `grace` seconds, then give them back."""
        await self._stop_pulling()
        if self.running and grace:
            await asyncio.wait(list(self.running), timeout=grace)
        for task in (*self._tasks, *self.running):
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await self.worker.on_stop()

    async def retire(self) -> None:
        """Take nothing more, and finish what is running, however long it takes."""
        await self._stop_pulling()
        while self.running:
            await asyncio.wait(list(self.running))
        await self.stop()

    async def _stop_pulling(self) -> None:
        """What the server has sent by now is given back; unheard, it would wait `ACK_WAIT`."""
        if self._draining:
            return
        self._draining = True
        for task in self._tasks[:1]:
            task.cancel()
        pulls = (*self._pulls, *self._waits)
        for pull in pulls:
            pull.mute()
        link = self.system.bus.link
        with contextlib.suppress(BusFault):  # nobody listens there, which is the answer
            await link.request(f"{link.new_inbox()}.over", b"", timeout=2.0)
        for pull in pulls:
            pull.stop()

    def lose(self) -> None:
        """The connection was lost: nothing that was asked for will come."""
        for pull in (*self._pulls, *self._waits):
            pull.lose()

    async def _guard(self, loop: Any) -> None:
        try:
            await loop
        except Exception as error:
            self.system.fail(error, self.deployment.name)

    # -- taking ----------------------------------------------------------------------------

    async def _fill(self) -> None:
        while True:
            await self.system.bus.link.connected.wait()
            if self.free <= 0:
                self._freed.clear()
                await self._freed.wait()
                continue
            if any(pull.gone for pull in (*self._pulls, *self._waits)):
                await self._recreate()
            elif not await self._take_what_waits():
                await self._wait_for_one()

    async def _take_what_waits(self) -> int:
        """Fill free slots from high to low; now and then from low, so that nothing starves."""
        self._rounds += 1
        order = self._pulls if self._rounds % LOW_FIRST_EVERY else self._pulls[::-1]
        got = 0
        for pull in order:
            if self.free <= 0:
                break
            got += await pull.request(self.free)
        return got

    async def _wait_for_one(self) -> None:
        """Wait until something comes at any level.

        The other levels' pulls stay outstanding; what they bring while no slot is free is
        given back at once.
        """
        began = time.monotonic()
        waits = [pull.request(1, wait=LONG_PULL) for pull in self._waits]
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not any(one.result() for one in done) and time.monotonic() - began < PAUSE:
            # Refused, or lost with the connection: not to be asked for again in a hurry.
            await asyncio.sleep(PAUSE)

    async def _recreate(self) -> None:
        try:
            await create_work_consumers(self.system, self.deployment.name)
            for pull in (*self._pulls, *self._waits):
                pull.gone = False
        except BusFault as fault:
            log.warning("consumer_not_created", actor=self.deployment.name, error=str(fault))
            await asyncio.sleep(0.5)

    def _take(self, delivery: Delivery) -> None:
        if delivery.seq in self._held:
            # A server that was killed forgets what it had delivered; the attempt goes on.
            return
        if self.free <= 0 or self._draining:
            delivery.nak(0)
            return
        task = asyncio.create_task(self._do(delivery))
        self.running[task] = delivery
        self._held.add(delivery.seq)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._held.discard(self.running.pop(task).seq)
        self._attempts.pop(task, None)
        self._freed.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("job_lost_its_way", actor=self.deployment.name, exc_info=error)

    async def _keep(self) -> None:
        """Say for every running job that it is still being done."""
        while True:
            await asyncio.sleep(HEARTBEAT)
            for delivery in self.running.values():
                delivery.in_progress()

    async def _look(self) -> None:
        """End the jobs whose runs were stopped. Apart, for a slow server must not delay `_keep`."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await asyncio.gather(*(self._check(*one) for one in list(self._attempts.items())))

    async def _check(self, task: asyncio.Task[None], attempt: Attempt) -> None:
        with contextlib.suppress(BusFault):
            attempt.lost = not await attempt.holds() and task.cancel()

    # -- doing -----------------------------------------------------------------------------

    async def _do(self, delivery: Delivery) -> None:
        try:
            envelope = self.cls.decode_job(delivery.packet.data)
        except UNREADABLE as error:
            await self._bury_unread(delivery, f"unreadable: {clip(error, 500)}")
            return
        if reason := find_unfit(envelope):
            await self._bury_unread(delivery, reason)
            return
        make = Attempt if envelope.runid else PlainAttempt
        attempt = make(self.system, self.deployment, envelope, delivery)
        try:
            outcome = await self._hold(attempt)
        except Fenced as fenced:
            outcome = f"dropped: {fenced}"
            # Somebody else may hold the run, and may die too: only its end settles the job.
            if await attempt.is_over():
                delivery.ack()
        except BusFault as fault:
            log.debug("attempt_not_opened", run=attempt.run, error=str(fault))
            delivery.nak(0.1)
            return
        except Exception as error:
            await self._abandon(attempt, error)
            return
        crash_at("job.done")
        if outcome == PUT_OFF:
            return
        log.info(
            "job_settled",
            actor=str(attempt.address),
            type=envelope.type,
            run=attempt.run,
            attempt=attempt.number,
            outcome=outcome,
        )

    async def _abandon(self, attempt: Attempt, error: Exception) -> None:
        """What goes wrong beside the handler: later again, and in the end a dead letter."""
        reason = f"{type(error).__name__}: {clip(error, 500)}"
        log.error("attempt_broken", run=attempt.run, error=reason, exc_info=error)
        if attempt.delivery.tries > self.deployment.attempts:
            await self._bury_unread(attempt.delivery, reason)
        else:
            attempt.delivery.nak(retry_delay(error, attempt.delivery.tries))

    async def _hold(self, attempt: Attempt) -> str:
        """Do the job, unless it is stopped meanwhile or this host is stopping."""
        task = asyncio.current_task()
        assert task is not None
        try:
            await attempt.open()
            self._attempts[task] = attempt
            return await self._try(attempt)
        except asyncio.CancelledError:
            if attempt.lost:
                raise Fenced("the run was stopped") from None
            await attempt.give_back()
            attempt.delivery.nak(0)
            raise

    async def _try(self, attempt: Attempt) -> str:
        """Do what has ended hosts before while no other such job is done, so that one is found."""
        if attempt.crashes >= max(CULPRIT, self.deployment.attempts):
            reason = f"{attempt.crashes} hosts ended while they did it"
            return await self._give_up(attempt, reason, attempt.crashes)
        if attempt.crashes < SUSPECT:
            return await self._run(attempt)
        if self.system.suspect:
            attempt.delivery.nak(NEXT_TURN)
            return PUT_OFF
        self.system.suspect = attempt.run
        try:
            return await self._run(attempt)
        finally:
            if self.system.suspect == attempt.run:
                self.system.suspect = ""

    async def _run(self, attempt: Attempt) -> str:
        job = attempt.envelope
        if job.expires is not None and self.system.clock.now() >= job.expires:
            return await self._give_up(attempt, "its deadline passed before it was done")
        method = getattr(self.worker, self.cls.handlers[type(job.data)])
        if attempt.delivery.tries > 1 or type(job.data) in self.cls.speaking:
            await attempt.claim()
            crash_at("job.claimed")
        work = Work(attempt)
        try:
            result = await self._deadline.keep(self._call(method, attempt, work))
        except Reject as reject:
            return await self._give_up(attempt, str(reject))
        except Fenced:
            raise
        except (Exception, SystemExit) as error:
            return await self._fail(attempt, error)
        await attempt.finish(result, *work.emitted)
        attempt.delivery.ack()
        return "done"

    async def _call(self, method: Any, attempt: Attempt, work: Work) -> Message:
        job = attempt.envelope.data
        if type(job) in self.cls.speaking:
            result = await listen(method(job, work), attempt)
        else:
            result = await method(job, work)
        return check_result(result, method, beside=work.size)

    async def _fail(self, attempt: Attempt, error: Exception | SystemExit) -> str:
        """One attempt went wrong: remember it, and try again later, or give up."""
        reason = clip(error, MOST_REASON) or type(error).__name__
        if isinstance(error, TimeoutError) and not str(error):
            reason = f"no result within {self.deployment.deadline}"
        attempt.failures += 1
        if attempt.failures >= self.deployment.attempts:
            return await self._give_up(attempt, reason)
        await attempt.release(reason)
        delay = retry_delay(error, attempt.number)
        log.warning(
            "attempt_failed",
            actor=str(attempt.address),
            run=attempt.run,
            attempt=attempt.number,
            retry_in=round(delay, 2),
            error=reason,
            exc_info=None if isinstance(error, Retry) else error,
        )
        attempt.delivery.nak(delay)
        return "failed"

    async def _give_up(self, attempt: Attempt, reason: str, tries: int = 0) -> str:
        """The result is a failure, and the job a dead letter; both in one commit."""
        packet, key = attempt.delivery.packet, subjects.key_token(attempt.delivery.packet.subject)
        tries = tries or min(attempt.number, self.deployment.attempts)
        letter = dead_letter(self.deployment.name, key, packet, attempt.delivery.seq, reason, tries)
        failed = RunFailed(run=attempt.run, reason=clip(reason, MOST_REASON), attempts=tries)
        await attempt.finish(failed, letter)
        attempt.delivery.ack()
        return "given_up"

    async def _bury_unread(self, delivery: Delivery, reason: str) -> None:
        """A job nobody can read has no run to speak for it: it only becomes a dead letter."""
        key = subjects.key_token(delivery.packet.subject)
        letter = dead_letter(
            self.deployment.name, key, delivery.packet, delivery.seq, reason, delivery.tries
        )
        try:
            run = msgspec.json.decode(delivery.packet.data, type=Envelope[msgspec.Raw]).runid
        except UNREADABLE:
            run = ""
        try:
            await self.system.committer.submit([letter], letter.subject)
        except BusFault:
            delivery.nak(1)
            return
        delivery.ack()
        log.error("job_unreadable", actor=self.deployment.name, run=run, reason=reason)
