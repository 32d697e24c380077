"""What a session accepts and refuses, and what it does about runs that nobody ends."""

from datetime import timedelta
from typing import Any

import pytest

from actors.live import GRACE
from actors.opening import MOST_LIVE
from actors.session import Session
from actors.session_options import SessionOptions
from runtime.actor import read_options
from runtime.errors import ConfigError
from schemas.base import Address
from schemas.conversation import (
    MOST_ACTORS,
    MOST_NAME,
    MOST_TASKS,
    Abort,
    Aborted,
    BatchFinished,
    BatchOpened,
    MessageSaid,
    OpenBatch,
    Policy,
    RunsOver,
    TaskFinished,
    TaskMoved,
    TaskStopped,
    Wanted,
    is_open_to,
)
from schemas.deployment import Deployment
from schemas.envelope import encode
from schemas.model import MOST_INLINE, FileRef, Generated, Prompt, Text, Utterance
from tests.unit.gathered import World, answer_of, deployments

SESSION = Address("session", "c")
INVALID = ("invalid_batch", 422)


def words(text: str) -> Utterance:
    return Utterance(role="user", content=(Text(text),))


def opening(*actors: str, **rest: Any) -> OpenBatch:
    tasks = tuple(Wanted(actors=tuple(one.split()), model=one) for one in actors or ("one",))
    given: dict[str, Any] = {"tasks": tasks, "prompt": Prompt(messages=(words("hi"),))}
    return OpenBatch(**given | rest)


@pytest.fixture
def world() -> World:
    return World()


def go_on(world: World) -> None:
    while waiting := world.waiting():
        world.handle(waiting[0])


# -- refusing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "code", "status", "detail"),
    [
        ({"tasks": ()}, "invalid_batch", 422, "0 tasks; name 1 to 16 models"),
        (
            {"tasks": (Wanted(actors=("one",), model="m"),) * (MOST_TASKS + 1)},
            "invalid_batch",
            422,
            "17 tasks",
        ),
        ({"tasks": (Wanted(actors=(), model="m"),)}, "invalid_batch", 422, "names 0 actors"),
        (
            {"tasks": (Wanted(actors=("one",) * (MOST_ACTORS + 1), model="m"),)},
            "invalid_batch",
            422,
            "task 1 names 9 actors; name 1 to 8",
        ),
        (
            {"tasks": (Wanted(actors=("one",), model="m" * (MOST_NAME + 1)),)},
            "invalid_batch",
            422,
            "the model of task 1 has 201 characters, at most 200: 'mmm",
        ),
        (
            {"tasks": (Wanted(actors=("nobody", "session"), model="gpt"),)},
            "model_not_found",
            404,
            "model 'gpt': no model is deployed as 'nobody or session'",
        ),
        (
            {"policy": Policy(kind="judge", judge="nobody")},
            "model_not_found",
            404,
            "the judge: no model is deployed as 'nobody'",
        ),
        ({"tasks": (Wanted(actors=("one",), model="m", slot=16),)}, *INVALID, "expected 0 to 15"),
        ({"tasks": (Wanted(actors=("one",), model="m", slot=-1),)}, *INVALID, "has slot -1"),
        ({"tasks": (Wanted(actors=("one",), model="a\0"),)}, *INVALID, r"is no name: 'a\x00'"),
        ({"policy": Policy(kind="judge")}, "invalid_batch", 422, "name an actor as `judge`"),
        ({"policy": Policy(kind="quorum", n=2)}, "invalid_batch", 422, "a quorum of 2 out of 1"),
        ({"policy": Policy(kind="quorum", n=0)}, "invalid_batch", 422, "a quorum of 0 out of 1"),
        ({"deadline": -1}, "invalid_batch", 422, "deadline -1: expected at most 43200 seconds"),
        ({"deadline": 50_000.0}, "invalid_batch", 422, "deadline 50000"),
        ({"prompt": Prompt()}, "invalid_batch", 422, "the prompt is empty"),
        (
            {"prompt": Prompt(messages=(words("字" * 11_000),))},
            "prompt_too_large",
            413,
            "at most 32768 in a message; put it into a file",
        ),
        ({"said": words("x" * 33_000)}, "prompt_too_large", 413, "said takes 33"),
    ],
)
def test_what_cannot_become_a_batch_is_refused_with_the_fix(
    world: World, wrong: dict[str, Any], code: str, status: int, detail: str
) -> None:
    refused = world.ask(SESSION, opening(**wrong))

    assert (refused.code, refused.status) == (code, status)
    assert detail in refused.detail
    assert world.state(SESSION).created is None
    assert world.runs == {}


def test_a_prompt_in_a_file_may_be_any_size(world: World) -> None:
    body = Prompt(body=FileRef(id="f", size=10**9))

    assert isinstance(world.ask(SESSION, opening(prompt=body)), BatchOpened)


def test_a_worker_that_is_no_model_is_none(world: World) -> None:
    child = Deployment(name="child", type="x:Y", kind="worker", handles=("relay.execute",))
    world.deployed["child"] = child

    assert world.ask(SESSION, opening("child")).code == "model_not_found"


def test_without_the_type_that_gathers_nothing_is_begun(world: World) -> None:
    del world.deployed["batch"]
    refused = world.ask(SESSION, opening())

    assert (refused.code, refused.status) == ("batches_not_deployed", 503)
    assert "deploy actors.batch:Batch under that name" in refused.detail


def test_so_many_runs_may_go_at_once_that_one_turn_can_stop_them(world: World) -> None:
    names = ["one"] * MOST_TASKS
    for _ in range(MOST_LIVE // MOST_TASKS):
        assert isinstance(world.ask(SESSION, opening(*names)), BatchOpened)
    refused = world.ask(SESSION, opening())
    stopped = world.ask(SESSION, Abort())

    assert (refused.code, refused.status) == ("too_many_runs", 429)
    assert (len(stopped.runs), world.runs) == (MOST_LIVE, {})


def test_a_deadline_that_the_type_cannot_remember_is_refused(world: World) -> None:
    short = Deployment(
        name="session",
        type="x:Y",
        kind="keyed",
        mail_ttl=timedelta(minutes=1),
        lifetime=timedelta(minutes=1),
    )
    world.deployed["session"] = short
    refused = world.ask(SESSION, opening())

    assert refused.code == "invalid_batch"
    assert "give the type a longer lifetime" in refused.detail


def test_a_deadline_that_the_batch_could_not_be_reminded_of_is_refused(world: World) -> None:
    short = timedelta(minutes=5)
    world.deployed["batch"] = Deployment(
        name="batch", type="x:Y", kind="keyed", mail_ttl=short, lifetime=short
    )
    refused = world.ask(SESSION, opening(deadline=241))

    assert refused.code == "invalid_batch"
    assert "instances of 'batch' live 0:05:00 from their last turn" in refused.detail
    assert isinstance(world.ask(SESSION, opening(deadline=240)), BatchOpened)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"keep": "soon"}, "'soon' is not a duration"),
        ({"deadline": "2h", "longest": "1h"}, "deadline = '2h': expected at most '1h'"),
        ({"longest": "13h"}, "longest = '13h': expected at most 12h"),
        ({"turns": 65}, "turns = 65: expected 0 to 64"),
        ({"tokens": -1}, "tokens = -1: expected 0 or more"),
        ({"batch": "b"}, "unknown field `batch`"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f'actor "session".*{problem}'):
        read_options(Session, "session", options)


# -- whose it is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "principal", "may"),
    [
        ("", "anybody", True),
        ("anonymous", "anybody", True),
        ("anonymous", "anonymous", True),
        ("alice", "alice", True),
        ("alice", "", True),
        ("alice", "bob", False),
        ("alice", "anonymous", False),
    ],
)
def test_what_somebody_began_is_theirs(owner: str, principal: str, may: bool) -> None:
    assert is_open_to(owner, principal) == may


def test_somebody_elses_conversation_is_as_unknown_as_one_that_does_not_exist(
    world: World,
) -> None:
    world.ask(SESSION, opening(), principal="alice")
    refused = [
        world.ask(SESSION, opening(), principal="bob"),
        world.ask(SESSION, Abort(), principal="bob"),
        world.ask(Address("session", "d"), Abort(), principal="bob"),
    ]

    assert [(one.code, one.status) for one in refused] == [("conversation_not_found", 404)] * 3
    assert [one.detail for one in refused] == ["there is no conversation 'c'"] * 2 + [
        "there is no conversation 'd'"
    ]
    assert len(world.ask(SESSION, Abort(), principal="alice").runs) == 1


def test_who_said_something_is_told(world: World) -> None:
    world.ask(SESSION, opening(said=words("hi")), principal="alice")

    assert [one.by for one in world.told(MessageSaid)] == ["alice"]
    assert world.state(SESSION).owner == "alice"


# -- aborting ---------------------------------------------------------------------------------


def test_one_run_one_batch_or_all_of_a_conversation_are_aborted(world: World) -> None:
    first, second = (world.ask(SESSION, opening("one", "two")) for _ in range(2))
    run = first.tasks[0].run
    one = world.ask(SESSION, Abort(run=run))
    other = world.ask(SESSION, Abort(run=run, batch=first.batch))
    batch = world.ask(SESSION, Abort(batch=first.batch))
    rest = world.ask(SESSION, Abort())

    assert (one, other) == (Aborted(runs=(run,)), Aborted())
    assert batch == Aborted(runs=(first.tasks[1].run,))
    assert set(rest.runs) == {task.run for task in second.tasks}
    assert len(world.told(TaskStopped)) == 4


# -- what is never ended ----------------------------------------------------------------------


def test_a_run_that_its_batch_never_ends_is_swept(world: World) -> None:
    opened = world.ask(SESSION, opening(deadline=60))
    world.advance(timedelta(seconds=30))
    later = world.ask(SESSION, opening(deadline=600))
    world.advance(timedelta(seconds=30) + GRACE)
    world.handle(SESSION)
    left = set(world.state(SESSION).live)
    world.advance(timedelta(seconds=570))
    world.handle(SESSION)

    assert left == {later.tasks[0].run}
    assert [one.run for one in world.told(TaskStopped)] == [opened.tasks[0].run, *left]
    assert (world.state(SESSION).live, world.runs) == ({}, {})
    assert world.instances[SESSION].timers == {}


def test_an_earlier_deadline_brings_the_sweep_forward(world: World) -> None:
    world.ask(SESSION, opening(deadline=600))
    world.ask(SESSION, opening(deadline=60))

    assert world.state(SESSION).sweeps == world.now + timedelta(seconds=60) + GRACE


def test_what_ends_before_it_is_known_changes_nothing(world: World) -> None:
    world.ask(SESSION, RunsOver(runs=("r1", "r2")))

    assert world.state(SESSION).live == {}


def test_a_model_that_was_removed_meanwhile_is_passed_over(world: World) -> None:
    opened = world.ask(SESSION, opening("one two three"))
    world.deployed = deployments("one", "three")
    world.end(opened.tasks[0].run, answer_of(next(iter(world.jobs.values())), "failed"))
    go_on(world)
    (run,) = world.runs

    assert [one.model for one in world.told(TaskMoved)] == ["three"]
    assert world.told(TaskMoved)[0].reason == "it failed; then no model 'two' is deployed"
    assert set(world.state(SESSION).live) == {run}


def test_without_its_session_a_batch_ends_all_the_same(world: World) -> None:
    opened = world.ask(SESSION, opening("one two", policy=Policy(kind="judge", judge="three")))
    go_on(world)
    del world.deployed["session"]
    world.end(opened.tasks[0].run, answer_of(next(iter(world.jobs.values())), "refused"))
    go_on(world)

    assert [one.code for one in world.told(TaskFinished)] == ["refused"]
    assert [one.status for one in world.told(BatchFinished)] == ["FAILED"]


# -- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["字", "😀", '"', "\x01"])
def test_the_largest_batch_there_may_be_fits_into_its_state(world: World, letter: str) -> None:
    """Every turn checks its own state."""
    text = words("x" * (MOST_INLINE - 200))
    actor = "a" * 32
    names = tuple(f"{actor[:-1]}{n}" for n in range(MOST_ACTORS))
    world.deployed = deployments(*names)
    tasks = tuple(Wanted(actors=names, model="字" * MOST_NAME) for _ in range(MOST_TASKS))
    request = OpenBatch(tasks=tasks, prompt=Prompt(messages=(text,)), said=text)
    opened = world.ask(SESSION, request)
    for _ in names:
        for run, job in list(world.runs.items()):
            failed = Generated(
                task=job.data.task,
                batch=opened.batch,
                outcome="failed",
                reason=letter * 5000,
                excerpt=letter * 500,
                code="c" * 500,
                upstream="u" * 500,
            )
            world.end(run, failed)
        go_on(world)

    (batch,) = world.batches()
    assert [one.status for one in world.told(BatchFinished)] == ["FAILED"]
    assert len(batch[1].tasks[f"{opened.batch}-1"].tried) == MOST_ACTORS
    assert len(encode(batch[1])) < 128 * 1024


def test_marks_are_a_ring(world: World) -> None:
    for _ in range(70):
        opened = world.ask(SESSION, opening(said=words("hi")))
        world.end(opened.tasks[0].run, answer_of(world.jobs[opened.tasks[0].run], "answered"))
        go_on(world)
    state = world.state(SESSION)
    context = world.jobs[opened.tasks[0].run].context

    assert (len(state.marks), state.batches) == (64, 70)
    assert context is not None
    assert context.after == state.marks[-21]
    assert SessionOptions().turns == 10
