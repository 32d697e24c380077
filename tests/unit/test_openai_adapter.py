"""The adapter for OpenAI's chat completions, against servers that write exact bytes."""

import json
from typing import Any

import pytest

from actors.models.events import Counted, Ended, Refusal, Started, TextDelta, ToolDelta
from actors.models.openai import OpenAI
from schemas.model import Usage
from tests.unit.provider_double import (
    KEY,
    Outcome,
    call,
    collect,
    doubled,
    outcome_of,
    plain_client,
    says,
    writes,
)

DONE = b"data: [DONE]\n\n"


def frame(body: Any) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return frame(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]} | more
    )


HELLO = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk({}, "stop"),
    frame({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}),
    DONE,
]


async def streamed(*frames: bytes, **changes: Any) -> Outcome:
    return await outcome_of(OpenAI(), writes(*frames), **changes)


async def test_a_stream_becomes_pieces_then_usage_then_the_end() -> None:
    outcome = await streamed(*HELLO)

    assert outcome.events == [
        Started("chatcmpl-1"),
        TextDelta("Hel"),
        TextDelta("lo"),
        Counted(Usage(prompt=9, completion=2)),
        Ended("stop"),
    ]


async def test_what_is_sent_is_what_the_api_asks_for() -> None:
    async with doubled(writes(*HELLO)) as double, plain_client() as client:
        question = call(client, double.url, settings={"temperature": 0.5, "n": 3, "stream": False})
        await collect(OpenAI(), question)

    asked = double.asked[0]
    assert (asked.method, asked.target) == ("POST", "/v1/chat/completions")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["content-type"] == "application/json"
    assert asked.json == {
        "model": "demo-1",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
    }


async def test_calls_share_a_connection() -> None:
    async with doubled(writes(*HELLO)) as double, plain_client() as client:
        for _ in range(3):
            await collect(OpenAI(), call(client, double.url))

    assert (len(double.asked), double.connections) == (3, 1)


async def test_a_whole_answer_in_json_is_taken_as_well() -> None:
    message = {"role": "assistant", "content": "hi", "refusal": None}
    body = {
        "id": "chatcmpl-9",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1},
    }

    outcome = await outcome_of(OpenAI(), says(body))

    assert outcome.text == "hi"
    assert outcome.last == Ended("stop")


@pytest.mark.parametrize("ended", [[], [DONE]])
async def test_an_answer_without_a_finish_is_no_answer(ended: list[bytes]) -> None:
    outcome = await streamed(chunk({"content": "Hel"}), *ended)

    assert (outcome.text, outcome.code) == ("Hel", "truncated")


async def test_a_finish_without_the_end_marker_is_enough() -> None:
    outcome = await streamed(chunk({"content": "Hi"}), chunk({}, "length"))

    assert outcome.last == Ended("length")


async def test_an_end_marker_after_an_error_is_no_success() -> None:
    error = {"error": {"message": "engine died", "type": "InternalServerError", "code": 500}}

    outcome = await streamed(chunk({"content": "Hel"}), frame(error), DONE)

    assert (outcome.text, outcome.code) == ("Hel", "server_error")


async def test_tool_calls_come_in_fragments_by_index() -> None:
    def piece(index: int, text: str, **more: Any) -> bytes:
        function = {"arguments": text} | ({"name": more.pop("name")} if "name" in more else {})
        return chunk({"tool_calls": [{"index": index, "function": function} | more]})

    outcome = await streamed(
        piece(0, "", id="call_a", name="f"),
        piece(0, '{"a"'),
        piece(1, "", id="call_b", name="g"),
        piece(0, ":1}"),
        piece(1, "{}"),
        chunk({}, "tool_calls"),
        DONE,
    )

    assert outcome.tools == [
        ToolDelta(0, "", "call_a", "f"),
        ToolDelta(0, '{"a"'),
        ToolDelta(1, "", "call_b", "g"),
        ToolDelta(0, ":1}"),
        ToolDelta(1, "{}"),
    ]
    assert outcome.last == Ended("tool_calls")


async def test_a_refusal_is_an_outcome_and_no_fault() -> None:
    outcome = await streamed(
        chunk({"refusal": "I can't "}), chunk({"refusal": "do that"}), chunk({}, "stop"), DONE
    )

    assert outcome.last == Refusal("I can't do that")
