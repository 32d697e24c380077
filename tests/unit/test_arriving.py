"""What becomes of a message while a run is going, and that nothing of it is lost or said twice."""

from datetime import timedelta
from typing import Any, ClassVar

import pytest

from actors.arriving import INTERRUPTED, MOST_QUEUED
from actors.session_options import SessionOptions
from schemas.arriving import ArrivingSet, SetArriving
from schemas.base import Address
from schemas.conversation import (
    FINAL,
    Abort,
    BatchBegan,
    BatchFinished,
    BatchOpened,
    MessageSaid,
    OpenBatch,
    Policy,
    TaskFinished,
    TaskMoved,
    TaskStopped,
    Wanted,
)
from schemas.model import Prompt, Text, Utterance
from schemas.ownership import IN_MANUAL, Arriving, Assignee, Hold, Release, TakeOver
from tests.unit.gathered import MODELS, World, answer_of, deployments
from tests.unit.test_batches import DEADLINE, SESSION, WEIGHTS, Walk

POLICIES: tuple[Arriving | None, ...] = ("queue", "queue", "interrupt", "parallel", None)


def words(text: str) -> Utterance:
    return Utterance(role="user", content=(Text(text),))


class Desk:
    """One conversation, and short words for what comes and goes in it."""

    def __init__(self) -> None:
        self.world = World()

    def say(self, text: str, *models: str, arriving: Any = None, **rest: Any) -> Any:
        tasks = tuple(Wanted(actors=tuple(one.split()), model=one) for one in models or ("one",))
        rest = {"said": words(text), "prompt": Prompt(messages=(words(text),)), **rest}
        request = OpenBatch(tasks=tasks, arriving=arriving, **rest)
        answer = self.world.ask(SESSION, request)
        self.go_on()
        return answer

    def end(self, batch: BatchOpened, how: str = "answered") -> None:
        """Let all runs of a batch end."""
        for run, job in list(self.world.runs.items()):
            if job.data.batch == batch.batch:
                self.world.end(run, answer_of(job.data, how))
        self.go_on()

    def go_on(self) -> None:
        while waiting := self.world.waiting():
            self.world.handle(waiting[0])

    @property
    def speaking(self) -> list[str]:
        return [job.data.batch for job in self.world.runs.values()]

    @property
    def waiting(self) -> list[str]:
        return [one.batch for one in self.world.state(SESSION).queued]

    def batch(self, opened: BatchOpened) -> Any:
        return self.world.state(Address("batch", opened.batch))

    def how(self, opened: BatchOpened) -> list[tuple[str, str]]:
        """How the tasks of a batch ended."""
        ends = self.world.told(TaskFinished)
        return [(one.status, one.code) for one in ends if one.batch == opened.batch]


@pytest.fixture
def desk() -> Desk:
    return Desk()


# -- after it ---------------------------------------------------------------------------------


def test_what_arrives_may_be_answered_beside_what_is_going(desk: Desk) -> None:
    first, second = desk.say("a"), desk.say("b")

    assert desk.speaking == [first.batch, second.batch]
    assert second.queued == 0


def test_a_queued_batch_begins_once_all_before_it_is_over(desk: Desk) -> None:
    first = desk.say("a", "one", "two")
    second = desk.say("b", arriving="queue")
    third = desk.say("c", arriving="queue")
    waiting, pending = desk.waiting, desk.batch(second)
    desk.end(first)
    then = desk.speaking
    desk.end(second)
    desk.end(third)

    assert (second.queued, third.queued) == (1, 2)
    assert [task.run for task in (*second.tasks, *third.tasks)] == ["", ""]
    assert waiting == [second.batch, third.batch]
    assert (pending.status, [one.status for one in pending.tasks.values()]) == (
        "PENDING",
        ["PENDING"],
    )
    assert then == [second.batch]
    assert desk.how(second) == desk.how(third) == [("SUCCESS", "")]
    assert desk.waiting == desk.speaking == []


def test_followers_learn_which_run_answers_once_a_turn_has_come(desk: Desk) -> None:
    first = desk.say("a")
    second = desk.say("b", arriving="queue")
    desk.end(first)
    (moved,) = desk.world.told(TaskMoved)
    began = desk.world.told(BatchBegan)[1]

    assert [one.batch for one in desk.world.told(MessageSaid)] == [first.batch, second.batch]
    assert began.tasks == second.tasks
    assert (moved.batch, moved.task) == (second.batch, second.tasks[0].task)
    assert [moved.run] == list(desk.world.runs)


def test_what_waited_is_answered_with_the_answers_before_it_in_mind(desk: Desk) -> None:
    first = desk.say("a")
    second = desk.say("b", arriving="queue")
    asked = desk.world.state(SESSION).marks[-1]
    desk.end(first)
    context = list(desk.world.jobs.values())[1].context

    assert context is not None
    assert context.until > asked
    assert desk.batch(second).context == context


@pytest.mark.parametrize("how", ["failed", "refused", "given_up"])
def test_a_batch_that_fails_holds_up_nobody(desk: Desk, how: str) -> None:
    first = desk.say("a", "one two")
    second = desk.say("b", arriving="queue")
    desk.end(first, how)
    again = desk.speaking
    desk.end(first, how)

    assert again == [first.batch]
    assert desk.speaking == [second.batch]


def test_a_conversation_may_have_a_policy_of_its_own(desk: Desk) -> None:
    nobody = desk.world.ask(SESSION, SetArriving(arriving="queue"))
    desk.say("a")
    kept = desk.world.ask(SESSION, SetArriving(arriving="queue"))
    desk.say("b")
    desk.say("c", arriving="parallel")
    counts = len(desk.waiting), len(desk.speaking)
    desk.world.ask(SESSION, SetArriving())
    desk.say("d")

    assert (nobody.code, kept) == ("conversation_not_found", ArrivingSet(arriving="queue"))
    assert counts == (1, 2)
    assert (len(desk.waiting), len(desk.speaking)) == (1, 3)


def test_a_deployment_may_have_a_policy_for_all(desk: Desk) -> None:
    desk.world.options["session"] = SessionOptions(arriving="interrupt")
    desk.say("a")
    second = desk.say("b")

    assert desk.speaking == [second.batch]


def test_a_queue_is_bounded_by_number_and_by_bytes(desk: Desk) -> None:
    desk.say("a")
    for _ in range(MOST_QUEUED):
        assert isinstance(desk.say("b", arriving="queue"), BatchOpened)
    many = desk.say("b", arriving="queue")
    large = Desk()
    large.say("a")
    answers = [large.say("x" * 30_000, arriving="queue") for _ in range(3)]

    assert (many.code, many.status) == ("queue_full", 429)
    assert "16 requests wait here already, at most 16 may" in many.detail
    assert [getattr(one, "code", "") for one in answers] == ["", "", "queue_full"]
    assert len(large.world.told(MessageSaid)) == 3


def test_what_waits_has_room_beside_what_is_going(desk: Desk) -> None:
    wide = (Wanted(actors=("one",), model="中" * 200),) * 16
    prompt = Prompt(messages=(Utterance(role="user", content=(Text("hi"),)),))
    for _ in range(7):
        desk.world.ask(SESSION, OpenBatch(tasks=wide, prompt=prompt))
    answers = [desk.say("x" * 30_000, arriving="queue") for _ in range(2)]

    assert [one.code for one in answers] == ["queue_full"] * 2


def test_a_deadline_counts_from_the_arrival_of_what_waits(desk: Desk) -> None:
    first = desk.say("a", deadline=900)
    second = desk.say("b", arriving="queue", deadline=60)
    third = desk.say("c", arriving="queue", deadline=600)
    desk.world.advance(timedelta(seconds=60))
    desk.go_on()
    waiting = desk.waiting
    desk.world.advance(timedelta(seconds=100))
    desk.end(first)
    (run,) = desk.world.runs.values()
    left = run.expires - desk.world.now if run.expires else None

    assert desk.how(second) == [("FAILED", "deadline")]
    assert waiting == [third.batch]
    assert left == timedelta(seconds=440)


@pytest.mark.parametrize("what", ["batch", "task", "all"])
def test_what_waits_is_aborted_like_anything_else(desk: Desk, what: str) -> None:
    first = desk.say("a")
    second = desk.say("b", "one", "two", arriving="queue")
    one, two = (task.task for task in second.tasks)
    named = {"batch": {"batch": second.batch}, "task": {"task": one}, "all": {}}[what]
    aborted = desk.world.ask(SESSION, Abort(reason="enough", **named))
    desk.go_on()
    desk.end(first)

    assert aborted.tasks == ((one,) if what == "task" else (one, two))
    assert len(aborted.runs) == (what == "all")
    stopped = [event.task for event in desk.world.told(TaskStopped) if event.run == ""]
    assert stopped == list(aborted.tasks)
    assert desk.how(second) == [("FAILED", "aborted")] * len(aborted.tasks)
    assert desk.speaking == ([second.batch] if what == "task" else [])


def test_a_model_that_is_gone_when_its_turn_comes_fails_its_task_alone(desk: Desk) -> None:
    first = desk.say("a")
    second = desk.say("b", "two three", "two", "three two", arriving="queue")
    third = desk.say("c", "four", arriving="queue")
    desk.world.deployed = deployments("one", "three")
    desk.end(first)
    actors = [job.subject for job in desk.world.runs.values()]
    tried = desk.batch(second).tasks[second.tasks[0].task].tried
    desk.end(second)

    assert len(actors) == 2
    assert tried == ["two", "three"]
    assert desk.how(second) == [("FAILED", "model_not_found"), ("SUCCESS", ""), ("SUCCESS", "")]
    assert desk.how(third) == [("FAILED", "model_not_found")]
    assert "no model is deployed as 'four' any more" in desk.world.told(TaskFinished)[-1].reason


def test_what_waits_does_not_begin_while_a_person_has_the_conversation(desk: Desk) -> None:
    first = desk.say("a")
    desk.say("b", arriving="queue")
    state = desk.world.state(SESSION)
    state.hold = Hold(mode="manual_live")
    desk.world.write(SESSION, state)
    desk.end(first)

    assert desk.speaking == []


@pytest.mark.promise("FD-69")
def test_a_takeover_ends_what_waits_as_it_ends_what_is_going(desk: Desk) -> None:
    first, second = desk.say("a"), desk.say("b", arriving="queue")
    desk.world.ask(SESSION, TakeOver(agent=Assignee(id="ann")))
    desk.go_on()
    refused = desk.say("c", arriving="queue")
    desk.world.ask(SESSION, Release(agent="ann"))
    desk.go_on()

    assert desk.speaking == desk.waiting == []
    assert desk.how(first) == desk.how(second) == [("FAILED", IN_MANUAL)]
    assert (refused.code, refused.status) == (IN_MANUAL, 409)
    assert len(desk.world.told(MessageSaid)) == 2


# -- in its place -----------------------------------------------------------------------------


def test_an_interruption_stops_what_is_going_and_is_answered_together_with_it(
    desk: Desk,
) -> None:
    first = desk.say("a", "one", "two")
    second = desk.say("b", arriving="interrupt")
    stopped = desk.world.told(TaskStopped)
    job = list(desk.world.jobs.values())[-1]
    said = desk.world.told(MessageSaid)[-1]

    assert {(one.batch, one.reason) for one in stopped} == {(first.batch, INTERRUPTED)}
    assert desk.how(first) == [("FAILED", "aborted")] * 2
    assert desk.speaking == [second.batch]
    assert job.context is not None
    assert job.context.joined == said.joined == (first.batch,)


def test_what_was_interrupted_again_and_again_is_answered_all_together_once(desk: Desk) -> None:
    opened = [desk.say(text, arriving="interrupt") for text in "abc"]
    joined = [job.context.joined if job.context else () for job in desk.world.jobs.values()]
    desk.end(opened[-1])
    later = desk.say("d")
    desk.say("e", arriving="interrupt")
    last = list(desk.world.jobs.values())[-1].context
    a, b, _ = (one.batch for one in opened)

    assert joined == [(), (a,), (a, b)]
    assert last is not None
    assert last.joined == (later.batch,)


def test_an_interruption_answers_what_has_waited_too(desk: Desk) -> None:
    first, second = desk.say("a"), desk.say("b", arriving="queue")
    third = desk.say("c", arriving="interrupt")
    said = desk.world.told(MessageSaid)[-1]

    assert desk.speaking == [third.batch]
    assert desk.waiting == []
    assert desk.how(second) == [("FAILED", "aborted")]
    assert said.joined == (first.batch, second.batch)


def test_a_prompt_that_brings_all_along_is_joined_by_nothing(desk: Desk) -> None:
    desk.say("a")
    desk.say("b", arriving="interrupt", whole=True)

    assert list(desk.world.jobs.values())[-1].context is None
    assert len(desk.speaking) == 1


# -- whatever comes ---------------------------------------------------------------------------


class ArrivingWalk(Walk):
    """Batches that arrive by any policy, while all else happens as it may."""

    weights: ClassVar[dict[str, float]] = {**WEIGHTS, "open": 4, "end": 9}

    def _open(self) -> None:
        pick = self.random.choice
        tasks = tuple(
            Wanted(actors=tuple(self.random.choices(MODELS, k=pick([1, 2]))), model="m")
            for _ in range(pick([1, 2, 3]))
        )
        arriving = pick(POLICIES)
        request = OpenBatch(
            tasks=tasks,
            prompt=Prompt(messages=(words("hello"),)),
            said=pick([words("hello"), None]),
            policy=pick([Policy(), Policy(kind="first")]),
            deadline=pick([300.0, DEADLINE]),
            arriving=arriving,
        )
        busy = self._is_busy()
        answer = self.world.ask(SESSION, request)
        if not isinstance(answer, BatchOpened):
            assert answer.code in ("model_not_found", "queue_full")
            return
        self.batches.append(answer)
        assert bool(answer.queued) == any(not task.run for task in answer.tasks)
        if arriving == "interrupt":
            speaking = {job.data.batch for job in self.world.runs.values()}
            assert (speaking, self.world.state(SESSION).queued) == ({answer.batch}, [])
        assert not answer.queued or (busy and arriving == "queue")

    def _is_busy(self) -> bool:
        """Whether something may be going when the next message is heard."""
        state = self.world.state(SESSION)
        return bool(state.live or state.queued)

    def check(self) -> None:
        super().check()
        state = self.world.state(SESSION)
        assert len(state.queued) <= MOST_QUEUED
        assert state.live or not state.queued
        order = [one.batch for one in self.batches]
        waiting = [order.index(one.batch) for one in state.queued]
        assert waiting == sorted(waiting)

    def end(self) -> None:
        super().end()
        assert self.world.state(SESSION).queued == []
        assert {state.status for _, state in self.world.batches()} <= set(FINAL)
        assert len(self.world.told(BatchFinished)) == len(self.batches)


@pytest.mark.parametrize("part", range(5))
@pytest.mark.promise("AC-07")
def test_each_batch_ends_once_however_it_arrived(part: int) -> None:
    for seed in range(part * 200, (part + 1) * 200):
        try:
            ArrivingWalk(seed).go()
        except AssertionError as wrong:
            wrong.add_note(f"seed {seed}")
            raise
