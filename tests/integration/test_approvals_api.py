"""Questions at the edge: found, followed and answered by HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from actors.approval import Approval
from runtime.tables import KeyTable
from runtime.testing import Kit, running
from schemas.approval import APPROVAL, AskPerson
from schemas.base import Address
from tests.integration.agents import ADMIN_KEY, call, lighten, log_in, make_agent
from tests.integration.edges import Edge, serving
from tests.integration.feed import feed
from tests.integration.persons import applied

pytestmark = pytest.mark.asyncio(loop_scope="module")

DESK, READER, SITE = "d" * 8 + "esk-secret", "r" * 8 + "ead-secret", "s" * 8 + "ite-secret"
KEYS = {
    DESK: KeyTable(id="desk", secret_env="DESK", scopes=["desk:read", "desk:act"]),
    READER: KeyTable(id="reader", secret_env="READER", scopes=["desk:read"]),
    ADMIN_KEY: KeyTable(id="office", secret_env="OFFICE"),
    SITE: KeyTable(id="site", secret_env="SITE", scopes=["chat:send", "chat:read"]),
}
FROM_AFAR = {"X-Forwarded-For": "192.0.2.7", "Content-Type": "application/json"}
AS_DESK, AS_READER, AS_SITE = (
    {"X-Relay-API-Key": key, **FROM_AFAR} for key in (DESK, READER, SITE)
)
AMOUNT = {"type": "object", "properties": {"amount": {"type": "number", "maximum": 50}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(approval=Approval) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(kit: Kit) -> AsyncIterator[tuple[Edge, Edge]]:
    async with serving(kit.server.url, keys=KEYS) as one, serving(kit.server.url, keys=KEYS) as two:
        for edge in (one, two):
            edge.client.headers.update(AS_DESK)
        yield one, two


async def ask(kit: Kit, id: str, question: str = "Well?", **more: Any) -> None:
    to = Address(APPROVAL, id)
    await kit.tell(to, AskPerson(question=question, **more))
    await applied(kit, to)


async def decide(edge: Edge, id: str, **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    return await edge.post(f"/api/approvals/{id}", body, headers=headers)


async def listed(edge: Edge, query: str = "") -> list[str]:
    answer = await edge.get(f"/api/approvals{query}")
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["approvals"]]


async def test_a_question_is_seen_and_answered_and_seen_answered_on_another_edge(
    kit: Kit, edges: tuple[Edge, Edge]
) -> None:
    here, there = edges
    more: dict[str, Any] = {"answers": AMOUNT, "details": {"order": 7}, "tool": "refund"}
    await ask(kit, "seen", "How much?", conversation="c1", **more)
    before = (await here.get("/api/approvals/seen")).json()
    answered = await decide(here, "seen", decision="answered", answer={"amount": 5}, note="ok")
    after = (await there.get("/api/approvals/seen")).json()

    assert {key: before[key] for key in ("status", "question", "details", "answers", "tool")} == {
        "status": "open",
        "question": "How much?",
        "details": {"order": 7},
        "answers": AMOUNT,
        "tool": "refund",
    }
    assert before["due"] > before["asked"]
    assert answered.status_code == 200
    assert after == answered.json()
    assert after["status"] == "answered"
    assert (after["decided"]["answer"], after["decided"]["by"]) == ({"amount": 5}, "desk")


async def test_a_second_answer_is_a_409_that_tells_what_the_first_was_and_whose(
    kit: Kit, edges: tuple[Edge, Edge]
) -> None:
    here, there = edges
    await ask(kit, "twice")
    first = await decide(here, "twice", decision="approved", by="ann")
    again = await decide(there, "twice", decision="approved", by="ann")
    other = await decide(there, "twice", decision="denied", by="bob")
    problem = other.json()

    assert (first.status_code, again.status_code, other.status_code) == (200, 200, 409)
    assert first.json() == again.json()
    assert problem["code"] == "ALREADY_DECIDED"
    assert "approved by ann (desk)" in problem["detail"]
    assert problem["decided"]["by"] == "ann (desk)"


async def test_of_two_answers_within_a_moment_one_is_taken_and_the_other_refused(
    kit: Kit, edges: tuple[Edge, Edge]
) -> None:
    for number in range(10):
        await ask(kit, f"both{number}")
        answers = await asyncio.gather(
            decide(edges[0], f"both{number}", decision="approved", by="ann"),
            decide(edges[1], f"both{number}", decision="denied", by="bob"),
        )
        won, lost = sorted(answers, key=lambda one: one.status_code)

        assert (won.status_code, lost.status_code) == (200, 409)
        assert lost.json()["decided"] == won.json()["decided"]


async def test_a_repeated_request_is_answered_as_the_first_was(
    kit: Kit, edges: tuple[Edge, Edge]
) -> None:
    await ask(kit, "repeated")
    once = {"Idempotency-Key": "k1"}
    first = await decide(edges[0], "repeated", decision="approved", headers=once)
    again = await decide(edges[1], "repeated", decision="approved", headers=once)
    reused = await decide(edges[1], "repeated", decision="denied", headers=once)

    assert first.json() == again.json()
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reuse")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"decision": "answered", "answer": {"amount": 99}}, "/answer/amount"),
        ({"decision": "approved"}, "/answer"),
        ({"decision": "maybe"}, "/decision"),
        ({"answer": 5}, "/decision"),
        ({"decision": "denied", "note": "x" * 5000}, "/note"),
    ],
)
async def test_what_does_not_fit_is_refused_with_a_pointer_to_it(
    kit: Kit, edges: tuple[Edge, Edge], body: dict[str, Any], pointer: str
) -> None:
    await ask(kit, "pointed", answers=AMOUNT)
    refused = await decide(edges[0], "pointed", **body)

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == pointer


async def test_open_questions_are_listed_by_team_until_they_are_answered(
    kit: Kit, edges: tuple[Edge, Edge]
) -> None:
    here, there = edges
    for number in range(5):
        await ask(kit, f"open{number}", team="sales", seconds=1000 - number)
    await ask(kit, "other-team", team="billing")
    both = [await listed(edge, "?team=sales") for edge in edges]
    await decide(here, "open3", decision="approved")
    after = await listed(there, "?team=sales")

    assert both[0] == both[1] == ["open4", "open3", "open2", "open1", "open0"]
    assert after == ["open4", "open2", "open1", "open0"]
    assert await listed(there, "?team=sales&limit=2") == ["open4", "open2"]
    assert await listed(there, "?team=sales&status=all&limit=3") == ["open3", "open4", "open2"]
    assert "other-team" in await listed(there)
    assert await listed(there, "?team=nobody") == []


async def test_who_follows_a_question_is_told_how_it_stands_and_what_it_comes_to(
    kit: Kit, edges: tuple[Edge, Edge]
) -> None:
    here, there = edges
    await ask(kit, "followed")
    path = "/api/approvals/followed/events"
    async with contextlib.AsyncExitStack() as stack:
        stream = await stack.enter_async_context(feed(there, path, **AS_READER))
        [reset] = await stream.take(1)
        await decide(here, "followed", decision="approved", by="ann")
        [decided] = await stream.until("approval.decided")
        resumed = await stack.enter_async_context(
            feed(here, f"{path}?after={reset.cursor}", **AS_READER)
        )
        [same] = await resumed.take(1)

    assert reset.data["snapshot"]["status"] == "open"
    assert decided.said["by"] == "ann (desk)"
    assert (same.cursor, same.said) == (decided.cursor, decided.said)


async def test_what_nobody_asked_is_not_there_and_leaves_nothing(
    kit: Kit, edges: tuple[Edge, Edge]
) -> None:
    here, _ = edges
    answers = [
        await here.get("/api/approvals/none"),
        await here.get("/api/approvals/none/events"),
        await decide(here, "none", decision="approved"),
        await here.get("/api/approvals/" + "x" * 300),
    ]

    assert [one.status_code for one in answers] == [404] * 4
    assert {one.json()["code"] for one in answers} == {"approval_not_found"}
    assert await kit.record(Address(APPROVAL, "none")) is None


@pytest.mark.parametrize("query", ["?status=closed", "?limit=0", "?limit=201", "?team=a&team=b"])
async def test_a_list_that_cannot_be_is_refused(edges: tuple[Edge, Edge], query: str) -> None:
    refused = await edges[0].get(f"/api/approvals{query}")

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")


async def test_reading_and_answering_need_their_scopes(kit: Kit, edges: tuple[Edge, Edge]) -> None:
    here, _ = edges
    await ask(kit, "guarded")
    answers = [
        await here.get("/api/approvals", headers=AS_SITE),
        await here.get("/api/approvals/guarded", headers=AS_SITE),
        await decide(here, "guarded", decision="approved", headers=AS_READER),
        await here.get("/api/approvals/guarded", headers=AS_READER),
    ]

    assert [one.status_code for one in answers] == [403, 403, 403, 200]


async def test_an_agent_answers_in_their_own_name_and_for_their_own_team(
    kit: Kit, edges: tuple[Edge, Edge]
) -> None:
    here, there = edges
    lighten(here)
    await make_agent(here, "ann", name="Ann", teams=["sales"])
    await make_agent(here, "lea", "lead", teams=["support"])
    for id, team in (("mine", "sales"), ("theirs", "billing")):
        await ask(kit, id, team=team)
    ann, lea = [(await log_in(here, name))["token"] for name in ("ann", "lea")]

    async def post(id: str, token: str, **body: Any) -> httpx.Response:
        given = {"decision": "approved", **body}
        return await call(there, "POST", f"/api/approvals/{id}", given, token=token)

    async def read(path: str, token: str) -> httpx.Response:
        return await call(there, "GET", f"/api/approvals{path}", token=token)

    listed = {one["id"] for one in (await read("?limit=200", ann)).json()["approvals"]}
    every = {one["id"] for one in (await read("?limit=200", lea)).json()["approvals"]}
    seen = [(await read(path, ann)).status_code for path in ("/mine", "/theirs", "/theirs/events")]
    borrowed = await post("mine", ann, by="bob")
    foreign = await post("theirs", ann)
    own = await post("mine", ann)
    lead = await post("theirs", lea)

    assert listed & {"mine", "theirs"} == {"mine"}
    assert {"mine", "theirs"} <= every
    assert seen == [200, 403, 403]
    assert (borrowed.status_code, borrowed.json()["code"]) == (403, "not_yours")
    assert (foreign.status_code, foreign.json()["code"]) == (403, "not_your_team")
    assert (own.status_code, own.json()["decided"]["by"]) == (200, "ann")
    assert (lead.status_code, lead.json()["decided"]["by"]) == (200, "lea")
