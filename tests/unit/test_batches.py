"""Whatever comes in whatever order: each task ends once, each batch ends once, nothing leaks."""

from datetime import timedelta
from random import Random
from typing import ClassVar

import pytest

from actors.live import GRACE
from schemas.base import Address, tag_of
from schemas.conversation import (
    FINAL,
    Abort,
    BatchFinished,
    BatchOpened,
    OpenBatch,
    Policy,
    StartBatch,
    TaskFinished,
    Wanted,
)
from schemas.envelope import decode_any
from schemas.model import Prompt, Text, Utterance
from tests.unit.gathered import MODELS, World, answer_of, deployments

SESSION = Address("session", "c")
WORDS = Utterance(role="user", content=(Text("hello"),))
DEADLINE = 600.0
STEPS = 60
WALKS = 200
"""In each of the test's parts."""

ENDINGS = ("answered", "answered", "refused", "failed", "given_up")
WEIGHTS: dict[str, float] = {
    "handle": 14,
    "end": 8,
    "open": 2,
    "abort_one": 1,
    "abort_a_batch": 1,
    "abort_everything": 0.3,
    "wait": 0.7,
    "deploy": 0.7,
    "say_again": 1,
}


class Walk:
    """One conversation in which turns, results, aborts and time come in any order."""

    weights: ClassVar[dict[str, float]] = WEIGHTS

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World()
        self.batches: list[BatchOpened] = []
        self.aborted: dict[str, int] = {}
        """Batches that were aborted, and how many runs had been started by then."""

    def go(self) -> None:
        for step in self.random.choices(list(self.weights), list(self.weights.values()), k=STEPS):
            getattr(self, f"_{step}")()
            self.check()
        self.finish()

    def _let_pass(self, time: timedelta) -> None:
        self.world.advance(time)
        while self.world.waiting():
            self._handle()

    # -- steps -----------------------------------------------------------------------------

    def _open(self) -> None:
        pick = self.random.choice
        tasks = tuple(
            Wanted(actors=tuple(self.random.choices(MODELS, k=pick([1, 2, 3]))), model="m")
            for _ in range(pick([1, 2, 3]))
        )
        policy = pick(
            [
                Policy(),
                Policy(kind="first"),
                Policy(kind="quorum", n=pick(range(1, len(tasks) + 1))),
                Policy(kind="judge", judge=pick(MODELS)),
                Policy(kind="judge", judge=pick(MODELS)),
            ]
        )
        request = OpenBatch(
            tasks=tasks,
            prompt=Prompt(messages=(WORDS,)),
            said=WORDS,
            policy=policy,
            deadline=DEADLINE,
        )
        answer = self.world.ask(SESSION, request)
        if isinstance(answer, BatchOpened):
            self.batches.append(answer)
        else:
            assert answer.code == "model_not_found"

    def _handle(self) -> None:
        if waiting := self.world.waiting():
            self.world.handle(self.random.choice(waiting))

    def _end(self) -> None:
        if run := self._some_run():
            how, number = self.random.choice(ENDINGS), self.random.randrange(4)
            self.world.end(run, answer_of(self.world.runs[run].data, how, number))

    def _abort_one(self) -> None:
        if run := self._some_run():
            self.world.ask(SESSION, Abort(run=run))
            assert run not in self.world.runs

    def _abort_a_batch(self) -> None:
        if self.batches:
            self._note_abort(self.random.choice(self.batches[-2:]).batch)

    def _abort_everything(self) -> None:
        if self.batches:
            self._note_abort("")
            assert self.world.runs == {}

    def _note_abort(self, batch: str) -> None:
        for run in self.world.ask(SESSION, Abort(batch=batch)).runs:
            self.aborted.setdefault(self.world.jobs[run].batch, len(self.world.jobs))

    def _wait(self) -> None:
        self.world.advance(timedelta(seconds=self.random.choice([1, 300, 700])))

    def _deploy(self) -> None:
        self.world.deployed = deployments(*self.random.sample(MODELS, k=3))

    def _say_again(self) -> None:
        """As when an operator replays what a batch has heard."""
        heard = [(a, o.seen) for a, o in self.world.instances.items() if a.actor == "batch"]
        if heard := [one for one in heard if one[1]]:
            batch, seen = self.random.choice(heard)
            self.world.put(batch, self.random.choice(seen))

    def _some_run(self) -> str:
        return self.random.choice([*self.world.runs, ""])

    # -- what holds ------------------------------------------------------------------------

    def check(self) -> None:
        assert set(self.world.runs) <= set(self.world.state(SESSION).live)
        ended = [event.task for event in self.world.told(TaskFinished)]
        closed = [event.batch for event in self.world.told(BatchFinished)]
        assert len(set(ended)) == len(ended)
        assert len(set(closed)) == len(closed)
        for one in self.batches:
            assert one.batch not in closed or {task.task for task in one.tasks} <= set(ended)
            timers = self.world.instances[Address("batch", one.batch)].timers
            assert one.batch not in closed or timers == {}
        for batch, count in self.aborted.items():
            assert batch not in {job.batch for job in list(self.world.jobs.values())[count:]}

    def finish(self) -> None:
        """Let everything come that is on its way, and models answer; then nothing is left."""
        for _ in range(4):
            while self.world.waiting():
                self._handle()
            for run in list(self.world.runs)[1:]:
                self.world.end(run, answer_of(self.world.runs[run].data, "answered"))
            self.check()
        self.end()

    def end(self) -> None:
        self._let_pass(timedelta(seconds=DEADLINE))
        self.check()
        assert self.world.runs == {}
        assert self.world.state(SESSION).live == {}
        assert len(self.world.told(BatchFinished)) == len(self.batches)
        assert {state.status for _, state in self.world.batches()} <= set(FINAL)
        assert [a for a, one in self.world.instances.items() if one.timers] == []


class LossyWalk(Walk):
    """The same, where what is said on the way may be lost: an operator skipped it, its time was
    over. Only what begins a batch, and reminders, come for certain."""

    weights: ClassVar[dict[str, float]] = {**WEIGHTS, "lose": 2}

    def _lose(self) -> None:
        if waiting := self.world.waiting():
            mail = self.world.instances[self.random.choice(waiting)].mail
            envelope = decode_any(mail[0][1])
            if envelope.type != tag_of(StartBatch) and not envelope.reminder:
                mail.popleft()

    def end(self) -> None:
        self._let_pass(timedelta(seconds=DEADLINE))
        self._let_pass(GRACE)
        super().end()


@pytest.mark.parametrize("kind", [Walk, LossyWalk])
@pytest.mark.parametrize("part", range(5))
@pytest.mark.promise("AC-07")
def test_each_task_and_each_batch_ends_once_whatever_comes_in_whatever_order(
    part: int, kind: type[Walk]
) -> None:
    for seed in range(part * WALKS, (part + 1) * WALKS):
        try:
            kind(seed).go()
        except AssertionError as wrong:
            wrong.add_note(f"seed {seed}")
            raise
