"""Chat as Fiido's clients know it: whole and streamed answers, what is refused, who is asked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from runtime.bus import new_id
from runtime.testing import Kit, running
from tests.integration.customers import (
    ACTORS,
    JSON,
    STREAM,
    following,
    say,
    streaming,
    text_of,
)
from tests.integration.edges import Edge, serving
from tests.integration.speaking import calls, gate

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**ACTORS) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


@pytest.mark.promise("FD-04", "FD-07", "FD-22", "FD-25")
async def test_a_customer_is_answered_in_one_piece_under_the_session_they_name(edge: Edge) -> None:
    session = new_id()
    answer = await say(edge, "hello there", user_id=session, unknown=1, parameters={"a": 1})

    found = answer.json()
    assert answer.status_code == 200
    assert found.pop("message_id")
    assert found == {"success": True, "message": "hello there ", "session_name": session}
    assert calls[-1].settings["parameters"] == {"a": 1}


async def test_who_names_no_session_gets_one_that_goes_on(edge: Edge) -> None:
    first = (await say(edge, "hello")).json()
    again = (await say(edge, "more", user_id=first["session_name"])).json()

    assert again["session_name"] == first["session_name"]
    said = ["".join(part.text for part in one.content) for one in calls[-1].messages]  # type: ignore[union-attr]  # texts only
    assert said == ["hello", "hello ", "more"]


@pytest.mark.promise("FD-23")
async def test_two_sessions_share_nothing(edge: Edge) -> None:
    await say(edge, "a secret", user_id=new_id())
    await say(edge, "hello", user_id=new_id())

    assert len(calls[-1].messages) == 1


async def test_a_repeat_under_the_same_key_answers_the_same_and_asks_nobody(edge: Edge) -> None:
    headers = {"Idempotency-Key": new_id()}
    first = await say(edge, "once", headers)
    asked = len(calls)
    again = await say(edge, "once", headers)
    other = await say(edge, "twice", headers)

    assert again.content == first.content
    assert len(calls) == asked
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reuse")


@pytest.mark.parametrize(
    ("code", "status"),
    [("overloaded", 503), ("rate_limited", 429), ("context_too_long", 400)],
)
async def test_a_model_that_fails_is_told_with_a_status_that_fits(
    kit: Kit, edge: Edge, code: str, status: int
) -> None:
    answer = await say(edge, f"fail {code}")

    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert answer.json()["error"] == answer.json()["detail"] == f"it was {code}"


# -- streams -------------------------------------------------------------------------------


@pytest.mark.promise("FD-05", "FD-67", "FD-81", "FD-83")
async def test_each_piece_comes_by_itself_and_the_end_has_all_of_it(edge: Edge) -> None:
    session = new_id()
    async with streaming(edge, f"wait {session}", user_id=session) as stream:
        began = await stream.of("answer")
        gate(session).set()
        rest = await stream.rest()
    headers = stream.response.headers

    assert began[0]["type"] == "connected"
    assert (began[0]["session_name"], began[0]["status"]) == (session, "bot_active")
    assert [each["type"] for each in began[1:] + rest] == ["answer", "answer", "done"]
    assert text_of(began + rest) == rest[-1]["full"] == "one two "
    assert rest[-1]["content"] == ""
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert stream.cursor.isdigit()


async def test_a_stream_is_data_lines_ids_and_comments_only(edge: Edge) -> None:
    body = b'{"message": "hello"}'
    async with edge.client.stream("POST", STREAM, content=body, headers=JSON) as response:
        raw = await response.aread()

    fields = {line.partition(b":")[0] for line in raw.split(b"\n") if line}
    assert fields == {b"", b"id", b"data"}
    assert b"\r" not in raw


async def test_what_an_older_attempt_said_is_taken_back(edge: Edge) -> None:
    name = new_id()
    async with streaming(edge, f"anew {name}", user_id=name) as stream:
        began = await stream.of("answer")
        gate(name).set()
        rest = await stream.rest()

    assert text_of(began) == "old "
    assert [each["type"] for each in rest] == ["reset", "answer", "done"]
    assert rest[0]["message_id"] == began[-1]["message_id"]
    assert rest[-1]["full"] == "new "


async def test_a_failure_within_a_stream_is_told_before_its_end(edge: Edge) -> None:
    async with streaming(edge, "fail context_too_long") as stream:
        told = await stream.rest()

    assert [each["type"] for each in told] == ["connected", "error", "done"]
    assert told[1]["content"] == "it was context_too_long"
    assert told[1]["code"] == told[2]["reason"] == "context_length_exceeded"


async def test_a_lost_stream_goes_on_behind_its_last_event_under_the_same_key(edge: Edge) -> None:
    name = new_id()
    headers = {"Idempotency-Key": name}
    async with streaming(edge, f"wait {name}", headers, user_id=name) as stream:
        await stream.of("answer")
        cursor = stream.cursor
    again = {**headers, "Last-Event-ID": cursor}
    async with streaming(edge, f"wait {name}", again, user_id=name) as stream:
        gate(name).set()
        told = await stream.rest()

    assert text_of(told) == "two "
    assert told[-1]["full"] == "one two "


async def test_a_repeat_after_the_end_gets_all_of_it_at_once(edge: Edge) -> None:
    headers = {"Idempotency-Key": new_id()}
    async with streaming(edge, "hello again", headers) as stream:
        first = await stream.rest()
    async with streaming(edge, "hello again", {**headers, "Last-Event-ID": "1"}) as stream:
        told = await stream.rest()

    assert [each["type"] for each in told] == ["connected", "reset", "answer", "done"]
    assert text_of(told) == told[-1]["full"] == first[-1]["full"] == "hello again "


# -- following -----------------------------------------------------------------------------


@pytest.mark.promise("FD-46")
async def test_a_session_is_followed_from_how_it_stands_and_from_any_cursor(edge: Edge) -> None:
    session = new_id()
    async with streaming(edge, f"wait {session}", user_id=session) as stream:
        await stream.of("answer")
        async with following(edge, f"session_name={session}") as feed:
            joined = await feed.of("connected")
            cursor = feed.cursor
            gate(session).set()
            rest = await feed.of("done")
        await stream.rest()
    async with following(edge, f"user_id={session}&after={cursor}") as feed:
        again = await feed.of("done")

    assert [each["type"] for each in joined] == ["answer", "connected"]
    assert text_of(joined + rest) == rest[-1]["full"] == "one two "
    assert text_of(again) == "two "
    assert "full" not in again[-1]


async def test_a_feed_tells_what_the_customer_said_elsewhere(edge: Edge) -> None:
    session = new_id()
    async with following(edge, f"session_id={session}") as feed:
        connected = await feed.of("connected")
        await say(edge, "hello", user_id=session)
        told = await feed.of("done")

    assert connected[0]["session_name"] == session
    assert [each["type"] for each in told] == ["user_message", "answer", "done"]
    assert told[0]["content"] == "hello"
    assert told[-1]["full"] == "hello "


@pytest.mark.promise("FD-109")
async def test_fifty_feeds_without_a_session_are_fifty_users(edge: Edge) -> None:
    async def follow() -> str:
        async with following(edge) as feed:
            (connected,) = await feed.of("connected")
            return str(connected["session_name"])

    names = await asyncio.gather(*(follow() for _ in range(50)))

    assert len(set(names)) == 50


# -- refused -------------------------------------------------------------------------------

LONG = "x" * (16 * 1024 + 1)


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({}, 422, "invalid_field", "/message: required, but missing"),
        ({"message": 7}, 422, "invalid_field", "/message: expected str, got int"),
        ({"message": None}, 422, "invalid_field", "/message: expected str, got null"),
        ({"message": ""}, 422, "invalid_field", "/message: expected str of length >= 1"),
        ({"message": " \n\t"}, 422, "invalid_field", "/message: says nothing"),
        ({"message": LONG}, 413, "message_too_large", "/message: takes 16385 bytes, at most"),
        ({"message": "x" * 2**20}, 413, "body_too_large", "the body is longer than 262144"),
        ({"message": "hi", "user_id": "a.*"}, 422, "invalid_field", "/user_id: expected str match"),
        ({"message": "hi", "user_id": "a.>"}, 422, "invalid_field", "/user_id: expected str match"),
        ({"message": "hi", "user_id": ""}, 422, "invalid_field", "/user_id: expected str match"),
        ({"message": "hi", "user_id": "a\n"}, 422, "invalid_field", "/user_id: expected str match"),
        ({"message": "hi", "user_id": "a b"}, 422, "invalid_field", "/user_id: expected str match"),
        ({"message": "hi", "user_id": "x" * 129}, 422, "invalid_field", "/user_id"),
        ({"message": "hi", "user_id": 7}, 422, "invalid_field", "/user_id: expected str | null"),
        ({"message": "hi", "parameters": [1]}, 422, "invalid_field", "/parameters: expected obj"),
        ({"message": "hi", "user_profile": {"vip": 1}}, 422, "invalid_field", "/user_profile/vip"),
        ([], 422, "invalid_field", "the body: expected object, got array"),
    ],
)
@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
async def test_what_cannot_be_asked_is_refused_with_the_field(
    edge: Edge, path: str, body: Any, status: int, code: str, words: str
) -> None:
    answer = await edge.post(path, body, headers=JSON)

    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["detail"].startswith(words)
    assert answer.json()["success"] is False
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "user_id", ["客户-17", "a@b.example", "session_1732-x.y:z", "h-" + "0" * 48]
)
async def test_a_session_may_be_called_as_people_are(edge: Edge, user_id: str) -> None:
    answer = await say(edge, "hello", user_id=user_id)

    assert answer.json()["session_name"] == user_id


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("session_name=a%20b", "'session_name' is 'a b', expected 1 to 128"),
        ("session_name=", "'session_name' is '', expected"),
        ("session_name=a&user_id=b", "'user_id' names another session than 'session_name'"),
        ("session_name=a&after=x", "'after' is 'x', expected an integer"),
    ],
)
async def test_a_feed_of_nothing_is_refused_before_it_opens(
    edge: Edge, query: str, words: str
) -> None:
    async with following(edge, query) as feed:
        assert feed.response.status_code == 400
        assert feed.response.json()["detail"].startswith(words)
