"""People in a session, as customers see it: called, waited for, heard; the bot is silent then."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from runtime.bus import new_id
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.ownership import Assignee, Release, TakeOver, Transfer
from tests.integration.customers import (
    ACTORS,
    JSON,
    NOTICE,
    STREAM,
    WORD,
    escalate,
    following,
    say,
    streaming,
    text_of,
    write,
)
from tests.integration.edges import Edge, serving
from tests.integration.speaking import calls, gate

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANN = Assignee(id="ann", name="Ann")
BEN = Assignee(id="ben", name="Ben")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**ACTORS) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


@pytest.fixture
def session() -> str:
    return new_id()


async def take(kit: Kit, session: str, agent: Assignee = ANN) -> None:
    await kit.ask(Address("session", session), TakeOver(agent=agent))


def shown(told: list[dict[str, Any]], *names: str) -> list[list[Any]]:
    return [[each.get(name) for name in names] for each in told]


# -- calling -------------------------------------------------------------------------------


@pytest.mark.promise("FD-43", "FD-58")
async def test_a_customer_calls_a_person_and_reads_how_the_session_stands(
    edge: Edge, session: str
) -> None:
    await say(edge, "hello", user_id=session)
    answer = await escalate(edge, session, user_profile={"nickname": "Zoë", "vip": True})

    told = answer.json()
    assert answer.status_code == 200, answer.text
    assert {name: told[name] for name in told if name != "data"} == {
        "success": True,
        "is_in_shift": True,
        "auto_assigned": False,
        "email_sent": False,
        "changed": True,
    }
    view = told["data"]
    assert view["session_name"] == session
    assert view["status"] == "pending_manual"
    assert view["escalation"]["reason"] == "manual"
    assert view["escalation"]["details"] == "user_request"
    assert view["user_profile"]["nickname"] == "Zoë"
    assert view["priority"]["level"] == "urgent"
    assert view["assigned_agent"] is None
    assert view["last_message"]["content"] == "hello"


async def test_calling_twice_is_no_fault_until_a_person_has_it(
    kit: Kit, edge: Edge, session: str
) -> None:
    first = await escalate(edge, session)
    again = await escalate(edge, session, reason="still waiting")
    await take(kit, session)
    late = await escalate(edge, session)

    assert [first.json()["changed"], again.json()["changed"]] == [True, False]
    assert late.status_code == 409
    assert late.json()["detail"] == late.json()["code"] == "MANUAL_IN_PROGRESS"
    assert late.json()["status"] == "manual_live"


@pytest.mark.promise("FD-08", "FD-28", "FD-29", "FD-30", "FD-69")
@pytest.mark.parametrize("path", ["/api/chat", STREAM])
@pytest.mark.parametrize("mode", ["pending_manual", "manual_live"])
async def test_while_people_have_it_the_bot_is_refused_before_anything_begins(
    kit: Kit, edge: Edge, session: str, path: str, mode: str
) -> None:
    await escalate(edge, session)
    if mode == "manual_live":
        await take(kit, session)
    asked = len(calls)
    answer = await edge.post(path, {"message": "hello", "user_id": session}, headers=JSON)

    body = answer.json()
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == "false"
    assert (body["detail"], body["status"], body["code"]) == (
        "MANUAL_IN_PROGRESS",
        mode,
        "MANUAL_IN_PROGRESS",
    )
    assert body["error"] == f"SESSION_IN_MANUAL_MODE: {mode}"
    assert body["success"] is False
    assert len(calls) == asked


@pytest.mark.promise("FD-42")
async def test_a_word_that_calls_a_person_is_answered_by_a_notice(edge: Edge, session: str) -> None:
    headers = {"Idempotency-Key": new_id()}
    answer = await say(edge, f"我要{WORD}", headers, user_id=session)
    again = await say(edge, f"我要{WORD}", headers, user_id=session)

    assert answer.status_code == 200, answer.text
    assert answer.content == again.content
    assert answer.json() == {
        "success": True,
        "message": NOTICE,
        "session_name": session,
        "escalated": True,
        "session_status": "pending_manual",
    }
    assert (await say(edge, "hello", user_id=session)).status_code == 409


async def test_a_stream_in_which_that_word_is_said_ends_with_the_notice(
    edge: Edge, session: str
) -> None:
    async with streaming(edge, f"我要{WORD}", user_id=session) as stream:
        told = await stream.rest()

    assert shown(told, "type", "status") == [
        ["connected", "pending_manual"],
        ["status_change", "pending_manual"],
        ["manual_message", None],
        ["done", None],
    ]
    assert told[1]["reason"] == "keyword"
    assert (told[2]["role"], told[2]["content"]) == ("system", NOTICE)
    assert (told[3]["reason"], told[3]["full"], told[3]["escalated"]) == ("escalated", NOTICE, True)


async def test_other_protocols_are_told_of_it_by_a_409(edge: Edge, session: str) -> None:
    other = new_id()
    for one in (session, other):
        await say(edge, "hello", user_id=one)
    body = {"model": "demo", "messages": [{"role": "user", "content": WORD}]}
    named = JSON | {"X-Conversation-Id": session}
    answer = await edge.post("/v1/chat/completions", body, headers=named)
    form = {"prompt": WORD, "conversation_id": other, "model": "demo"}
    batch = await edge.client.post("/v1/chat/completions", data=form)

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "MANUAL_IN_PROGRESS")
    assert answer.headers["x-should-retry"] == "false"
    assert (batch.status_code, batch.json()["code"]) == (409, "MANUAL_IN_PROGRESS")
    assert batch.json()["detail"] == answer.json()["error"]["message"] == NOTICE


# -- a person comes while the bot speaks -----------------------------------------------------


@pytest.mark.promise("FD-69")
async def test_a_takeover_ends_the_stream_and_nothing_of_the_bot_follows(
    kit: Kit, edge: Edge, session: str
) -> None:
    async with (
        following(edge, f"session_name={session}") as feed,
        streaming(edge, f"wait {session}", user_id=session) as stream,
    ):
        began = await stream.of("answer")
        await take(kit, session)
        gate(session).set()
        rest = await stream.rest()
        followed = await feed.of("status_change") + await feed.of("status_change")

    assert shown(rest, "type", "status", "reason") == [
        ["status_change", "pending_manual", "taken"],
        ["done", None, "MANUAL_IN_PROGRESS"],
    ] or shown(rest, "type", "status") == [
        ["status_change", "pending_manual"],
        ["done", None],
        ["status_change", "manual_live"],
    ]
    assert text_of(began + rest) == "one "
    assert text_of(followed) == "one "
    assert followed[-1]["status"] == "manual_live"
    assert followed[-1]["agent_info"] == {"agent_id": "ann", "agent_name": "Ann"}


async def test_a_takeover_gives_who_waits_for_the_whole_answer_a_409(
    kit: Kit, edge: Edge, session: str
) -> None:
    waiting = asyncio.create_task(say(edge, f"wait {session}", user_id=session))
    async with following(edge, f"session_name={session}&after=0") as feed:
        await feed.of("answer")
        await take(kit, session)
    answer = await waiting

    assert (answer.status_code, answer.json()["status"]) == (409, "manual_live")


async def test_a_customer_reads_that_an_agent_types_and_not_who_they_are(
    edge: Edge, session: str
) -> None:
    await say(edge, "hello", user_id=session)
    async with following(edge, f"session_name={session}") as feed:
        await feed.of("connected")
        await edge.post(f"/api/sessions/{session}/typing", {}, headers=JSON)
        typing = await feed.one()

    assert typing.data == {
        "type": "typing",
        "session": session,
        "role": "agent",
        "name": "",
        "on": True,
    }


# -- writing -------------------------------------------------------------------------------


@pytest.mark.promise("FD-51", "FD-46", "FD-83")
async def test_what_an_agent_writes_is_stored_and_pushed_to_the_customer(
    kit: Kit, edge: Edge, session: str
) -> None:
    await escalate(edge, session)
    await take(kit, session)
    async with following(edge, f"session_name={session}") as feed:
        connected = await feed.of("connected")
        answer = await write(
            edge, session, "您好", agent_info={"agent_id": "ann", "agent_name": "Ann"}
        )
        pushed = await feed.one()
    async with following(edge, f"session_name={session}&after={int(pushed.cursor) - 1}") as feed:
        again = await feed.one()

    stored = answer.json()
    assert answer.status_code == 200, answer.text
    assert connected[-1]["status"] == "manual_live"
    assert pushed.data == again.data
    assert pushed.data == {
        "type": "manual_message",
        "role": "agent",
        "content": "您好",
        "timestamp": pushed.data["timestamp"],
        "agent_id": "ann",
        "agent_name": "Ann",
        "id": stored["data"]["id"],
    }
    assert stored["success"] is True
    assert stored["data"]["timestamp"] > 0


async def test_a_customer_writes_to_the_person_who_has_their_session(
    kit: Kit, edge: Edge, session: str
) -> None:
    await escalate(edge, session)
    async with following(edge, f"session_name={session}") as feed:
        await feed.of("connected")
        answer = await write(edge, session, "are you there?", role="user")
        (told,) = await feed.of("manual_message")

    assert answer.status_code == 200
    assert (told["role"], told["content"]) == ("user", "are you there?")
    assert told["agent_id"] is None


async def test_people_do_not_write_where_the_bot_has_the_session(edge: Edge, session: str) -> None:
    await say(edge, "hello", user_id=session)
    for role in ("agent", "user"):
        answer = await write(edge, session, "hello", role=role)
        body = answer.json()
        assert answer.status_code == 409
        assert (body["detail"], body["status"]) == ("INVALID_STATUS", "bot_active")


async def test_another_agent_does_not_write_in_it(kit: Kit, edge: Edge, session: str) -> None:
    await escalate(edge, session)
    await take(kit, session)
    answer = await write(edge, session, "hello", agent_info={"agent_id": "ben"})

    assert (answer.status_code, answer.json()["code"]) == (403, "NOT_YOURS")


@pytest.mark.promise("FD-86")
async def test_each_change_is_told_with_who_answers_now(kit: Kit, edge: Edge, session: str) -> None:
    at = Address("session", session)
    await say(edge, "hello", user_id=session)
    async with following(edge, f"session_name={session}") as feed:
        await feed.of("connected")
        await escalate(edge, session)
        await take(kit, session)
        await kit.ask(at, Transfer(agent="ann", to=BEN))
        await kit.ask(at, Release(agent="ben"))
        told: list[dict[str, Any]] = []
        while not told or told[-1].get("status") != "bot_active":
            told += await feed.of("status_change")
    back = await say(edge, "hello again", user_id=session)

    changes = [each for each in told if each["type"] == "status_change"]
    names = [(c["agent_info"] or {}).get("agent_name") for c in changes]
    assert [c["status"] for c in changes] == [
        "pending_manual",
        "manual_live",
        "manual_live",
        "bot_active",
    ]
    assert names == [None, "Ann", "Ben", None]
    assert back.status_code == 200


# -- refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("escalate", {}, 400, "/session_name: required, but missing"),
        ("escalate", {"session_name": "a b"}, 422, "/session_name: expected str matching"),
        ("escalate", {"session_name": "a", "reason": "x" * 501}, 422, "/reason: expected str of"),
        ("messages", {"session_name": "a"}, 400, "/content: required, but missing"),
        ("messages", {"session_name": "a", "content": ""}, 422, "/content: expected str of"),
        ("messages", {"session_name": "a", "content": "x", "role": "bot"}, 422, "/role: invalid"),
        ("messages", {"session_name": "a", "content": "x" * 17000}, 413, "/content: takes 17000"),
        ("messages", {"session_name": "a", "content": "x", "agent_info": {}}, 400, "/agent_info"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_the_field(
    edge: Edge, path: str, body: Any, status: int, words: str
) -> None:
    answer = await edge.post(f"/api/manual/{path}", body, headers=JSON)

    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith(words)
    assert answer.json()["success"] is False
