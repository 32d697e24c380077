"""Whatever people, desk, models and time do in whatever order: one may speak, and all agree who."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from actors.ownership import ORDER
from actors.session_options import SessionOptions
from schemas.base import Address, Message
from schemas.conversation import BatchOpened, OpenBatch, Wanted
from schemas.deployment import Deployment
from schemas.model import Prompt
from schemas.ownership import (
    AddNote,
    Assignee,
    AssigneeChanged,
    Cancel,
    CaseChanged,
    CaseMoved,
    CloseForNow,
    Customer,
    Escalate,
    Hold,
    MailSettled,
    Mode,
    ModeChanged,
    OfferCase,
    Release,
    Requeue,
    ReturnToBot,
    SayManual,
    SetCustomer,
    TakeOver,
    Transfer,
    Transition,
)
from schemas.record import Refusal
from schemas.regulator import Ruleset
from tests.unit.gathered import MODELS
from tests.unit.test_batches import DEADLINE, SESSION, WEIGHTS, WORDS, Walk

AGENTS = tuple(Assignee(id=name, name=name.title()) for name in ("ann", "bob", "cho"))
WALKS = 80
"""In each of the test's parts."""

Stand = tuple[Mode, Assignee | None]
"""Who may speak: the mode, and who has it or is offered it."""
BOT: Stand = ("bot_active", None)


def expected(now: Stand, epoch: int, message: Message) -> Stand | str:
    """What is to become of it, or the code that says no."""
    rule = RULES.get(type(message))
    return rule(now, epoch, message) if rule else now


def escalate(now: Stand, epoch: int, message: Escalate) -> Stand | str:
    if now[0] == "manual_live":
        return "MANUAL_IN_PROGRESS"
    return ("pending_manual", None) if now == BOT else now


def take(now: Stand, epoch: int, message: TakeOver) -> Stand | str:
    mode, assignee = now
    own = assignee is not None and assignee.id == message.agent.id
    if mode == "manual_live":
        return now if own else "ALREADY_TAKEN"
    if assignee and not own and not message.force:
        return "ASSIGNED_TO_OTHER"
    if message.epoch not in (0, epoch):
        return "STALE_EPOCH"
    return "manual_live", message.agent


def release(now: Stand, epoch: int, message: Release) -> Stand | str:
    return whose(now, message.agent, message.force) or BOT


def transfer(now: Stand, epoch: int, message: Transfer) -> Stand | str:
    if no := whose(now, message.agent, message.force):
        return no
    return "same_agent" if now[1] == message.to else ("manual_live", message.to)


def cancel(now: Stand, epoch: int, message: Cancel) -> Stand | str:
    return "MANUAL_IN_PROGRESS" if now[0] == "manual_live" else BOT


def offer(now: Stand, epoch: int, message: OfferCase) -> Stand | str:
    due = now[0] == "pending_manual" and message.epoch == epoch
    return ("pending_manual", message.agent) if due else now


def give_up(now: Stand, epoch: int, message: ReturnToBot) -> Stand | str:
    return BOT if now[0] == "pending_manual" and message.epoch == epoch else now


def requeue(now: Stand, epoch: int, message: Requeue) -> Stand | str:
    gone = now[0] == "manual_live" and message.epoch == epoch
    return ("pending_manual", None) if gone else now


def say(now: Stand, epoch: int, message: SayManual) -> Stand | str:
    if message.role == "agent":
        return whose(now, message.agent.id if message.agent else "", message.agent is None) or now
    return "INVALID_STATUS" if now == BOT else now


def ask_models(now: Stand, epoch: int, message: OpenBatch) -> Stand | str:
    return now if now == BOT else "MANUAL_IN_PROGRESS"


def whose(now: Stand, agent: str, force: bool) -> str:
    mode, assignee = now
    if mode != "manual_live" or assignee is None:
        return "INVALID_STATUS"
    return "" if assignee.id == agent or force else "NOT_YOURS"


RULES: dict[type[Message], Callable[[Stand, int, Any], Stand | str]] = {
    Escalate: escalate,
    TakeOver: take,
    Release: release,
    Transfer: transfer,
    Cancel: cancel,
    OfferCase: offer,
    ReturnToBot: give_up,
    Requeue: requeue,
    SayManual: say,
    OpenBatch: ask_models,
}


class Shift(Walk):
    """One conversation in which models answer and people come and go, in any order."""

    weights: ClassVar[dict[str, float]] = {
        **WEIGHTS,
        "handle": 8,
        "open": 2,
        "ask_something": 14,
        "tell_something": 8,
        "repeat_something": 2,
    }

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        # What rules may do of their own accord is walked through in test_regulated.py.
        self.world.options["session"] = SessionOptions(regulator=Ruleset(switched_off=True))
        self.said: list[Message] = []
        self._staff()
        self._open()

    @property
    def hold(self) -> Hold:
        found = self.world.state(SESSION).hold
        assert isinstance(found, Hold)
        return found

    # -- steps -----------------------------------------------------------------------------

    def _open(self) -> None:
        self._say(opening())

    def _ask_something(self) -> None:
        pick, some = self.random.choice, self.random.choice(AGENTS)
        epoch = pick([0, 0, 0, self.hold.epoch, self.hold.epoch - 1])
        force = pick([False, False, True])
        said: list[Message] = [
            Escalate(),
            Escalate(customer=pick([None, Customer(vip=pick([True, False]))])),
            TakeOver(agent=some, force=force, epoch=max(epoch, 0)),
            TakeOver(agent=some),
            Release(agent=some.id, force=force),
            Cancel(),
            Transfer(agent=some.id, to=pick(AGENTS), force=force, note=pick(["", "look"])),
            SayManual(content="hi", role="user"),
            SayManual(content="hi", agent=pick([None, some])),
            AddNote(content="hm", by=some),
            SetCustomer(customer=Customer(vip=pick([True, False]))),
        ]
        self._say(pick(said))

    def _tell_something(self) -> None:
        pick = self.random.choice
        epoch = pick([self.hold.epoch, self.hold.epoch, self.hold.epoch - 1])
        until = self.world.now + timedelta(hours=1)
        said: list[Message] = [
            OfferCase(epoch=epoch, agent=pick([None, *AGENTS])),
            OfferCase(epoch=self.hold.epoch, agent=pick(AGENTS)),
            OfferCase(epoch=self.hold.epoch, agent=pick(AGENTS)),
            CloseForNow(epoch=epoch, until=pick([None, until]), mailed=True),
            ReturnToBot(epoch=epoch),
            Requeue(epoch=epoch, reason="gone"),
            MailSettled(sent=True),
        ]
        self._say(pick(said))

    def _repeat_something(self) -> None:
        """As when what was said is redelivered, or an operator replays it."""
        if self.said:
            self._say(self.random.choice(self.said))

    def _deploy(self) -> None:
        """Models stay, so that every answer is known; who is there for people does not."""
        self._staff()

    def _staff(self) -> None:
        """Desk and agents are deployed, or are not."""
        for name in ("desk", "human_agent"):
            self.world.deployed.pop(name, None)
            if self.random.random() < 0.7:
                deployed = Deployment(name=name, type="x:Y", kind="keyed")
                self.world.deployed[name] = deployed

    def _say(self, message: Message) -> None:
        """Say it to the session, and see that it does as it should."""
        self._catch_up()
        hold = self.hold
        wanted = expected((hold.mode, hold.assignee), hold.epoch, message)
        before = len(self.world.facts), len(self.world.letters), hold
        answer = self.world.ask(SESSION, message)
        self.said = [*self.said, message][-20:]
        if isinstance(wanted, str):
            assert isinstance(answer, Refusal), (message, wanted, answer)
            assert (answer.code, self.hold) == (wanted, hold), (message, hold)
            assert len(self.world.facts) == before[0]
        else:
            assert (self.hold.mode, self.hold.assignee) == wanted, (message, hold)
            self._check_told(before)
        if isinstance(answer, BatchOpened):
            self.batches.append(answer)

    def _catch_up(self) -> None:
        """What came by itself is handled first, so that the answer is known."""
        while self.world.instances[SESSION].mail:
            self.world.handle(SESSION)

    # -- what holds ------------------------------------------------------------------------

    def _check_told(self, before: tuple[int, int, Hold]) -> None:
        """The desk, and whoever had or has it, were told of every change, and of nothing else."""
        facts, letters, hold = before
        if self.hold.epoch == hold.epoch:
            return
        boards = [one for where, one in self.world.facts[facts:] if where == "desk"]
        moved = [(to, one) for to, one in self.world.letters[letters:]]
        agents = {one.id for one in (hold.assignee, self.hold.assignee) if one}
        wanted = {Address("desk", "support")} | {Address("human_agent", one) for one in agents}

        assert [type(one) for one in boards] == [CaseChanged]
        assert boards[0].case.epoch == self.hold.epoch  # type: ignore[attr-defined]  # as said above
        assert len(moved) == len({to for to, _ in moved})
        assert {to for to, _ in moved} == {to for to in wanted if to.actor in self.world.deployed}
        assert all(isinstance(one, CaseMoved) and one.case == boards[0].case for _, one in moved)  # type: ignore[attr-defined]  # as said above

    def check(self) -> None:
        super().check()
        hold, session = self.hold, self.world.state(SESSION)
        self._check_steps(hold)
        if hold.mode != "bot_active":
            assert (session.live, self.world.runs) == ({}, {})
        assert (hold.assignee is not None) >= (hold.mode == "manual_live")
        assert hold.assignee is None or hold.mode != "bot_active"
        timers = set(self.world.instances[SESSION].timers)
        assert (
            timers
            <= {
                "bot_active": {"sweep"},
                "pending_manual": {"first"},
                "manual_live": {"reply", "idle"},
            }[hold.mode]
        )

    def _check_steps(self, hold: Hold) -> None:
        """Each change follows the one before it, and is on record once."""
        mode: Mode = "bot_active"
        told = (event for event, _ in self.world.events)
        steps = [one for one in told if isinstance(one, ModeChanged | AssigneeChanged)]
        for number, step in enumerate(steps, start=1):
            assert step.epoch == number
            if isinstance(step, ModeChanged):
                assert (step.was, step.mode) == (mode, ORDER[mode])
                mode = step.mode
            assert step.mode == mode
        assert (hold.mode, hold.epoch) == (mode, len(steps))
        kept = [one for _, one in self.world.facts if isinstance(one, Transition)]
        assert [one.epoch for one in kept if one.reason[:6] != "closed"] == list(
            range(1, len(steps) + 1)
        )

    def end(self) -> None:
        """Left alone, no person has it for ever; what waits for one waits on."""
        for _ in range(3):
            self._let_pass(timedelta(minutes=31))
        assert self.hold.mode != "manual_live"
        self._say(Cancel())
        super().end()


def opening() -> OpenBatch:
    tasks = tuple(Wanted(actors=MODELS[:2], model="m") for _ in range(2))
    return OpenBatch(tasks=tasks, prompt=Prompt(messages=(WORDS,)), said=WORDS, deadline=DEADLINE)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.promise("FD-26", "FD-27", "FD-28", "FD-69")
def test_whatever_happens_in_whatever_order_one_may_speak_and_all_agree_who(part: int) -> None:
    for seed in range(part * WALKS, (part + 1) * WALKS):
        try:
            Shift(seed).go()
        except AssertionError as wrong:
            wrong.add_note(f"seed {seed}")
            raise
