"""The fake of Gemini's wire: frames, the long array, blocked questions and answers, errors."""

import json
from typing import Any

import httpx
import pytest

from actors.fakes.upstream import Upstream
from tests.unit.upstreams import faking

CONTENTS = [{"role": "user", "parts": [{"text": "good morning to you"}]}]


async def generate(
    client: httpx.AsyncClient,
    upstream: Upstream,
    model: str = "demo",
    how: str = "streamGenerateContent?alt=sse",
    **more: Any,
) -> httpx.Response:
    return await client.post(
        f"{upstream.url}/models/{model}:{how}", json={"contents": CONTENTS} | more
    )


def frames(text: str) -> list[Any]:
    return [json.loads(block.removeprefix("data: ")) for block in text.split("\r\n\r\n") if block]


def said_in(answers: list[Any]) -> str:
    candidates = [each["candidates"][0] for each in answers]
    parts = [part for each in candidates for part in each["content"]["parts"]]
    return "".join(part["text"] for part in parts if not part.get("thought"))


async def test_a_stream_has_crlf_frames_and_ends_with_its_finish_reason() -> None:
    async with faking("gemini") as (upstream, client):
        answer = await generate(client, upstream)
    said = frames(answer.text)
    finishes = [each["candidates"][0].get("finishReason") for each in said]

    assert answer.headers["content-type"] == "text/event-stream"
    assert said_in(said) == "You said: good morning to you"
    assert finishes == [None] * 5 + ["STOP"]
    assert said[-1]["usageMetadata"] == {
        "promptTokenCount": 4,
        "candidatesTokenCount": 6,
        "totalTokenCount": 10,
    }


async def test_without_alt_sse_a_stream_is_one_array() -> None:
    async with faking("gemini") as (upstream, client):
        answer = await generate(client, upstream, how="streamGenerateContent")
        broken = await generate(client, upstream, "demo+error", how="streamGenerateContent")
        cut = await generate(client, upstream, "demo+truncated", how="streamGenerateContent")

    assert said_in(answer.json()) == "You said: good morning to you"
    assert broken.json()[-1]["error"]["status"] == "INTERNAL"
    assert not cut.text.endswith("]")


async def test_an_answer_can_come_whole_with_thoughts() -> None:
    config = {"thinkingConfig": {"include_thoughts": True}}
    async with faking("gemini") as (upstream, client):
        answer = await generate(client, upstream, how="generateContent", generationConfig=config)
    parts = answer.json()["candidates"][0]["content"]["parts"]

    assert parts == [
        {"text": "The user wants an answer.", "thought": True},
        {"text": "You said: good morning to you"},
    ]
    assert answer.json()["usageMetadata"]["thoughtsTokenCount"] == 3


async def test_a_blocked_question_is_200_without_candidates() -> None:
    async with faking("gemini") as (upstream, client):
        answer = await generate(client, upstream, "demo+blocked")
    (said,) = frames(answer.text)

    assert answer.status_code == 200
    assert said["promptFeedback"] == {"blockReason": "SAFETY"}
    assert "candidates" not in said


@pytest.mark.parametrize(
    ("fault", "finish"),
    [
        ("safety", "SAFETY"),
        ("safety=RECITATION", "RECITATION"),
        ("max-tokens", "MAX_TOKENS"),
    ],
)
async def test_an_answer_may_have_a_reason_and_no_content(fault: str, finish: str) -> None:
    async with faking("gemini") as (upstream, client):
        (said,) = frames((await generate(client, upstream, f"demo+{fault}")).text)

    assert said["candidates"] == [{"finishReason": finish, "index": 0}]


async def test_a_failure_on_the_way_is_raw_json_or_a_frame() -> None:
    async with faking("gemini") as (upstream, client):
        raw = (await generate(client, upstream, "demo+error")).text
        framed = (await generate(client, upstream, "demo+error+error-frame")).text

    assert raw.split("\r\n\r\n")[-1].startswith('{\n  "error": {\n    "code": 503')
    assert frames(framed)[-1]["error"]["status"] == "UNAVAILABLE"


async def test_a_truncated_answer_has_no_finish_reason() -> None:
    async with faking("gemini") as (upstream, client):
        few = frames((await generate(client, upstream, "demo+truncated")).text)
        most = frames((await generate(client, upstream, "demo+truncated=99")).text)

    assert (len(few), len(most)) == (2, 5)
    assert all("finishReason" not in each["candidates"][0] for each in few + most)


async def test_a_call_of_a_function_is_a_part() -> None:
    tools = [{"function_declarations": [{"name": "find"}]}]
    async with faking("gemini") as (upstream, client):
        said = frames((await generate(client, upstream, "demo+tools", tools=tools)).text)
    part = said[0]["candidates"][0]["content"]["parts"][0]

    assert part == {"functionCall": {"name": "find", "args": {"city": "Paris"}}}


async def test_a_429_says_in_its_details_when_to_try_again() -> None:
    async with faking("gemini") as (upstream, client):
        soon = (await generate(client, upstream, "demo+429=36")).json()["error"]
        today = (await generate(client, upstream, "demo+quota")).json()["error"]
        wrapped = (
            await generate(client, upstream, "demo+429=1500ms", how="streamGenerateContent")
        ).json()

    assert soon["status"] == "RESOURCE_EXHAUSTED"
    assert soon["details"][1]["retryDelay"] == "36s"
    assert "PerDay" in today["details"][0]["violations"][0]["quotaId"]
    assert wrapped[0]["error"]["details"][1]["retryDelay"] == "1.5s"


async def test_a_wrong_key_is_400() -> None:
    async with faking("gemini", key="good") as (upstream, client):
        client.headers["x-goog-api-key"] = "bad"
        refused = await generate(client, upstream)
        client.headers["x-goog-api-key"] = "good"
        taken = await generate(client, upstream)

    assert refused.status_code == 400
    assert refused.json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert taken.status_code == 200


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ([], "contents is not specified"),
        ([{"role": "system", "parts": [{"text": "x"}]}], "Please use a valid role: user, model."),
        ([{"role": "user", "parts": []}], "contents.parts must not be empty"),
    ],
)
async def test_what_gemini_does_not_take_is_refused(contents: list[Any], said: str) -> None:
    async with faking("gemini") as (upstream, client):
        answer = await generate(client, upstream, contents=contents)

    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
