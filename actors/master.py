"""Keeps a task from the moment it is sent until it is done: who has it, and what came of it.

pending → processing (a remote child holds it) → completed | failed; back to pending when its
holder gives it back or is not heard of. The first end wins, whoever brings it.
"""

from datetime import timedelta
from typing import ClassVar

import msgspec

from actors.ending import (
    Ending,
    are_equal,
    as_said,
    check_children,
    check_lease,
    ended,
    first_end,
    is_repeat,
)
from actors.limits import check_name, check_order, check_result, clip
from runtime.actor import Actor, handler
from runtime.config import duration
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.base import Address
from schemas.record import RunFailed
from schemas.relay import (
    FINAL,
    LOG,
    Accepted,
    Acknowledge,
    CallBack,
    Clear,
    Cleared,
    Execute,
    Executed,
    Extend,
    GiveBack,
    Lease,
    Leased,
    LeaseEnded,
    Logged,
    MasterState,
    Order,
    Send,
    Sent,
    Take,
    Task,
    TaskCreated,
    TaskOverdue,
    TaskProcessing,
    TaskReturned,
    task_topic,
)

SHORTEST_LEASE = 1.0
LONGEST_LEASE = 3600.0
MOST_ACKS = 20

LEASE = "lease"
DEADLINE = "deadline"


class MasterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`attempts` is how often a remote child may take one task; `deadline` ends any task."""

    attempts: int = 3
    deadline: str = "24h"

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts = {self.attempts!r}: expected 1 or more")
        duration(self.deadline)


class Master(Actor):
    """Hands one task to a child, and takes what comes back. Its key is the task's id."""

    Options: ClassVar[type[msgspec.Struct] | None] = MasterOptions

    state: MasterState
    options: MasterOptions

    # -- sending ---------------------------------------------------------------------------

    @handler
    def send(self, message: Send, ctx: Turn) -> Sent:
        """Take a task, or pass on a message; a repeat of the same order is answered the same."""
        order, task_id = message.order, message.task_id
        check_order(order)
        if order.kind == "task":
            return self._send_task(order, task_id or "", ctx)
        check_name("task_id", task_id or "")
        line = Logged(event="send", at=ctx.now, task_id=task_id, order=order)
        ctx.emit(LOG, line)
        if task_id in self.state.tasks:
            ctx.emit(task_topic(task_id), line)
        return Sent(task_id=task_id)

    def _send_task(self, order: Order, task_id: str, ctx: Turn) -> Sent:
        if known := self.state.tasks.get(task_id):
            if not are_equal(known.order, order):
                raise Reject(
                    "task_exists",
                    f"task {clip(task_id, 80)!r} was sent before, with another order;"
                    " leave task_id out to get a new one",
                )
            return Sent(task_id=task_id)
        self._check_new(order, task_id, ctx)
        task = self.state.tasks[task_id] = Task(order=order, created=ctx.now)
        ctx.emit(task_topic(task_id), TaskCreated(task_id=task_id, order=order))
        ctx.emit(LOG, Logged(event="send", at=ctx.now, task_id=task_id, order=order))
        self._start(task_id, task, ctx)
        ctx.remind(DEADLINE, TaskOverdue(task_id=task_id), after=duration(self.options.deadline))
        return Sent(task_id=task_id)

    def _check_new(self, order: Order, task_id: str, ctx: Turn) -> None:
        check_name("task_id", task_id)
        if not task_id or task_id != ctx.key:
            raise Reject(
                "bad_task_id",
                f"task {task_id!r} came to the master of {clip(ctx.key, 80)!r};"
                " a task goes to the master of its own id",
                status=400,
            )
        if not ctx.deployed(order.to, "worker", "remote"):
            raise Reject(
                "unknown_child",
                f"no child {order.to!r} is deployed; correct `to`, or deploy a child of that name",
                status=404,
            )

    def _start(self, task_id: str, task: Task, ctx: Turn) -> None:
        task.run = ctx.start(
            Address(task.order.to, task_id),
            Execute(task_id=task_id, order=task.order),
            priority=task.order.priority,
            topic=task_topic(task_id),
            expires=(task.created or ctx.now) + duration(self.options.deadline),
        )

    # -- what comes back -------------------------------------------------------------------

    @handler
    def take_result(self, message: Executed, ctx: Turn) -> None:
        """A child on a host has done the task, if it still had it."""
        if (task := self._running(message.task_id, ctx)) is None:
            return
        try:
            check_result(message.result)
        except Reject as unfit:
            self._fail(message.task_id, task, ctx, str(unfit), child_id=task.order.to)
            return
        ending = Ending(
            status="completed", word="done", child_id=task.order.to, result=message.result
        )
        self._end(message.task_id, task, ctx, ending)

    @handler
    def take_failure(self, message: RunFailed, ctx: Turn) -> None:
        """A child on a host could not do the task, if it still had it."""
        for task_id in self.state.tasks:
            if task := self._running(task_id, ctx):
                self._fail(task_id, task, ctx, message.reason, child_id=task.order.to)

    @handler
    def call_back(self, message: CallBack, ctx: Turn) -> Accepted:
        """End the task in its child's words, unless it has ended or somebody else holds it."""
        task_id, task = message.task_id, self._find(message.task_id)
        check_children(task, message.children)
        check_name("child_id", message.child_id)
        if task.status in FINAL:
            if is_repeat(task, message):
                return Accepted(task_status=task.status)
            raise Reject("already_final", first_end(task_id, task, message.may_read))
        check_lease(task_id, task, message)
        check_result(message.result)
        ctx.stop(task.run, "its child called back")
        self._end(task_id, task, ctx, as_said(message))
        return Accepted(task_status=task.status)

    @handler
    def give_up(self, message: TaskOverdue, ctx: Turn) -> None:
        """End a task that nobody has ended in all that time."""
        task = self.state.tasks.get(message.task_id)
        if task is None or task.status in FINAL:
            return
        ctx.stop(task.run, "its task is overdue")
        reason = f"not done within {self.options.deadline}"
        self._fail(message.task_id, task, ctx, reason)

    def _running(self, task_id: str, ctx: Turn) -> Task | None:
        """The task, if what came is of the job that is out for it."""
        task = self.state.tasks.get(task_id)
        if task is None or task.status in FINAL or task.run != ctx.envelope.runid:
            return None
        return task

    def _fail(
        self, task_id: str, task: Task, ctx: Turn, reason: str, *, child_id: str = ""
    ) -> None:
        ending = Ending(status="failed", word="failed", child_id=child_id, reason=clip(reason))
        self._end(task_id, task, ctx, ending)

    def _end(self, task_id: str, task: Task, ctx: Turn, end: Ending) -> None:
        """The one end of a task."""
        task.status, task.lease, task.finished = end.status, None, ctx.now
        task.child_id, task.result, task.reason = end.child_id, end.result, end.reason
        ctx.forget(LEASE)
        ctx.forget(DEADLINE)
        ctx.emit(task_topic(task_id), ended(task_id, end))
        line = Logged(
            event="callback",
            at=ctx.now,
            task_id=task_id,
            child_id=end.child_id,
            status=end.word,
            result=end.result,
            reason=end.reason,
        )
        ctx.emit(LOG, line)

    # -- remote children -------------------------------------------------------------------

    @handler
    def take(self, message: Take, ctx: Turn) -> Leased:
        """Lease the task to a remote child that came with the job that is out for it."""
        task_id, task = message.task_id, self._find(message.task_id)
        check_name("child_id", message.child_id)
        if not message.child_id:
            raise Reject("child_id_missing", "say who takes the task", status=400)
        if task.run != message.run or task.status != "pending" or task.lease:
            raise Reject(
                "not_available", f"task {task_id!r} is {task.status}, or this job for it is old"
            )
        task.status = "processing"
        lease = self._lease(task_id, task, message.child_id, ctx.new_id(), message.seconds, ctx)
        event = TaskProcessing(
            task_id=task_id,
            child_id=lease.child_id,
            attempt=task.attempts + 1,
            until=lease.until,
        )
        ctx.emit(task_topic(task_id), event)
        return _leased(task_id, task, lease)

    @handler
    def extend(self, message: Extend, ctx: Turn) -> Leased:
        """Let the lease last from now on for as long as is asked."""
        task_id, task = message.task_id, self._find(message.task_id)
        old = _current_lease(task_id, task, message.lease)
        lease = self._lease(task_id, task, old.child_id, old.id, message.seconds, ctx)
        return _leased(task_id, task, lease)

    @handler
    def give_back(self, message: GiveBack, ctx: Turn) -> Accepted:
        """Take the task back from its holder."""
        task_id, task = message.task_id, self._find(message.task_id)
        lease = _current_lease(task_id, task, message.lease)
        reason = clip(message.reason) or "its child gave it back"
        self._return(task_id, task, lease, reason, ctx)
        return Accepted(task_status=task.status)

    @handler
    def end_lease(self, message: LeaseEnded, ctx: Turn) -> None:
        """Take the task back from a holder that was not heard of."""
        task = self.state.tasks.get(message.task_id)
        if task is None or task.lease is None or task.lease.id != message.lease:
            return
        reason = f"its child was not heard of for {task.lease.seconds:g} s"
        self._return(message.task_id, task, task.lease, reason, ctx)

    def _lease(
        self, task_id: str, task: Task, child_id: str, lease_id: str, seconds: float, ctx: Turn
    ) -> Lease:
        seconds = min(max(seconds, SHORTEST_LEASE), LONGEST_LEASE)
        after = timedelta(seconds=seconds)
        lease = Lease(id=lease_id, child_id=child_id, until=ctx.now + after, seconds=seconds)
        task.lease = lease
        ctx.remind(LEASE, LeaseEnded(task_id=task_id, lease=lease_id), after=after)
        return lease

    def _return(self, task_id: str, task: Task, lease: Lease, reason: str, ctx: Turn) -> None:
        """To the next child, as a new job; or nobody's any more, after too many."""
        ctx.forget(LEASE)
        ctx.stop(task.run, reason)
        task.status, task.lease, task.attempts = "pending", None, task.attempts + 1
        returned = TaskReturned(task_id=task_id, child_id=lease.child_id, reason=reason)
        ctx.emit(task_topic(task_id), returned)
        if task.attempts >= self.options.attempts:
            reason = f"given up after {task.attempts} attempts: {reason}"
            self._fail(task_id, task, ctx, reason, child_id=lease.child_id)
        elif not ctx.deployed(task.order.to, "worker", "remote"):
            reason = f"no child {task.order.to!r} is deployed any more"
            self._fail(task_id, task, ctx, reason, child_id=lease.child_id)
        else:
            self._start(task_id, task, ctx)

    # -- the log ---------------------------------------------------------------------------

    @handler
    def acknowledge(self, message: Acknowledge, ctx: Turn) -> Accepted:
        """Note who has seen the task; the first MOST_ACKS are kept with it."""
        task_id, by, task = message.task_id, message.ack_by, self._find(message.task_id)
        check_children(task, message.children)
        check_name("ack_by", by)
        if by and by not in task.acked_by and len(task.acked_by) < MOST_ACKS:
            task.acked_by.append(by)
        ctx.emit(LOG, Logged(event="ack", at=ctx.now, task_id=task_id, by=by))
        return Accepted(task_status=task.status)

    @handler
    def clear(self, message: Clear, ctx: Turn) -> Cleared:
        """Mark the place in the log where reads of it begin."""
        check_name("by", message.by)
        ctx.emit(LOG, Logged(event="clear", at=ctx.now, by=message.by))
        return Cleared()

    def _find(self, task_id: str) -> Task:
        if task := self.state.tasks.get(task_id):
            return task
        raise Reject("task_not_found", f"there is no task {clip(task_id, 80)!r}", status=404)


def _current_lease(task_id: str, task: Task, lease_id: str) -> Lease:
    if task.lease is not None and task.lease.id == lease_id:
        return task.lease
    raise Reject(
        "lease_ended", f"task {task_id!r} is {task.status}, and this lease of it has ended"
    )


def _leased(task_id: str, task: Task, lease: Lease) -> Leased:
    return Leased(
        task_id=task_id,
        order=msgspec.structs.replace(task.order, payload=None, text=""),
        lease=lease.id,
        until=lease.until,
        attempt=task.attempts + 1,
    )
