"""A small world in memory: a desk, its agents, and sessions that keep to the order of modes.

Each message is one turn and one commit, as the runtime has it; only the order is the test's.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from actors.desk import Desk
from actors.desk_options import DeskOptions
from actors.human_agent import HumanAgent, HumanAgentOptions
from runtime.actor import Actor, handler
from runtime.errors import Reject
from runtime.record import encode_state
from runtime.turn import Effects, Turn
from schemas.base import Address, Message, tag_of
from schemas.deployment import Deployment
from schemas.desk import AgentState, Attend, DeskState, Seen, SendMail
from schemas.envelope import Envelope, decode_any, encode, seal
from schemas.ownership import (
    Assignee,
    Cancel,
    Case,
    CaseMoved,
    CloseForNow,
    Customer,
    Escalate,
    Escalation,
    Held,
    Hold,
    MailSettled,
    OfferCase,
    Release,
    Requeue,
    ReturnToBot,
    TakeOver,
    Transfer,
)
from schemas.record import RunFailed

TEAM = "support"
DESK = Address("desk", TEAM)
START = datetime(2026, 11, 18, 10, 0, tzinfo=UTC)  # a Wednesday


class PlainState(msgspec.Struct, kw_only=True, omit_defaults=True):
    hold: Hold = msgspec.field(default_factory=Hold)
    closings: list[CloseForNow] = []
    letters: list[MailSettled] = []
    notices: int = 0


class PlainSession(Actor):
    """Who may speak, and nothing else: what a desk needs of a session."""

    state: PlainState

    @handler
    def escalate(self, message: Escalate, ctx: Turn) -> Held:
        hold = self.state.hold
        if hold.mode == "bot_active":
            hold.pending_since, hold.escalations = ctx.now, hold.escalations + 1
            hold.escalation = Escalation(reason="manual", severity=message.severity)
            hold.customer = message.customer or hold.customer
            self._move("pending_manual", None, ctx)
        return Held(case=self._case(ctx))

    @handler
    def take_over(self, message: TakeOver, ctx: Turn) -> Held:
        hold = self.state.hold
        if hold.mode == "manual_live":
            raise Reject("ALREADY_TAKEN", str(hold.assignee))
        offered = hold.assignee.id if hold.assignee else message.agent.id
        if offered != message.agent.id and not message.force:
            raise Reject("ASSIGNED_TO_OTHER", str(hold.assignee))
        self._move("manual_live", message.agent, ctx)
        return Held(case=self._case(ctx))

    @handler
    def release(self, message: Release, ctx: Turn) -> Held:
        return self._end(ctx)

    @handler
    def cancel(self, message: Cancel, ctx: Turn) -> Held:
        return self._end(ctx)

    def _end(self, ctx: Turn) -> Held:
        self._move("bot_active", None, ctx)
        return Held(case=self._case(ctx))

    @handler
    def transfer(self, message: Transfer, ctx: Turn) -> Held:
        if self.state.hold.mode != "manual_live":
            raise Reject("INVALID_STATUS")
        self._move("manual_live", message.to, ctx)
        return Held(case=self._case(ctx))

    @handler
    def offer(self, message: OfferCase, ctx: Turn) -> None:
        if self._is_current(message.epoch) and self.state.hold.mode == "pending_manual":
            self._move("pending_manual", message.agent, ctx)

    @handler
    def close(self, message: CloseForNow, ctx: Turn) -> None:
        if self._is_current(message.epoch):
            self.state.closings.append(message)
            self.state.hold.closed_until = message.until

    @handler
    def give_up(self, message: ReturnToBot, ctx: Turn) -> None:
        if self._is_current(message.epoch) and self.state.hold.mode == "pending_manual":
            self._move("bot_active", None, ctx)

    @handler
    def requeue(self, message: Requeue, ctx: Turn) -> None:
        if self._is_current(message.epoch) and self.state.hold.mode == "manual_live":
            self.state.notices += 1
            self.state.hold.pending_since = ctx.now
            self._move("pending_manual", None, ctx)

    @handler
    def settle(self, message: MailSettled, ctx: Turn) -> None:
        self.state.letters.append(message)

    def _is_current(self, epoch: int) -> bool:
        return epoch == self.state.hold.epoch

    def _move(self, mode: Any, assignee: Assignee | None, ctx: Turn) -> None:
        hold = self.state.hold
        was, hold.mode, hold.assignee = hold.assignee, mode, assignee
        hold.epoch += 1
        told = CaseMoved(case=self._case(ctx))
        ctx.tell(DESK, told)
        for one in {each.id for each in (was, assignee) if each is not None}:
            ctx.tell(Address("human_agent", one), told)

    def _case(self, ctx: Turn) -> Case:
        hold = self.state.hold
        return Case(
            session=ctx.key,
            mode=hold.mode,
            epoch=hold.epoch,
            team=TEAM,
            assignee=hold.assignee,
            escalation=hold.escalation,
            escalations=hold.escalations,
            customer=hold.customer,
            closed_until=hold.closed_until,
            pending_since=hold.pending_since,
        )


CLASSES: dict[str, Any] = {"session": PlainSession, "desk": Desk, "human_agent": HumanAgent}


@dataclass
class Instance:
    """What is stored of one instance, and the mail that it has not seen."""

    state: bytes = b""
    timers: Any = field(default_factory=dict)
    mail: deque[tuple[int, bytes]] = field(default_factory=deque)


class World:
    """`jobs` are letters by their runs, `events` all that followers were told."""

    def __init__(self, options: DeskOptions | None = None, *, mailer: bool = False) -> None:
        self.now = START
        self.options: dict[str, Any] = {
            "session": None,
            "desk": options or DeskOptions(),
            "human_agent": HumanAgentOptions(),
        }
        self.deployed = {name: Deployment(name=name, type="x:Y", kind="keyed") for name in CLASSES}
        if mailer:
            self.deployed["mailer"] = Deployment(
                name="mailer", type="x:Y", kind="worker", handles=(tag_of(SendMail),)
            )
        self.instances: dict[Address, Instance] = defaultdict(Instance)
        self.jobs: dict[str, SendMail] = {}
        self.events: list[tuple[str, Any]] = []
        self.reminders: list[tuple[datetime, Address, bytes]] = []
        self._sequence = 0

    # -- what tests do ---------------------------------------------------------------------

    def say(self, to: Address, message: Message, **facts: Any) -> None:
        facts = {"id": f"m{self._next()}", "source": "test", "time": self.now, **facts}
        self._put(to, encode(seal(message, subject=to.key, **facts)))

    def ask(self, to: Address, message: Message) -> Any:
        """Say something, let everybody do what follows, and return the answer."""
        self.say(to, message)
        answer = None
        while self.instances[to].mail:
            answer = self.handle(to)
        self.settle()
        return answer

    def settle(self) -> None:
        """Let everybody handle what waits."""
        while waiting := self.waiting():
            self.handle(waiting[0])

    def waiting(self) -> list[Address]:
        return [address for address, one in self.instances.items() if one.mail]

    def handle(self, to: Address) -> Any:
        """One turn: the next message is applied, and what is sent is stored."""
        instance, cls = self.instances[to], CLASSES[to.actor]
        sequence, data = instance.mail.popleft()
        envelope = cls.decode_mail(data)
        effects = Effects(instance.timers)
        if envelope.reminder and not effects.come(envelope.reminder, envelope.generation):
            return None
        actor = cls(self.options[to.actor])
        actor.state = self.state(to)
        deployment = self.deployed[to.actor]
        turn = Turn(deployment, self.deployed, envelope, effects, sequence=sequence, now=self.now)
        try:
            answer = getattr(actor, cls.handlers[type(envelope.data)])(envelope.data, turn)
        except Reject as reject:
            return reject.refusal
        instance.state, instance.timers = bytes(encode_state(actor.state)), effects.timers
        self._store(to, effects)
        return answer

    def fail(self, run: str, reason: str) -> None:
        """A letter was given up."""
        self.jobs.pop(run)
        self.say(DESK, RunFailed(run=run, reason=reason, attempts=3), runid=run)
        self.settle()

    def wake(self, by: timedelta) -> None:
        """Let time go by; what was to be reminded of waits as mail."""
        self.now += by
        due = [one for one in self.reminders if one[0] <= self.now]
        self.reminders = [one for one in self.reminders if one[0] > self.now]
        for _, to, data in sorted(due, key=lambda one: one[0]):
            self._put(to, data)

    def advance(self, by: timedelta) -> None:
        """Let time go by from reminder to reminder, each handled when it comes."""
        until = self.now + by
        while (due := min((one[0] for one in self.reminders), default=until)) <= until:
            self.wake(max(due - self.now, timedelta()))
            self.settle()
            if due == until:
                return
        self.now = until

    # -- what tests look at ----------------------------------------------------------------

    def state(self, of: Address) -> Any:
        data = self.instances[of].state
        kind = CLASSES[of.actor].state_type
        return msgspec.json.decode(data, type=kind) if data else kind()

    @property
    def desk(self) -> DeskState:
        found = self.state(DESK)
        assert isinstance(found, DeskState)
        return found

    def held(self) -> dict[str, str]:
        """Who has which session, as far as the desk knows."""
        return {name: one.agent for name, one in self.desk.taken.items()}

    def leaving(self) -> dict[str, datetime]:
        """What goes back to the queue because its agent has gone, and when."""
        return {name: one.due for name, one in self.desk.taken.items() if one.due is not None}

    def hold(self, session: str) -> Hold:
        found = self.state(Address("session", session)).hold
        assert isinstance(found, Hold)
        return found

    def agent(self, name: str) -> AgentState:
        found = self.state(Address("human_agent", name))
        assert isinstance(found, AgentState)
        return found

    def holder(self, session: str) -> str:
        """Who has a session, or is offered it."""
        assignee = self.hold(session).assignee
        return "" if assignee is None else assignee.id

    def told(self, kind: type[Any]) -> list[Any]:
        return [
            msgspec.json.decode(data, type=kind) for tag, data in self.events if tag == tag_of(kind)
        ]

    # -- storing ---------------------------------------------------------------------------

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _put(self, to: Address, data: bytes) -> None:
        self.instances[to].mail.append((self._next(), data))

    def _store(self, sender: Address, effects: Effects) -> None:
        for message in effects.sent:
            kind, *rest = message.subject.split(".")
            if kind == "mail":
                self._put(Address(rest[0], rest[1]), message.data)
            elif kind == "work":
                job = msgspec.json.decode(message.data, type=Envelope[SendMail])
                self.jobs[job.runid] = job.data
            elif kind == "event":
                envelope = decode_any(message.data)
                self.events.append((envelope.type, envelope.data))
        for message in effects.scheduled.values():
            due = decode_any(message.data).due
            assert due is not None
            self.reminders.append((due, sender, message.data))


def session(name: str) -> Address:
    return Address("session", name)


def agent(name: str) -> Address:
    return Address("human_agent", name)


def person(name: str) -> Assignee:
    return Assignee(name, name.title())


def attend(world: World, *names: str, **more: object) -> None:
    for name in names:
        facts = {"name": name.title(), "presence": "online", **more}
        world.ask(agent(name), Attend(**facts))  # type: ignore[arg-type]  # as the test says


def call(world: World, *names: str, **facts: object) -> None:
    for name in names:
        world.ask(session(name), Escalate(customer=Customer(**facts)))  # type: ignore[arg-type]  # as the test says


def keep_seen(world: World, *names: str, during: timedelta) -> None:
    """Let time go by while agents have their screens open."""
    until = world.now + during
    while world.now < until:
        world.advance(min(timedelta(seconds=10), until - world.now))
        for name in names:
            world.ask(agent(name), Seen())
