"""The fake of Ollama's own wire: a line for each piece, and its errors."""

from typing import Any

import httpx
import pytest

from actors.fakes.upstream import Upstream
from tests.unit.upstreams import QUESTION, faking


async def chat(
    client: httpx.AsyncClient, upstream: Upstream, model: str = "demo", **more: Any
) -> httpx.Response:
    body = {"model": model, "messages": QUESTION} | more
    return await client.post(f"{upstream.url}/api/chat", json=body)


def lines(answer: httpx.Response) -> list[Any]:
    return [httpx.Response(200, text=line).json() for line in answer.text.splitlines()]


async def test_an_answer_is_lines_of_json_of_which_the_last_is_done() -> None:
    async with faking("ollama") as (upstream, client):
        answer = await chat(client, upstream)
        said = lines(answer)

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "".join(each["message"]["content"] for each in said) == "You said: good morning to you"
    assert [each["done"] for each in said] == [False] * 6 + [True]
    assert said[-1]["done_reason"] == "stop"
    assert (said[-1]["prompt_eval_count"], said[-1]["eval_count"]) == (4, 6)


async def test_an_answer_can_come_whole_with_thoughts() -> None:
    async with faking("ollama") as (upstream, client):
        answer = await chat(client, upstream, stream=False, think=True)
    said = answer.json()

    assert answer.headers["content-type"].startswith("application/json")
    assert said["message"]["content"] == "You said: good morning to you"
    assert said["message"]["thinking"] == "The user wants an answer."
    assert said["done"] is True


async def test_thoughts_and_calls_come_in_lines_of_their_own() -> None:
    async with faking("ollama") as (upstream, client):
        thought = lines(await chat(client, upstream, think=True))
        called = lines(await chat(client, upstream, "demo+tools"))
    call = called[0]["message"]["tool_calls"][0]

    assert [each["message"].get("thinking") for each in thought][:4] == [
        "The user ",
        "wants ",
        "an answer.",
        None,
    ]
    assert call["function"]["arguments"] == {"city": "Paris"}


async def test_a_failure_on_the_way_is_a_line_under_200() -> None:
    async with faking("ollama") as (upstream, client):
        answer = await chat(client, upstream, "demo+error=1")
        said = lines(answer)

    assert answer.status_code == 200
    assert len(said) == 2
    assert set(said[-1]) == {"error"}


async def test_a_truncated_answer_has_no_line_that_is_done() -> None:
    async with faking("ollama") as (upstream, client):
        said = lines(await chat(client, upstream, "demo+truncated"))

    assert [each["done"] for each in said] == [False, False]


async def test_counts_may_be_missing_and_an_answer_may_be_a_load() -> None:
    async with faking("ollama") as (upstream, client):
        cached = lines(await chat(client, upstream, "demo+no-counts"))
        loaded = lines(await chat(client, upstream, "demo+load"))
        empty = lines(await chat(client, upstream, messages=[]))

    assert "prompt_eval_count" not in cached[-1]
    assert [each["done_reason"] for each in loaded] == ["load"]
    assert [each["done_reason"] for each in empty] == ["load"]


@pytest.mark.parametrize(
    ("model", "status", "said"),
    [
        ("demo+no-model", 404, "model 'demo' not found"),
        (
            "demo+503",
            503,
            "server busy, please try again.  maximum pending requests exceeded",
        ),
        ("demo+no-thinking", 400, '"demo" does not support thinking'),
    ],
)
async def test_errors_are_in_ollamas_words(model: str, status: int, said: str) -> None:
    async with faking("ollama") as (upstream, client):
        answer = await chat(client, upstream, model, think=True)

    assert (answer.status_code, answer.json()) == (status, {"error": said})


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
        },
    ],
)
async def test_what_only_openai_takes_is_refused(message: dict[str, Any]) -> None:
    async with faking("ollama") as (upstream, client):
        answer = await chat(client, upstream, messages=[message])

    assert answer.status_code == 400
    assert "json: cannot unmarshal" in answer.json()["error"]


async def test_a_server_is_found_by_its_version_and_lists_its_models() -> None:
    async with faking("ollama", models=("a:1b",)) as (upstream, client):
        version = (await client.get(f"{upstream.url}/api/version")).json()
        tags = (await client.get(f"{upstream.url}/api/tags")).json()
        imitated = (await client.get(f"{upstream.url}/v1/models")).json()

    assert set(version) == {"version"}
    assert [model["model"] for model in tags["models"]] == ["a:1b"]
    assert [model["id"] for model in imitated["data"]] == ["a:1b"]
