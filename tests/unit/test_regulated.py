"""What a session does when a rule fires: it keeps the message, calls a person, asks no model."""

from datetime import timedelta
from typing import Any, ClassVar

import msgspec
import pytest

from actors.session_options import SessionOptions
from schemas.base import Address, tag_of
from schemas.conversation import (
    BatchBegan,
    BatchFinished,
    BatchOpened,
    MessageSaid,
    Policy,
    StartBatch,
    TaskEnded,
    TaskFinished,
    TaskStopped,
)
from schemas.envelope import decode_any
from schemas.model import Generate, Generated
from schemas.ownership import (
    IN_MANUAL,
    Cancel,
    CaseChanged,
    Customer,
    ModeChanged,
    Release,
    SetCustomer,
    Transition,
)
from schemas.regulator import Rule, Ruleset
from tests.unit.deskside import SESSION, Desk
from tests.unit.gathered import MODELS, answer_of
from tests.unit.test_batches import DEADLINE, WEIGHTS, Walk
from tests.unit.test_conversing import opening, words

HUMAN = "我要转人工"


class Chat(Desk):
    """A customer of the team `support`."""

    def __init__(self, *rules: Rule) -> None:
        super().__init__()
        if rules:
            self.rule(Ruleset(rules=rules))

    def rule(self, ruleset: Ruleset) -> None:
        self.world.options["session"] = SessionOptions(regulator=ruleset)

    def say(self, text: str = "hello", *models: str, **rest: Any) -> Any:
        rest.setdefault("team", "support")
        return self.open(*models, said=words(text), **rest)

    def answer(self, text: str = "gladly", how: str = "answered") -> None:
        """Every model that is asked answers so."""
        for run in list(self.world.runs):
            end: Any = answer_of(self.world.runs[run].data, how)
            if isinstance(end, Generated):
                end = msgspec.structs.replace(end, excerpt=text)
            self.world.end(run, end)
        self.settle()

    def settle(self) -> None:
        while waiting := self.world.waiting():
            self.world.handle(waiting[0])

    def fail(self, times: int, how: str = "failed") -> None:
        for _ in range(times):
            self.say()
            self.answer(how=how)


@pytest.fixture
def chat() -> Chat:
    return Chat()


# -- what is said -----------------------------------------------------------------------------


@pytest.mark.promise("FD-40", "FD-42", "FD-69")
def test_what_calls_a_person_is_kept_and_no_model_is_asked(chat: Chat) -> None:
    opened = chat.say(HUMAN)
    (said,) = chat.told(MessageSaid, "history")
    (step,) = chat.told(Transition, "internal")

    assert isinstance(opened, BatchOpened)
    assert (opened.batch, opened.tasks, opened.mode) == ("", (), "pending_manual")
    assert opened.notice == "A person will be with you shortly."
    assert opened.escalation == step.escalation == chat.hold.escalation
    assert (step.escalation.rule, step.escalation.evidence) == ("keywords", HUMAN)
    assert step.escalation.at == chat.world.now
    assert len(step.escalation.version) == 12
    assert (said.batch, said.message) == ("", words(HUMAN))
    assert chat.told(MessageSaid, "conversation") == [said]
    assert chat.told(BatchBegan) == []
    assert chat.world.jobs == {}
    assert (len(chat.state.marks), chat.state.batches, chat.state.title) == (1, 0, HUMAN)
    assert chat.letters("desk") == [("support", "pending_manual", 1)]
    assert (chat.hold.last, chat.hold.last_by) == (HUMAN, "user")


def test_what_calls_a_person_ends_what_is_going_and_what_waits(chat: Chat) -> None:
    chat.say("one")
    chat.say("two", arriving="queue")
    chat.say(HUMAN)
    chat.settle()
    refused = chat.say("three")

    assert chat.world.runs == {}
    assert chat.state.queued == []
    assert [end.code for end in chat.told(TaskFinished)] == [IN_MANUAL] * 2
    assert (refused.code, refused.status) == (IN_MANUAL, 409)
    order = [type(one) for one, _ in chat.world.events]
    assert order.index(ModeChanged) > len(order) - order[::-1].index(MessageSaid) - 1
    assert order.index(ModeChanged) > order.index(TaskStopped)


def test_a_person_can_be_called_where_no_model_is_deployed(chat: Chat) -> None:
    assert chat.say(HUMAN, "nobody").mode == "pending_manual"


@pytest.mark.promise("FD-59")
def test_a_vip_is_called_a_person_for_as_soon_as_they_are_known(chat: Chat) -> None:
    before = chat.say("hello")
    chat.ask(SetCustomer(customer=Customer(vip=True)))
    known = chat.say("hello")
    other = Chat().say("hello", customer=Customer(vip=True))

    assert before.batch
    assert known.escalation.rule == other.escalation.rule == "vip"
    assert known.escalation.reason == "vip"


def test_without_a_team_no_rule_looks_and_batches_tell_nothing_more() -> None:
    chat = Chat()
    opened = chat.say(HUMAN, team="")
    for _ in range(4):
        chat.answer(how="failed")
        chat.say(HUMAN, team="")
    heard = [decode_any(one).type for one in chat.world.instances[SESSION].seen]

    assert opened.batch
    assert chat.hold.mode == "bot_active"
    assert tag_of(TaskEnded) not in heard
    assert tag_of(StartBatch) not in heard


def test_a_session_that_has_had_a_team_is_looked_after_from_then_on(chat: Chat) -> None:
    chat.say("hello")

    assert chat.say(HUMAN, team="").mode == "pending_manual"


def test_what_a_tool_answers_calls_nobody(chat: Chat) -> None:
    tool = msgspec.structs.replace(words(HUMAN), role="tool")

    assert chat.open(said=tool, team="support").batch
    assert chat.open(said=None, team="support").batch


def test_the_rules_are_those_of_the_deployment_at_that_moment(chat: Chat) -> None:
    chat.rule(Ruleset(version="v2", rules=(Rule(name="help", kind="words", words=("help",)),)))
    first, second = chat.say(HUMAN), chat.say("HELP!")

    assert first.batch
    assert (second.escalation.rule, second.escalation.version) == ("help", "v2")


# -- how answers end --------------------------------------------------------------------------


@pytest.mark.promise("FD-41", "FD-42", "FD-57", "FD-59")
@pytest.mark.parametrize("how", ["failed", "refused", "given_up"])
def test_failures_in_a_row_call_a_person_in_the_turn_that_counts_the_last(
    chat: Chat, how: str
) -> None:
    chat.fail(2, how)
    before = chat.hold
    chat.fail(1, how)

    assert (before.mode, before.failures) == ("bot_active", 2)
    assert (chat.hold.mode, chat.hold.failures) == ("pending_manual", 3)
    assert chat.hold.escalation is not None
    assert (chat.hold.escalation.reason, chat.hold.escalation.rule) == ("fail_loop", "failures")
    assert chat.told(TaskStopped) == []
    assert len(chat.told(BatchFinished)) == 3
    assert chat.state.live == {}


@pytest.mark.promise("FD-41", "FD-59")
def test_answers_that_say_they_cannot_help_count_and_a_good_one_begins_anew(chat: Chat) -> None:
    for text in ("很抱歉", "无法回答", "Here you are", "不清楚", "抱歉"):
        chat.say()
        chat.answer(text)
    before = chat.hold.failures
    chat.say()
    chat.answer("不能确定，也许吧")

    assert before == 2
    assert chat.hold.escalation is not None
    assert chat.hold.escalation.evidence == "不能确定，也许吧"


def test_what_is_aborted_or_superseded_is_neither_a_failure_nor_a_success(chat: Chat) -> None:
    chat.fail(1)
    chat.say()
    chat.say(arriving="interrupt")
    chat.settle()
    chat.say("both", "one", "two", policy=Policy(kind="first"), arriving="interrupt")
    chat.settle()

    assert chat.hold.failures == 1


def test_the_count_begins_anew_once_a_person_has_had_it(chat: Chat) -> None:
    chat.fail(3)
    chat.take()
    chat.ask(Release(agent="ann"))

    assert (chat.hold.mode, chat.hold.failures, chat.hold.escalations) == ("bot_active", 0, 1)


def test_what_ends_late_while_a_person_has_it_is_not_counted(chat: Chat) -> None:
    chat.fail(2)
    chat.say(HUMAN)
    chat.ask(TaskEnded(batch="b", task="b-1", outcome="failed"))

    assert chat.hold.failures == 2
    assert chat.hold.escalation is not None
    assert chat.hold.escalation.rule == "keywords"


def test_colleagues_see_what_the_bot_answered_last(chat: Chat) -> None:
    chat.say()
    chat.answer("Here you are.")

    assert (chat.hold.last, chat.hold.last_by) == ("Here you are.", "assistant")
    assert chat.told(CaseChanged, "desk")[-1].case.last == "Here you are."


def test_a_batch_that_waits_does_not_begin_once_a_person_is_called(chat: Chat) -> None:
    chat.fail(2)
    chat.say()
    waiting = chat.say("later", arriving="queue")
    chat.answer(how="failed")

    assert chat.hold.mode == "pending_manual"
    assert chat.world.runs == {}
    state = chat.world.state(Address("batch", waiting.batch))
    assert state.status == "FAILED"
    assert len([job for job in chat.world.jobs.values() if isinstance(job, Generate)]) == 3


# -- when rules fail --------------------------------------------------------------------------


@pytest.mark.promise("FD-36", "FD-38")
def test_a_rule_that_raises_is_logged_and_chat_goes_on() -> None:
    broken = Rule(name="broken", kind="words", words=("x",))
    chat = Chat(broken)
    msgspec.structs.force_setattr(broken, "patterns", ("(",))
    opened = chat.say(HUMAN)
    chat.answer(how="failed")
    chat.fail(3)

    assert opened.batch
    assert len(chat.told(BatchFinished)) == 4
    assert chat.hold.mode == "bot_active"


# -- whatever comes ---------------------------------------------------------------------------


class RuledWalk(Walk):
    """A customer who may ask for a person at any time, answers that may fail, and calls that are
    taken back, while all else happens as it may."""

    weights: ClassVar[dict[str, float]] = {**WEIGHTS, "open": 5, "end": 10, "cancel": 1}

    def _open(self) -> None:
        pick = self.random.choice
        text = pick([HUMAN, *["hello"] * 5])
        request = opening(
            *self.random.choices(MODELS, k=pick([1, 2])),
            said=words(text),
            team="support",
            deadline=DEADLINE,
            arriving=pick(["parallel", "queue", "interrupt"]),
        )
        answer = self.world.ask(SESSION, request)
        if not isinstance(answer, BatchOpened):
            assert answer.code in ("model_not_found", "queue_full", IN_MANUAL)
        elif answer.batch:
            assert text != HUMAN
            self.batches.append(answer)
        else:
            assert (text, self.world.runs) == (HUMAN, {})

    def _cancel(self) -> None:
        if self.batches:
            self.world.ask(SESSION, Cancel())

    def check(self) -> None:
        super().check()
        state = self.world.state(SESSION)
        assert state.hold.mode == "bot_active" or not (self.world.runs or state.queued)
        assert state.hold.failures < 3 or state.hold.mode != "bot_active"
        steps = [(one.was, one.mode) for one in self.world.told(ModeChanged)]
        assert all(step in (("bot_active", "pending_manual"), *BACK) for step in steps)

    def end(self) -> None:
        self._let_pass(timedelta(seconds=DEADLINE))
        self.world.ask(SESSION, Cancel())
        super().end()


BACK = (("pending_manual", "manual_live"), ("manual_live", "bot_active"))


@pytest.mark.parametrize("part", range(3))
@pytest.mark.promise("FD-27", "FD-69")
def test_once_a_rule_has_called_a_person_no_model_speaks_whatever_comes(part: int) -> None:
    for seed in range(part * 100, (part + 1) * 100):
        try:
            RuledWalk(seed).go()
        except AssertionError as wrong:
            wrong.add_note(f"seed {seed}")
            raise
