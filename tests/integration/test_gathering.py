"""One request to several models: a batch of tasks, each with its one end, and its policy."""

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from actors.batch import Batch
from actors.session import Session
from runtime.ask import Origin
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address, Message, tag_of
from schemas.conversation import (
    Abort,
    BatchBegan,
    BatchFinished,
    BatchOverdue,
    BatchState,
    MessageSaid,
    Policy,
    RunOpened,
    RunsOver,
    RunStopped,
    StartBatch,
    SweepDue,
    TaskFinished,
    TaskMoved,
    TaskStopped,
)
from schemas.envelope import decode_any
from schemas.model import Context, Generated, Prompt, history_topic
from schemas.record import Delta, RunFailed
from schemas.session import SessionState
from tests.integration.answering import MODELS, Talk, gate, opening, wanted, words

pytestmark = pytest.mark.asyncio(loop_scope="module")

numbers = count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    short = (Session, {"batches": "completion-batch", "keep": "1h"})
    soon: dict[str, Any] = {"completion": short, "completion-batch": Batch}
    async with running(session=Session, batch=Batch, **soon, **MODELS) as kit:
        yield kit


@pytest.fixture
def talk(kit: Kit) -> Talk:
    return Talk(kit, f"c{next(numbers)}")


# -- everyone answers -------------------------------------------------------------------------


@pytest.mark.promise("AC-02", "AC-04")
async def test_one_request_starts_all_its_models_and_is_done_when_all_have_answered(
    talk: Talk,
) -> None:
    opened = await talk.open("one", "two", "three")
    done = await talk.finished(opened)
    state = await talk.batch(opened)

    assert [task.task for task in opened.tasks] == [f"{opened.batch}-{n}" for n in (1, 2, 3)]
    assert await talk.codes() == {"1": "SUCCESS", "2": "SUCCESS", "3": "SUCCESS"}
    assert done == BatchFinished(batch=opened.batch, status="SUCCESS")
    assert (state.status, state.conversation) == ("SUCCESS", talk.id)
    assert [task.excerpt for task in state.tasks.values()] == ["well", "2", "three"]
    assert (await talk.state()).live == {}


async def test_what_was_said_is_told_and_remembered_once(talk: Talk) -> None:
    opened = await talk.open("one", text="  Which colour\nis it? " + "x" * 100)
    await talk.finished(opened)
    again = await talk.open("two", text="And now?")
    await talk.finished(again)
    state = await talk.state()
    said = await talk.kit.events(history_topic(talk.id), MessageSaid)

    assert [one.batch for one in said] == [opened.batch, again.batch]
    assert said == await talk.told(MessageSaid)
    assert [one.batch for one in await talk.told(BatchBegan)] == [
        opened.batch,
        again.batch,
    ]
    assert state.title.startswith("Which colour is it? xxx")
    assert (len(state.title), state.batches, len(state.marks)) == (80, 2, 2)
    assert talk.jobs()[0].context is None
    assert talk.jobs()[1].context == Context(after=state.marks[0], until=state.marks[1], turns=10)


async def test_a_request_that_leaves_nothing_behind_is_not_remembered(talk: Talk) -> None:
    await talk.finished(await talk.open("one"))
    await talk.finished(await talk.open("one", said=None))
    await talk.finished(await talk.open("one", whole=True))
    state = await talk.state()

    assert len(state.marks) == 2
    assert [(job.remember, job.context is not None) for job in talk.jobs()] == [
        (True, False),
        (False, False),
        (True, False),
    ]


async def test_a_completion_is_a_conversation_that_is_soon_forgotten(talk: Talk) -> None:
    short = Talk(talk.kit, talk.id, "completion")
    opened = await short.open("one", said=None)
    await short.finished(opened)
    stored = await talk.kit.bus.read_all(subjects.event(short.topic), after=0)
    own = (BatchBegan, TaskFinished, BatchFinished)
    kept = {
        one.headers["Nats-TTL"]
        for one in stored
        if decode_any(one.data).type in {tag_of(event) for event in own}
    }

    assert kept == {"3600s"}
    assert [job.keep for job in short.jobs()] == [3600]
    gathered = await talk.kit.state(Address("completion-batch", opened.batch))
    assert (gathered.status, gathered.session) == ("SUCCESS", "completion")


# -- failing over -----------------------------------------------------------------------------


@pytest.mark.promise("AC-03", "AC-15")
async def test_a_refused_or_failed_task_goes_to_its_next_actor_and_followers_are_told(
    talk: Talk,
) -> None:
    tasks = (wanted("refuses", "fails", "one"), "two")
    opened = await talk.open(*tasks)
    done = await talk.finished(opened)
    moved = await talk.told(TaskMoved)
    task = (await talk.batch(opened)).tasks[f"{opened.batch}-1"]

    assert done.status == "SUCCESS"
    assert [(one.model, one.reason) for one in moved] == [
        ("fails", "it would not"),
        ("one", "too many requests"),
    ]
    assert (task.actor, task.tried, task.run) == ("one", ["refuses", "fails", "one"], moved[1].run)
    assert (task.code, task.reason, task.outcome) == ("", "", "answered")
    assert (await talk.state()).live == {}


async def test_a_task_ends_with_what_its_last_actor_said(talk: Talk) -> None:
    opened = await talk.open("refuses", "fails", "one")
    done = await talk.finished(opened)
    found = await talk.ends()

    assert done.status == "PARTIAL"
    assert await talk.codes() == {"1": "refused", "2": "rate_limited", "3": "SUCCESS"}
    assert (found["2"].http_status, found["2"].retry_after) == (429, 7)
    assert found["1"].reason == "it would not"


async def test_a_batch_of_which_nothing_was_answered_has_failed(talk: Talk) -> None:
    opened = await talk.open("refuses", policy=Policy(kind="first"))

    assert (await talk.finished(opened)).status == "FAILED"


# -- policies ---------------------------------------------------------------------------------


async def test_with_the_policy_first_the_others_are_stopped_and_superseded(talk: Talk) -> None:
    with gate("one", "three"):
        opened = await talk.open("one", "two", "three", policy=Policy(kind="first"))
        done = await talk.end(opened)
    await talk.kit.settled()
    found = await talk.ends()
    stopped = await talk.told(TaskStopped)

    assert (done.status, done.winner) == ("SUCCESS", f"{opened.batch}-2")
    assert await talk.codes() == {"1": "superseded", "2": "SUCCESS", "3": "superseded"}
    assert found["1"].reason == f"task {opened.batch}-2 was answered first"
    assert {one.task for one in stopped} == {f"{opened.batch}-1", f"{opened.batch}-3"}
    assert (await talk.state()).live == {}


async def test_a_quorum_is_enough(talk: Talk) -> None:
    with gate("three"):
        opened = await talk.open("one", "three", "two", policy=Policy(kind="quorum", n=2))
        done = await talk.end(opened)
    await talk.kit.settled()

    assert (done.status, done.winner) == ("SUCCESS", "")
    assert await talk.codes() == {"1": "SUCCESS", "2": "superseded", "3": "SUCCESS"}


async def test_a_quorum_that_is_not_reached_is_partial(talk: Talk) -> None:
    opened = await talk.open("one", "fails", policy=Policy(kind="quorum", n=2))

    assert (await talk.finished(opened)).status == "PARTIAL"


async def test_a_judge_is_asked_once_all_have_answered_and_its_number_wins(talk: Talk) -> None:
    policy = Policy(kind="judge", judge="two")
    opened = await talk.open("one", "fails", "three", policy=policy)
    done = await talk.finished(opened)
    asked = talk.jobs()[-1]

    assert (done.status, done.winner, done.reason) == ("PARTIAL", f"{opened.batch}-3", "")
    assert asked.candidates == (f"{opened.batch}-1", f"{opened.batch}-3")
    assert (asked.task, asked.remember) == (f"{opened.batch}-judge", False)
    assert len(await talk.ends()) == 3
    assert (await talk.state()).live == {}


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        ("one", "the judge said 'well', expected a number from 1 to 2"),
        ("fails", "the judge failed (too many requests)"),
    ],
)
async def test_a_judge_that_chooses_nothing_fails_no_batch(
    talk: Talk, judge: str, reason: str
) -> None:
    policy = Policy(kind="judge", judge=judge)
    opened = await talk.open("one", "two", policy=policy)
    done = await talk.finished(opened)

    assert (done.status, done.winner) == ("SUCCESS", f"{opened.batch}-1")
    assert done.reason == f"{reason}; the first answer in order was taken"


async def test_a_judge_is_not_asked_about_one_answer(talk: Talk) -> None:
    policy = Policy(kind="judge", judge="two")
    opened = await talk.open("fails", "one", policy=policy)
    done = await talk.finished(opened)

    assert (done.status, done.winner) == ("PARTIAL", f"{opened.batch}-2")
    assert len(talk.jobs()) == 2


# -- ends from outside ------------------------------------------------------------------------


async def test_what_is_aborted_is_stopped_in_the_sessions_own_turn(talk: Talk) -> None:
    with gate("one", "three"):
        opened = await talk.open(wanted("one", "two"), "three", "two")
        await talk.kit.event(talk.topic, TaskFinished)
        aborted = await talk.kit.ask(talk.session, Abort(batch=opened.batch, reason="enough"))
        stopped = await talk.told(TaskStopped)
        live = (await talk.state()).live
        done = await talk.end(opened)
    await talk.kit.settled()
    found = await talk.ends()

    assert live == {}
    assert {run.run for run in opened.tasks[:2]} <= set(aborted.runs)
    assert {one.run for one in stopped} == set(aborted.runs)
    assert await talk.codes() == {"1": "aborted", "2": "aborted", "3": "SUCCESS"}
    assert found["1"].reason == "enough"
    assert done.status == "PARTIAL"
    assert await talk.told(TaskMoved) == []


@pytest.mark.promise("AC-07")
async def test_the_same_request_again_starts_nothing_more(talk: Talk) -> None:
    origin = Origin(id=f"{talk.id}-again", bodyhash="h")
    first, second = [
        await talk.kit.ask(talk.session, opening("one", "two"), origin=origin) for _ in range(2)
    ]
    await talk.finished(first)

    assert first == second
    assert len(talk.jobs()) == 2
    assert len(await talk.told(BatchFinished)) == 1


async def test_a_batch_that_is_started_twice_is_started_once(talk: Talk) -> None:
    opened = await talk.open("one")
    await talk.finished(opened)
    before = await talk.batch(opened)
    start = StartBatch(
        conversation=talk.id,
        tasks=opened.tasks,
        wanted=(wanted("one"),),
        prompt=Prompt(messages=(words("again"),)),
    )
    await talk.kit.tell(Address("batch", opened.batch), start)
    await talk.kit.settled()

    assert await talk.batch(opened) == before


async def test_what_is_not_of_a_tasks_current_run_is_ignored(talk: Talk) -> None:
    with gate("one"):
        opened = await talk.open("one")
        await talk.speaking(1)
        batch, task = Address("batch", opened.batch), opened.tasks[0].task
        late: list[Message] = [
            Generated(task=task, batch=opened.batch, excerpt="late"),
            RunFailed(run="old", reason="late", attempts=5),
            RunStopped(task=task, run="old", reason="late"),
            RunOpened(task=task, run="new", actor="two"),
        ]
        for message in late:
            await talk.kit.tell(batch, message, runid="old")
        await talk.kit.tell(batch, late[0])
        await talk.kit.event(talk.topic, TaskStopped)
        before = await talk.batch(opened)
    done = await talk.finished(opened)

    assert (before.status, before.tasks[task].run) == ("PROCESSING", opened.tasks[0].run)
    assert done.status == "SUCCESS"
    assert [one.run for one in await talk.told(TaskStopped)] == ["new"]


async def test_what_comes_to_sessions_and_batches_that_nobody_knows_does_no_harm(
    talk: Talk,
) -> None:
    nobody = Address("batch", f"{talk.id}-b")
    await talk.kit.tell(talk.session, RunsOver(runs=("r",)))
    await talk.kit.tell(talk.session, SweepDue())
    for message in (
        Generated(task="t", batch="b"),
        RunFailed(run="r", reason="x", attempts=1),
        RunStopped(task="t", run="r", reason="x"),
        BatchOverdue(),
    ):
        await talk.kit.tell(nobody, message, runid="r")
    await talk.kit.settled()

    assert await talk.kit.state(nobody) == BatchState()
    assert await talk.state() == SessionState()
    assert await talk.kit.dead_letters() == []


# -- failing while it speaks ------------------------------------------------------------------


@pytest.mark.promise("AC-03")
async def test_a_task_whose_model_breaks_while_it_speaks_moves_and_the_old_words_are_discarded(
    talk: Talk,
) -> None:
    with gate("breaks"):
        opened = await talk.open(wanted("breaks", "one"))
        await talk.kit.event(talk.topic, Delta)
    done = await talk.finished(opened)
    moved = (await talk.told(TaskMoved))[0]
    heard = await talk.heard()
    old, new = opened.tasks[0].run, moved.run

    assert done.status == "SUCCESS"
    assert (moved.model, moved.reason) == ("one", "the model broke")
    assert heard.index(("run.delta", old)) < heard.index(("task.moved", new))
    assert heard.index(("task.moved", new)) < heard.index(("run.started", new))
    assert heard[-2:] == [("task.finished", new), ("batch.finished", "")]
    assert (await talk.batch(opened)).tasks[opened.tasks[0].task].run == new


async def test_a_task_that_nobody_could_do_says_why(talk: Talk) -> None:
    opened = await talk.open("breaks")
    done = await talk.finished(opened)
    (end,) = (await talk.ends()).values()

    assert done.status == "FAILED"
    assert (end.code, end.http_status, end.reason) == ("run_failed", 502, "the model broke")


async def test_at_its_deadline_a_batch_ends_with_what_it_has(talk: Talk) -> None:
    with gate("one"):
        opened = await talk.open(wanted("one", "two"), "two", deadline=90)
        await talk.kit.event(talk.topic, TaskFinished)
        await talk.kit.advance(timedelta(seconds=90))
        done = await talk.end(opened)
    await talk.kit.settled()
    found = await talk.ends()

    assert done.status == "PARTIAL"
    assert (found["1"].code, found["1"].http_status) == ("deadline", 504)
    assert found["1"].reason == "not done within 90 s"
    assert (await talk.state()).live == {}


# -- what comes late, or twice ----------------------------------------------------------------
