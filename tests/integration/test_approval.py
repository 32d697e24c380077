"""A question to a person: asked once, answered once, and over at last whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from actors.approval import Approval
from runtime.ask import Origin
from runtime.errors import Refused
from runtime.testing import Kit, running
from schemas.approval import (
    APPROVAL,
    ApprovalAsked,
    ApprovalState,
    AskPerson,
    Decide,
    Decided,
    approval_topic,
)
from schemas.base import Address
from schemas.ownership import desk_topic, internal_topic
from tests.integration.persons import CallOff, Clerk, Refund, applied

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLERK = Address("clerk", "c")
SIZES = {"choices": ["S", "M"]}
AMOUNT = {"type": "object", "properties": {"amount": {"type": "number", "maximum": 50}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(approval=Approval, clerk=Clerk) as kit:
        yield kit


async def asked(kit: Kit, id: str, **more: Any) -> Address:
    """Have the clerk ask, and wait until it is asked or refused."""
    to = Address(APPROVAL, id)
    await kit.tell(CLERK, Refund(id=id, more=more))
    await applied(kit, CLERK, to)
    return to


async def refused(kit: Kit, to: Address, given: Decide) -> tuple[int, str, str]:
    with pytest.raises(Refused) as raised:
        await kit.ask(to, given)
    refusal = raised.value.refusal
    return refusal.status, refusal.code, refusal.detail


async def told(kit: Kit, id: str) -> list[Decided]:
    """What the clerk was told of a question."""
    await applied(kit, CLERK, Address(APPROVAL, id), CLERK)
    found: list[Decided] = (await kit.state(CLERK)).decided.get(id, [])
    return found


async def state(kit: Kit, id: str) -> ApprovalState:
    found: ApprovalState = await kit.state(Address(APPROVAL, id))
    return found


async def test_whoever_asks_is_told_once_and_so_is_everybody_who_follows(kit: Kit) -> None:
    to = await asked(
        kit, "once", conversation="c1", team="support", tool="refund", details={"n": 1}
    )
    answered = await kit.ask(to, Decide(decision="approved", by="ann", note="fine"))
    heard = await told(kit, "once")

    assert heard == [answered]
    assert (answered.decision, answered.by, answered.note) == ("approved", "ann", "fine")
    assert answered.at is not None
    for topic in (approval_topic("once"), desk_topic("support"), internal_topic("c1")):
        [question] = [
            one for one in await kit.events(topic, ApprovalAsked) if one.approval == "once"
        ]
        assert [one for one in await kit.events(topic, Decided) if one.approval == "once"] == heard
        assert question.ask.details == {"n": 1}
        assert question.ask.asker == "clerk/c"
        assert question.due is not None


async def test_asking_again_under_the_same_id_changes_nothing(kit: Kit) -> None:
    await asked(kit, "again", question="First?")
    to = await asked(kit, "again", question="Second?")
    before = await state(kit, "again")
    await kit.ask(to, Decide(decision="denied", by="ann"))
    await asked(kit, "again", question="Third?")

    assert before.ask is not None
    assert before.ask.question == "First?"
    assert len(await kit.events(approval_topic("again"), ApprovalAsked)) == 1
    assert len(await told(kit, "again")) == 1


async def test_a_second_answer_is_told_what_the_first_was_and_whose(kit: Kit) -> None:
    to = await asked(kit, "second", answers=AMOUNT)
    first = Decide(decision="answered", answer={"amount": 5}, by="ann")
    done = await kit.ask(to, first)
    again = await kit.ask(to, Decide(decision="answered", answer={"amount": 5}, by="ann", note="x"))
    others = [
        Decide(decision="answered", answer={"amount": 5}, by="bob"),
        Decide(decision="answered", answer={"amount": 6}, by="ann"),
        Decide(decision="denied", by="ann"),
    ]
    refusals = [await refused(kit, to, given) for given in others]

    assert again == done
    for status, code, detail in refusals:
        assert (status, code) == (409, "ALREADY_DECIDED")
        assert detail.startswith('it was answered with {"amount":5} by ann at 20')
    assert await told(kit, "second") == [done]


async def test_of_two_answers_at_the_same_moment_one_wins_and_the_other_learns_of_it(
    kit: Kit,
) -> None:
    for number in range(20):
        to = await asked(kit, f"race{number}")
        given = [
            Decide(decision="approved", by="ann"),
            Decide(decision="denied", by="bob"),
        ]
        results = await asyncio.gather(*(kit.ask(to, one) for one in given), return_exceptions=True)
        [won] = [one for one in results if isinstance(one, Decided)]
        [lost] = [one for one in results if isinstance(one, Refused)]

        assert lost.refusal.code == "ALREADY_DECIDED"
        assert won.by in lost.refusal.detail
        assert await told(kit, f"race{number}") == [won]


async def test_a_request_that_is_repeated_is_answered_as_the_first_was(kit: Kit) -> None:
    to = await asked(kit, "repeat")
    given, origin = Decide(decision="approved", by="ann"), Origin(id="req-1", bodyhash="h")
    first = await kit.ask(to, given, origin=origin)

    assert await kit.ask(to, given, origin=origin) == first


async def test_nobody_can_answer_what_nobody_asked(kit: Kit) -> None:
    answer = await refused(kit, Address(APPROVAL, "nothing"), Decide(decision="approved"))

    assert answer == (404, "approval_not_found", "there is no question 'nothing'")


@pytest.mark.parametrize(
    ("more", "given", "why"),
    [
        ({}, {"decision": "answered", "answer": 5}, "/decision: this is a question of yes or no"),
        ({}, {"decision": "approved", "answer": 0}, "/answer: this is a question of yes or no"),
        (SIZES, {"decision": "answered", "answer": "L"}, "/answer: 'L': expected one of S"),
        (SIZES, {"decision": "approved"}, "/answer: None: expected one of S, M"),
        ({"answers": AMOUNT}, {"decision": "answered"}, "/answer: null is not right: type"),
        (
            {"answers": AMOUNT},
            {"decision": "approved", "answer": {"amount": 99}},
            "/answer/amount: 99 is not right: maximum is 50",
        ),
        ({"answers": AMOUNT}, {"decision": "denied", "answer": 1}, "/answer: a no has none"),
        ({}, {"decision": "denied", "note": "x" * 5000}, "/note: 5000 characters"),
    ],
)
async def test_an_answer_that_does_not_fit_is_refused_with_the_place_and_changes_nothing(
    kit: Kit, more: dict[str, Any], given: dict[str, Any], why: str
) -> None:
    id = f"misfit-{abs(hash((str(more), str(given))))}"
    to = await asked(kit, id, **more)
    status, code, detail = await refused(kit, to, Decide(**given))

    assert (status, code) == (422, "answer_invalid")
    assert detail.startswith(why)
    assert (await state(kit, id)).decided is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"answers": {"$ref": "https://example.com/s"}}, "answers: /$ref: 'https://example.com/s'"),
        ({"answers": {"pattern": "(a+)+"}}, "answers: /pattern: the pattern '(a+)+' repeats"),
        ({"question": " "}, "question: 1 characters, expected 1 to"),
        ({"details": {"x": "y" * 40_000}}, "details: 40008 bytes, at most"),
        ({"seconds": 0.1}, "seconds: 0.1, expected 1 to 2.592e+06, the lifetime of 'approval'"),
        ({"seconds": 1e9}, "seconds: 1000000000.0, expected"),
        ({"choices": ["a", "a"]}, "choices: 2, expected at most 50, each once"),
        ({"assume": "answered", "assume_answer": 7, "answers": AMOUNT}, "assume: /answer: 7"),
        ({"assume": "withdrawn"}, "assume: 'withdrawn', expected"),
        ({"tool": "t" * 300}, "tool: 300 characters, at most 200"),
    ],
)
async def test_whoever_asks_what_cannot_be_asked_is_told_so_instead_of_waiting(
    kit: Kit, more: dict[str, Any], why: str
) -> None:
    id = f"fault-{abs(hash(str(more)))}"
    to = await asked(kit, id, **more)
    [heard] = await told(kit, id)
    late = await refused(kit, to, Decide(decision="approved", by="ann"))

    assert heard.decision == "withdrawn"
    assert heard.fault.startswith(why)
    assert late[:2] == (409, "ALREADY_DECIDED")
    assert await kit.events(approval_topic(id), ApprovalAsked) == []


@pytest.mark.parametrize(
    ("more", "decision", "answer"),
    [
        ({}, "expired", None),
        ({"assume": "denied"}, "denied", None),
        (
            {"assume": "answered", "assume_answer": {"amount": 1}, "answers": AMOUNT},
            "answered",
            {"amount": 1},
        ),
    ],
)
async def test_when_its_time_is_over_what_was_to_be_assumed_holds(
    kit: Kit, more: dict[str, Any], decision: str, answer: Any
) -> None:
    id = f"over-{decision}"
    to = await asked(kit, id, seconds=60, **more)
    await kit.advance(timedelta(seconds=59))
    before = await told(kit, id)
    await kit.advance(timedelta(seconds=2))
    [heard] = await told(kit, id)
    late = await refused(kit, to, Decide(decision="approved", by="ann"))

    assert before == []
    assert (heard.decision, heard.answer, heard.defaulted) == (decision, answer, True)
    assert late[1] == "ALREADY_DECIDED"
    assert "nobody answered within 60 s" in late[2]


async def test_an_answer_in_time_leaves_nothing_to_come_later(kit: Kit) -> None:
    to = await asked(kit, "in-time", seconds=60)
    await kit.ask(to, Decide(decision="approved", by="ann"))
    await kit.advance(timedelta(seconds=61))

    assert [one.decision for one in await told(kit, "in-time")] == ["approved"]


async def test_who_does_not_want_to_know_any_more_withdraws(kit: Kit) -> None:
    to = await asked(kit, "off")
    await kit.tell(CLERK, CallOff(id="off"))
    await kit.tell(CLERK, CallOff(id="off"))
    [heard] = await told(kit, "off")
    late = await refused(kit, to, Decide(decision="approved", by="ann"))
    await kit.tell(CLERK, CallOff(id="never-asked"))
    await applied(kit, CLERK, Address(APPROVAL, "never-asked"))

    assert (heard.decision, heard.note, heard.by) == ("withdrawn", "it was paid", "clerk/c")
    assert late[1] == "ALREADY_DECIDED"
    assert (await state(kit, "never-asked")) == ApprovalState()


async def test_a_question_of_nobody_in_particular_is_followed(kit: Kit) -> None:
    """Whoever has no address, or is gone, may still read what it came to."""
    to = Address(APPROVAL, "loose")
    await kit.tell(to, AskPerson(question="Well?", team="", reply="gone/a"))
    await applied(kit, to)
    answered = await kit.ask(to, Decide(decision="approved"))

    assert await kit.event(approval_topic("loose"), Decided) == answered
