"""The fake of Coze's wire: tokens, conversations, and the events of a workflow's chat."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from actors.fakes.upstream import Upstream
from tests.unit.signing import PUBLIC_PEM, STRANGER_PEM, sign
from tests.unit.upstreams import faking

MESSAGES = [{"role": "user", "content": "good morning", "content_type": "text"}]
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


async def token(
    client: httpx.AsyncClient, upstream: Upstream, session: str = "s1", pem: str = ""
) -> httpx.Response:
    claims = {"iss": "app", "aud": "api.coze.com", "jti": "1", "session_name": session}
    return await client.post(
        f"{upstream.url}/api/permission/oauth2/token",
        headers={"authorization": f"Bearer {sign(claims, pem)}"},
        json={"grant_type": GRANT, "duration_seconds": 900},
    )


async def chat(
    client: httpx.AsyncClient, upstream: Upstream, workflow: str = "w1", **more: Any
) -> httpx.Response:
    body = {"workflow_id": workflow, "app_id": "a1", "additional_messages": MESSAGES} | more
    return await client.post(
        f"{upstream.url}/v1/workflows/chat",
        headers={"authorization": "Bearer pat_fake"},
        json=body,
    )


def events(text: str) -> list[tuple[str, Any]]:
    """Events in the one form that the official clients can read: `event: ` and then `data: `."""
    found = []
    for block in text.split("\n\n"):
        if block:
            event, data = block.split("\n")
            assert event.startswith("event: ")
            assert data.startswith("data: ")
            found.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_token_expires_at_an_absolute_time_and_is_its_sessions() -> None:
    async with faking("coze", public_key=PUBLIC_PEM, audience="api.coze.com") as (upstream, client):
        given = (await token(client, upstream, "s7")).json()
        created = await client.post(
            f"{upstream.url}/v1/conversation/create",
            headers={"authorization": f"Bearer {given['access_token']}"},
            json={},
        )

    assert given["token_type"] == "Bearer"
    assert abs(given["expires_in"] - time.time() - 900) < 60
    assert created.json()["data"]["id"].isdecimal()
    assert [call.note for call in upstream.calls] == ["s7", "s7"]
    assert given["access_token"] not in repr(upstream.calls)


async def test_claims_that_do_not_hold_get_no_token() -> None:
    async with faking("coze", public_key=PUBLIC_PEM, audience="api.coze.cn") as (upstream, client):
        forged = await token(client, upstream, pem=STRANGER_PEM)
        elsewhere = await token(client, upstream)

    assert (forged.status_code, elsewhere.status_code) == (401, 401)
    assert forged.json() == {
        "error_code": "invalid_client",
        "error_message": "The signature of the JWT does not hold",
        "error": "invalid_client",
    }
    assert elsewhere.json()["error_message"] == "The JWT is for 'api.coze.com'"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("401", 401, "invalid_request"), ("error_code=access_denied", 401, "access_denied")],
)
async def test_a_token_can_be_refused(fault: str, status: int, code: str) -> None:
    async with faking("coze", fault=f"token={fault}") as (upstream, client):
        answer = await token(client, upstream)

    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


async def test_tokens_can_be_held_at_the_gate_and_last_relatively() -> None:
    async with faking("coze", fault="token=hold&relative&expires=60") as (upstream, client):
        asking = asyncio.create_task(token(client, upstream))
        await upstream.held()
        upstream.release()
        given = await asking

    assert given.json()["expires_in"] == 60


async def test_no_token_or_one_that_was_revoked_is_4100() -> None:
    async with faking("coze") as (upstream, client):
        given = (await token(client, upstream)).json()["access_token"]
        headers = {"authorization": f"Bearer {given}"}
        url = f"{upstream.url}/v1/conversation/create"
        good = await client.post(url, headers=headers, json={})
        upstream.provider.revoke()  # type: ignore[attr-defined]  # Coze's own
        gone = await client.post(url, headers=headers, json={})

    assert good.json()["code"] == 0
    assert (gone.status_code, gone.json()["code"]) == (401, 4100)


async def test_a_chat_is_told_in_plain_events_and_repeats_its_answer_at_the_end() -> None:
    async with faking("coze", key="pat_fake") as (upstream, client):
        answer = await chat(client, upstream)
    said = events(answer.text)
    names = [name.removeprefix("conversation.") for name, _ in said]
    deltas = [data for name, data in said if name == "conversation.message.delta"]

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-tt-logid"]
    assert names == [
        "chat.created",
        "chat.in_progress",
        *["message.delta"] * 4,
        "message.completed",
        "message.completed",
        "chat.completed",
        "done",
    ]
    assert {data["type"] for data in deltas} == {"answer"}
    assert "".join(data["content"] for data in deltas) == "You said: good morning"
    assert said[6][1]["content"] == "You said: good morning"
    assert said[7][1]["type"] == "verbose"
    assert said[8][1]["usage"] == {"token_count": 6, "output_count": 4, "input_count": 2}
    assert set(said[9][1]) == {"debug_url"}


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("failed", ["conversation.chat.failed", "done"]),
        ("requires-action", ["conversation.chat.requires_action", "done"]),
        ("no-done", ["conversation.message.completed", "conversation.chat.completed"]),
        ("no-end", ["conversation.message.completed", "conversation.message.completed"]),
        ("truncated", ["conversation.message.delta", "conversation.message.delta"]),
        ("error", ["conversation.message.delta", "error"]),
    ],
)
async def test_a_chat_can_end_otherwise(fault: str, end: list[str]) -> None:
    async with faking("coze", key="pat_fake") as (upstream, client):
        said = events((await chat(client, upstream, f"w1+{fault}")).text)

    assert [name for name, _ in said][-2:] == end


async def test_an_error_has_a_code_in_letters_or_as_a_number() -> None:
    async with faking("coze", key="pat_fake") as (upstream, client):
        studio = events((await chat(client, upstream, "w1+error")).text)[-1][1]
        usual = events((await chat(client, upstream, "w1+error+number")).text)[-1][1]

    assert (studio["code"], usual["code"]) == ("5000", 5000)


async def test_a_chat_holds_what_is_no_answer() -> None:
    async with faking("coze", key="pat_fake") as (upstream, client):
        follow = events((await chat(client, upstream, "w1+follow-up+verbose")).text)
        ping = events((await chat(client, upstream, "w1+ping")).text)
        silent = events((await chat(client, upstream, "w1+no-delta")).text)
        thought = events((await chat(client, upstream, "w1+reasoning")).text)
        done = events((await chat(client, upstream, "w1+done-text")).text)

    assert [data["content"] for _, data in follow if data.get("type") == "follow_up"] == [
        "And then?",
        "Why?",
    ]
    assert [data.get("type") for _, data in follow].count("verbose") == 2
    assert ("ping", {}) in ping
    assert "conversation.message.delta" not in [name for name, _ in silent]
    assert thought[2][1]["reasoning_content"] == "The user "
    assert done[-1] == ("done", "[DONE]")


@pytest.mark.parametrize(
    ("workflow", "more", "status", "code"),
    [
        ("w1+json", {}, 200, 700012006),
        ("w1+json=6031", {}, 200, 6031),
        ("w1+429", {}, 429, 4013),
        ("w1", {"bot_id": "b1"}, 200, 4000),
        ("w1", {"additional_messages": []}, 200, 4000),
        ("w1", {"conversation_id": "c-invented"}, 200, 103000002),
    ],
)
async def test_errors_before_the_chat_are_json_under_any_status(
    workflow: str, more: dict[str, Any], status: int, code: int
) -> None:
    async with faking("coze", key="pat_fake") as (upstream, client):
        answer = await chat(client, upstream, workflow, **more)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"]["logid"]


async def test_those_who_name_no_conversation_share_one() -> None:
    async with faking("coze") as (upstream, client):
        named = set()
        for session in ("s1", "s2"):
            given = (await token(client, upstream, session)).json()["access_token"]
            answer = await client.post(
                f"{upstream.url}/v1/workflows/chat",
                headers={"authorization": f"Bearer {given}"},
                json={"workflow_id": "w", "bot_id": "b", "additional_messages": MESSAGES},
            )
            named.add(events(answer.text)[0][1]["conversation_id"])

    assert len(named) == 1
    assert [call.note for call in upstream.asked] == ["s1", "s2"]
