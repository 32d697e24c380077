"""Fakes that speak OpenAI's wire, in all dialects: what a client reads is what providers say."""

from typing import Any

import httpx
import pytest

from actors.fakes.upstream import Upstream
from tests.unit.upstreams import QUESTION, chunks, faking, stream, texts

DIALECTS = ("openai", "deepseek", "qwen", "vllm", "ollama-v1")


async def whole(
    client: httpx.AsyncClient, upstream: Upstream, model: str = "demo", **more: Any
) -> Any:
    body = {"model": model, "messages": QUESTION} | more
    return (await client.post(f"{upstream.url}/chat/completions", json=body)).json()


@pytest.mark.parametrize("kind", DIALECTS)
async def test_a_stream_has_a_role_first_one_finish_and_done_last(kind: str) -> None:
    async with faking(kind) as (upstream, client):
        answer = await stream(client, upstream)
    said = chunks(answer.text)

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert said[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(texts(said)) == "You said: good morning to you"
    assert [part["choices"][0]["finish_reason"] for part in said[:-1]].count("stop") == 1
    assert said[-1] == "[DONE]"
    assert len({part["id"] for part in said[:-1]}) == 1
    assert all("usage" not in part for part in said[:-1])


@pytest.mark.parametrize("kind", DIALECTS)
async def test_usage_comes_last_where_it_is_asked_for(kind: str) -> None:
    async with faking(kind) as (upstream, client):
        answer = await stream(client, upstream, stream_options={"include_usage": True})
        without = await stream(
            client, upstream, "demo+no-usage", stream_options={"include_usage": True}
        )
    said = chunks(answer.text)

    assert said[-2]["choices"] == []
    assert said[-2]["usage"]["prompt_tokens"] == 4
    assert said[-2]["usage"]["completion_tokens"] == 6
    assert all(part["usage"] is None for part in said[:-2])
    assert "usage" not in without.text


@pytest.mark.parametrize("kind", DIALECTS)
async def test_an_answer_can_come_whole(kind: str) -> None:
    async with faking(kind) as (upstream, client):
        answer = await whole(client, upstream)

    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "You said: good morning to you"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == 10


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("deepseek", "reasoning_content"),
        ("qwen", "reasoning_content"),
        ("vllm", "reasoning"),
        ("ollama-v1", "reasoning"),
    ],
)
async def test_thoughts_stand_in_the_field_of_their_dialect(kind: str, field: str) -> None:
    async with faking(kind) as (upstream, client):
        said = chunks((await stream(client, upstream, "demo+reasoning")).text)
        old = chunks((await stream(client, upstream, "demo+reasoning=reasoning_content")).text)

    assert "".join(texts(said, field)) == "The user wants an answer."
    assert "".join(texts(said)) == "You said: good morning to you"
    assert "".join(texts(old, "reasoning_content")) == "The user wants an answer."


async def test_deepseek_has_null_where_it_says_nothing() -> None:
    async with faking("deepseek") as (upstream, client):
        said = chunks((await stream(client, upstream, "demo+reasoning")).text)
    deltas = [part["choices"][0]["delta"] for part in said[1:-2]]

    assert deltas[0] == {"reasoning_content": "The user ", "content": None}
    assert deltas[-1] == {"content": " you", "reasoning_content": None}


async def test_thoughts_can_stand_in_tags_and_tags_in_two_chunks() -> None:
    async with faking() as (upstream, client):
        tags = texts(chunks((await stream(client, upstream, "demo+reasoning=think")).text))
        lone = texts(chunks((await stream(client, upstream, "demo+reasoning=lone")).text))
        split = texts(chunks((await stream(client, upstream, "demo+split-think")).text))

    assert "".join(tags).startswith("<think>The user wants an answer.</think>\n\nYou said:")
    assert "".join(lone).startswith("The user wants an answer.</think>\n\nYou said:")
    assert "".join(split) == "".join(tags)
    assert split[:2] == ["<th", "ink>"]
    assert [each[-5:] for each in split if each.endswith("</thi")] == ["</thi"]


async def test_tool_calls_come_in_fragments_and_from_ollama_whole() -> None:
    tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    async with faking() as (upstream, client):
        said = chunks((await stream(client, upstream, "demo+tools=2", tools=tools)).text)
        message = (await whole(client, upstream, "demo+tools"))["choices"][0]["message"]
    async with faking("ollama-v1") as (upstream, client):
        ollama = chunks((await stream(client, upstream, "demo+tools")).text)
    calls = [part["choices"][0]["delta"].get("tool_calls", [{}])[0] for part in said[1:-2]]

    assert [call["index"] for call in calls] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert calls[0]["id"] == "call_0"
    assert calls[0]["function"] == {"name": "find", "arguments": ""}
    assert "".join(call["function"]["arguments"] for call in calls[:4]) == '{"city": "Paris"}'
    assert said[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert message["tool_calls"][0]["function"]["arguments"] == '{"city": "Paris"}'
    assert len([part for part in ollama[:-1] if "tool_calls" in part["choices"][0]["delta"]]) == 1


async def test_several_choices_interleave_and_end_each() -> None:
    async with faking() as (upstream, client):
        said = chunks((await stream(client, upstream, n=2)).text)
    indices = [part["choices"][0]["index"] for part in said[:-1]]
    ends = [part["choices"][0]["index"] for part in said[-3:-1]]

    assert indices == [0, 1] * (len(indices) // 2)
    assert ends == [0, 1]
    assert all(part["choices"][0]["finish_reason"] == "stop" for part in said[-3:-1])


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ("openai", ['"code":null}}']),
        ("deepseek", ['"code":null}}']),
        ("vllm", ['"code":500}}', "[DONE]"]),
        ("ollama-v1", ['"delta":{"role":"assistant","content":""},"finish_reason":null}]}']),
    ],
)
async def test_each_dialect_fails_on_the_way_in_its_own_manner(kind: str, ends: list[str]) -> None:
    async with faking(kind) as (upstream, client):
        blocks = (await stream(client, upstream, "demo+error=1")).text.rstrip().split("\n\n")

    assert all(block.endswith(end) for block, end in zip(blocks[2:], ends, strict=True))
    assert upstream.asked[0].outcome == "broken"


async def test_ollamas_ids_collide() -> None:
    async with faking("ollama-v1") as (upstream, client):
        ids = [(await whole(client, upstream))["id"] for _ in range(4)]

    assert ids[0] == ids[3]


@pytest.mark.parametrize(
    ("kind", "fault", "status", "code"),
    [
        ("openai", "400", 400, None),
        ("openai", "401", 401, "invalid_api_key"),
        ("openai", "403", 403, None),
        ("openai", "404", 404, "model_not_found"),
        ("openai", "409", 409, None),
        ("openai", "422", 422, None),
        ("openai", "429", 429, "rate_limit_exceeded"),
        ("openai", "quota", 429, "insufficient_quota"),
        ("openai", "context", 400, "context_length_exceeded"),
        ("openai", "500", 500, None),
        ("openai", "503", 503, "server_is_overloaded"),
        ("deepseek", "quota", 402, "invalid_request_error"),
        ("vllm", "404", 404, 404),
        ("ollama-v1", "404", 404, None),
    ],
)
async def test_errors_are_in_the_providers_words(
    kind: str, fault: str, status: int, code: str | int | None
) -> None:
    async with faking(kind) as (upstream, client):
        answer = await stream(client, upstream, f"demo+{fault}")
    error = answer.json()["error"]

    assert answer.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code


@pytest.mark.parametrize(
    ("hint", "header", "value"),
    [
        ("=7", "retry-after", "7"),
        ("=1500ms", "retry-after-ms", "1500"),
        ("=reset", "x-ratelimit-reset-requests", "1m6.5s"),
        ("", "retry-after", None),
    ],
)
async def test_a_429_says_when_to_try_again_or_does_not(
    hint: str, header: str, value: str | None
) -> None:
    async with faking() as (upstream, client):
        answer = await stream(client, upstream, f"demo+429{hint}")

    assert answer.headers.get(header) == value


async def test_deepseek_shows_that_it_lives_while_it_waits_for_room() -> None:
    async with faking("deepseek") as (upstream, client):
        waiting = (await stream(client, upstream, "demo+wait=3")).text
        body = {"model": "demo+wait", "messages": QUESTION}
        blank = await client.post(f"{upstream.url}/chat/completions", json=body)

    assert waiting.startswith(": keep-alive\n\n" * 3 + "data: {")
    assert blank.text.startswith("\n" * 60 + "{")
    assert blank.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fault", "finish"), [("finish", "length"), ("finish=content_filter", "content_filter")]
)
async def test_an_answer_can_finish_otherwise(fault: str, finish: str) -> None:
    async with faking() as (upstream, client):
        said = chunks((await stream(client, upstream, f"demo+{fault}")).text)

    assert said[-2]["choices"][0]["finish_reason"] == finish


async def test_models_are_listed_and_others_are_not_there() -> None:
    async with faking(models=("org/a", "b"), key="sk-good") as (upstream, client):
        client.headers["authorization"] = "Bearer sk-good"
        listed = (await client.get(f"{upstream.url}/models")).json()
        one = (await client.get(f"{upstream.url}/models/org/a")).json()
        unknown = await stream(client, upstream, "c")
        client.headers["authorization"] = "Bearer sk-bad"
        refused = await stream(client, upstream, "b")

    assert [model["id"] for model in listed["data"]] == ["org/a", "b"]
    assert one["object"] == "model"
    assert unknown.status_code == 404
    assert refused.json()["error"]["code"] == "invalid_api_key"


async def test_a_fault_that_is_not_there_is_said_to_be_none() -> None:
    async with faking() as (upstream, client):
        answer = await stream(client, upstream, "demo+truncatd")

    assert answer.status_code == 400
    assert "fault 'truncatd' is not on the menu" in answer.json()["error"]["message"]
