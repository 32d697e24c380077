"""Jobs that wait for a person: one question whatever becomes of the attempts, and of the run."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

import runtime.person
from actors.approval import Approval
from runtime.testing import Kit, running
from schemas import subjects
from schemas.approval import APPROVAL, ApprovalAsked, Decide, Decided, approval_topic
from schemas.base import Address
from schemas.deployment import Deployment
from schemas.envelope import decode_any, encode, seal
from schemas.ownership import desk_topic
from schemas.record import RunFailed, RunRecord
from tests.integration.persons import (
    TOPIC,
    Adviser,
    AskFirst,
    Clerk,
    Consult,
    Consulted,
    Halt,
    applied,
)
from tests.integration.waiting import until_known

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLERK = Address("clerk", "c")


def adviser(**more: Any) -> tuple[type[Adviser], Deployment]:
    fields = {"deadline": timedelta(hours=24), "attempts": 2, **more}
    return Adviser, Deployment(name="adviser", type="-", kind="worker", **fields)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(approval=Approval, clerk=Clerk, adviser=adviser()) as kit:
        yield kit


async def consult(kit: Kit, text: str, **rest: Any) -> str:
    """Have a worker ask; returns its run."""
    return (await kit.ask(CLERK, Consult(text=text, **rest))).run


async def question(kit: Kit, text: str) -> ApprovalAsked:
    """The question, once it is asked."""
    while True:
        asked = await kit.event(desk_topic("support"), ApprovalAsked)
        if asked.ask.question == text:
            return asked


async def answer(kit: Kit, asked: ApprovalAsked, **given: Any) -> Decided:
    decide = Decide(**{"decision": "approved", "by": "ann", **given})
    return await kit.ask(Address(APPROVAL, asked.approval), decide)


async def test_a_worker_goes_on_with_the_answer(kit: Kit) -> None:
    await consult(kit, "Go on?", more={"choices": ["left", "right"], "seconds": 60, "tool": "walk"})
    asked = await question(kit, "Go on?")
    decided = await answer(kit, asked, decision="answered", answer="left")
    consulted = await kit.event(TOPIC, Consulted)

    assert consulted.decided == decided
    assert (asked.ask.asker, asked.ask.tool, asked.ask.seconds) == ("adviser/c", "walk", 60)


async def test_an_attempt_that_fails_after_the_answer_is_followed_by_one_that_has_it(
    kit: Kit,
) -> None:
    await consult(kit, "Crash?", then="crash")
    asked = await question(kit, "Crash?")
    decided = await answer(kit, asked)
    consulted = await kit.event(TOPIC, Consulted)

    assert (consulted.decided, consulted.attempt) == (decided, 2)
    assert len(await kit.events(approval_topic(asked.approval), ApprovalAsked)) == 1


async def test_two_questions_of_one_job_are_two(kit: Kit) -> None:
    await consult(kit, "Sure?", then="ask_again")
    first = await question(kit, "Sure?")
    await answer(kit, first)
    second = await question(kit, "Sure? Really?")
    decided = await answer(kit, second, decision="denied")

    assert (await kit.event(TOPIC, Consulted)).decided == decided
    assert first.approval != second.approval


async def test_another_question_under_a_name_that_was_used_is_refused(kit: Kit) -> None:
    await consult(kit, "Named?", then="ask_again", more={"name": "q"})
    await answer(kit, await question(kit, "Named?"))
    failed = await kit.event(TOPIC, RunFailed)

    assert "question_differs" in failed.reason
    assert "'Named?'" in failed.reason


async def test_a_host_that_stops_meanwhile_leaves_the_question_to_the_next(kit: Kit) -> None:
    await consult(kit, "Stop?")
    asked = await question(kit, "Stop?")
    await kit.stop_host(grace=0)
    await kit.start_host()
    decided = await answer(kit, asked)
    consulted = await kit.event(TOPIC, Consulted)

    assert consulted.decided == decided
    assert len(await kit.events(approval_topic(asked.approval), ApprovalAsked)) == 1
    assert await kit.events(approval_topic(asked.approval), Decided) == [decided]


async def test_a_run_that_is_stopped_withdraws_its_question(kit: Kit) -> None:
    run = await consult(kit, "Halt?")
    asked = await question(kit, "Halt?")
    await kit.tell(CLERK, Halt(run=run))
    decided = await kit.event(approval_topic(asked.approval), Decided)
    await applied(kit, CLERK)

    assert decided.decision == "withdrawn"
    assert decided.by == "adviser/c"
    assert all(one.decided.approval != asked.approval for one in (await kit.state(CLERK)).consulted)


async def test_a_question_that_cannot_be_asked_ends_the_job_with_the_reason(kit: Kit) -> None:
    await consult(kit, "Bad?", more={"answers": {"$ref": "https://example.com/s"}})
    failed = await kit.event(TOPIC, RunFailed)
    await consult(kit, "Long?", more={"seconds": 200_000})
    too_long = await kit.event(TOPIC, RunFailed)

    assert "question_refused: answers: /$ref" in failed.reason
    assert failed.attempts == too_long.attempts == 1
    assert "waits_too_long: a question of 2 days, 7:33:20" in too_long.reason


async def test_a_person_has_the_time_that_the_job_has_left_and_then_it_goes_on(kit: Kit) -> None:
    await consult(kit, "Time?", more={"assume": "denied"})
    asked = await question(kit, "Time?")
    await kit.advance(timedelta(hours=24))
    consulted = await kit.event(TOPIC, Consulted)

    assert 24 * 3600 - 30 < asked.ask.seconds < 24 * 3600 - 4
    assert (consulted.decided.decision, consulted.decided.defaulted) == ("denied", True)


async def test_what_is_not_heard_is_found_in_the_record(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.person, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(subjects, "live", lambda topic: f"nowhere.{topic.id}")
    await consult(kit, "Deaf?")
    decided = await answer(kit, await question(kit, "Deaf?"))

    assert (await kit.event(TOPIC, Consulted)).decided == decided


async def test_a_job_without_a_run_asks_as_well(kit: Kit) -> None:
    job = AskFirst(text="Plain?")
    data = {"id": "plain-1", "source": "clerk/c", "subject": "c"}
    await kit.bus.publish(subjects.work("adviser", 1, "c"), encode(seal(job, **data)))
    decided = await answer(kit, await question(kit, "Plain?"))

    assert (await kit.event(TOPIC, Consulted)).decided == decided


async def test_a_job_that_only_waits_is_not_blamed_for_the_hosts_that_end_meanwhile(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.person, "LOOK_EVERY", 0.05)
    run = await consult(kit, "Patience?")
    asked = await question(kit, "Patience?")
    await kit.stop_host(grace=0)
    ended = RunRecord(job="adviser/c", state="claimed", attempt=4, crashes=1, host="another")
    await kit.bus.publish(subjects.run(run), encode(ended), headers={"Nats-Rollup": "sub"})
    await kit.start_host()

    async def is_excused() -> bool:
        stored = await kit.bus.last(subjects.run(run))
        record = msgspec.json.decode(stored.data, type=RunRecord) if stored else RunRecord(job="")
        return record.attempt == 5 and record.crashes == 0

    await until_known(is_excused)
    suspect = kit.host.system.suspect
    decided = await answer(kit, asked)

    assert suspect == ""
    assert (await kit.event(TOPIC, Consulted)).decided == decided


async def test_without_an_actor_that_keeps_questions_the_job_fails_and_says_why() -> None:
    async with running(clerk=Clerk, adviser=adviser(attempts=1)) as kit:
        await consult(kit, "Anybody?")
        failed = await kit.event(TOPIC, RunFailed)

    assert "no actor 'approval' is deployed" in failed.reason


async def test_the_question_is_refused_by_the_broker_once_the_run_is_somebody_elses(
    kit: Kit,
) -> None:
    """Its mail is fenced as what a model says is."""
    await consult(kit, "Fenced?")
    asked = await question(kit, "Fenced?")
    await answer(kit, asked)
    await kit.event(TOPIC, Consulted)
    stored = await kit.bus.read_all(subjects.stored_mail(APPROVAL, asked.approval), after=0)
    first = decode_any(stored[0].data)
    fence = stored[0].headers["Nats-Expected-Last-Subject-Sequence-Subject"]

    assert first.type == "approval.ask"
    assert fence == f"run.{first.runid}"
