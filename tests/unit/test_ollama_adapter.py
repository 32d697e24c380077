"""The adapter for Ollama's own interface, against servers that write exact bytes."""

import json
from typing import Any

import pytest

from actors.models.events import Counted, Ended, Started, TextDelta, ToolDelta, Upstream
from actors.models.ollama import Ollama
from schemas.model import FileRef, Image, Text, ToolCall, Usage, Utterance
from tests.unit.provider_double import (
    Outcome,
    call,
    collect,
    doubled,
    outcome_of,
    plain_client,
    said,
    says,
    writes,
)

NDJSON = "application/x-ndjson"
DONE: dict[str, Any] = {
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 11,
    "eval_count": 7,
}


def line(content: Any = "", **more: Any) -> bytes:
    top = {name: more.pop(name) for name in list(more) if name.startswith(("done", "eval", "prom"))}
    message = {"role": "assistant", "content": content} | more
    return json.dumps({"model": "q", "message": message, "done": False} | top).encode() + b"\n"


async def streamed(*lines: bytes, **changes: Any) -> Outcome:
    return await outcome_of(Ollama(), writes(*lines, media=NDJSON), **changes)


async def asked(**changes: Any) -> Any:
    async with doubled(writes(line("hi", **DONE))) as double, plain_client() as client:
        await collect(Ollama(), call(client, double.url, **changes))
    return double.asked[0]


async def test_lines_become_pieces_then_usage_then_the_end() -> None:
    outcome = await streamed(line(thinking="hm"), line("Hi"), line(" you"), line(**DONE))

    assert outcome.reasoning == "hm"
    assert outcome.events[0] == Started()
    assert outcome.events[2:] == [
        TextDelta("Hi"),
        TextDelta(" you"),
        Counted(Usage(prompt=11, completion=7)),
        Ended("stop"),
    ]


async def test_a_line_may_be_cut_anywhere_and_the_last_one_may_lack_its_end() -> None:
    raw = line("天気") + line("🌦") + line(**DONE).rstrip()

    outcome = await streamed(*(raw[n : n + 1] for n in range(len(raw))))

    assert outcome.text == "天気🌦"
    assert outcome.last == Ended("stop")


@pytest.mark.parametrize(
    ("done", "finish"),
    [({"done_reason": "stop"}, "stop"), ({"done_reason": "length"}, "length"), ({}, "stop")],
)
async def test_done_is_the_end_and_says_why(done: dict[str, Any], finish: Any) -> None:
    assert (await streamed(line("hi"), line(done=True, **done))).last == Ended(finish)


async def test_counts_may_be_missing() -> None:
    outcome = await streamed(line("hi"), line(done=True, eval_count=3))

    assert outcome.events[-2] == Counted(Usage(completion=3))


async def test_without_done_it_is_no_answer() -> None:
    outcome = await streamed(line("Hel"), line("lo"))

    assert (outcome.text, outcome.code) == ("Hello", "truncated")


@pytest.mark.parametrize("reason", ["load", "unload"])
async def test_a_model_that_was_only_loaded_has_not_answered(reason: str) -> None:
    assert (await streamed(line(done=True, done_reason=reason))).code == "truncated"


async def test_an_error_line_is_a_fault_though_the_status_was_good() -> None:
    outcome = await streamed(line("Hel"), b'{"error":"llama runner process has terminated"}\n')

    assert (outcome.text, outcome.code) == ("Hel", "server_error")
    assert outcome.fault is not None
    assert outcome.fault.reason == "llama runner process has terminated"


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, '"q" does not support thinking', "bad_request"),
        (404, "model 'q' not found, try pulling it first", "model_not_found"),
        (500, "out of memory", "server_error"),
        (503, "server busy, please try again.  maximum pending requests exceeded", "overloaded"),
    ],
)
async def test_errors_are_strings(status: int, error: str, code: str) -> None:
    outcome = await outcome_of(Ollama(), says({"error": error}, status=status))

    assert outcome.fault is not None
    assert (outcome.code, outcome.fault.status) == (code, status)
    assert outcome.fault.reason == " ".join(error.split())


async def test_a_tool_call_has_an_object_for_arguments_and_becomes_text() -> None:
    function = {"index": 0, "name": "f", "arguments": {"a": "é"}}

    outcome = await streamed(
        line(tool_calls=[{"id": "call_x", "function": function}, {"function": function}]),
        line(tool_calls=[{"id": "call_x", "function": {"name": "g"}}]),
        line(**DONE),
    )

    first, second, third = outcome.tools
    assert first == ToolDelta(0, '{"a":"é"}', "call_x", "f")
    assert (second.index, third.index, third.text) == (1, 2, "{}")
    assert len({first.call, second.call, third.call}) == 3
    assert outcome.last == Ended("tool_calls")


async def test_think_tags_hold_reasoning_unless_it_has_a_field() -> None:
    tagged = await streamed(line("<think>hm</th"), line("ink>hi"), line(**DONE))
    field = await streamed(line(thinking="hm"), line("<think>hi"), line(**DONE))

    assert (tagged.reasoning, tagged.text) == ("hm", "hi")
    assert (field.reasoning, field.text) == ("hm", "<think>hi")


async def test_a_whole_answer_in_one_document_is_taken_as_well() -> None:
    body = {"message": {"role": "assistant", "content": "hi"}, **DONE}

    outcome = await outcome_of(Ollama(), says(json.dumps(body, indent=2).encode()))

    assert outcome.text == "hi"
    assert outcome.last == Ended("stop")


@pytest.mark.parametrize("raw", [b"nonsense\n", b'{"message":5}\n', b'{"message":{"content":5}}\n'])
async def test_what_is_no_line_of_ollama_is_garbled(raw: bytes) -> None:
    assert (await streamed(line("Hel"), raw, line(**DONE))).code == "garbled"


async def test_nothing_is_read_behind_the_end() -> None:
    assert (await streamed(line("hi"), line(**DONE), b'{"error":"late"}\n')).last == Ended("stop")


async def test_calls_share_a_connection() -> None:
    answer = writes(line("hi"), line(**DONE), media=NDJSON)
    async with doubled(answer) as double, plain_client() as client:
        for _ in range(3):
            await collect(Ollama(), call(client, double.url))

    assert (len(double.asked), double.connections) == (3, 1)


async def test_settings_become_options() -> None:
    request = await asked(
        settings={
            "temperature": 0.1,
            "max_completion_tokens": 5,
            "stop": ["x"],
            "user": "u",
            "seed": None,
        }
    )

    assert request.target == "/api/chat"
    assert request.json == {
        "model": "demo-1",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "options": {"temperature": 0.1, "num_predict": 5, "stop": ["x"]},
    }


async def test_what_a_deployment_adds_is_merged_into_the_request() -> None:
    request = await asked(
        settings={"temperature": 0.1}, extra={"keep_alive": "5m", "options": {"num_ctx": 8192}}
    )

    assert request.json["keep_alive"] == "5m"
    assert request.json["options"] == {"temperature": 0.1, "num_ctx": 8192}


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("low", "low"), ("minimal", "low"), ("xhigh", "max")]
)
async def test_effort_becomes_thinking(effort: str, think: Any) -> None:
    assert (await asked(settings={"reasoning_effort": effort})).json["think"] == think


@pytest.mark.parametrize(
    ("wanted", "form"),
    [
        ({"type": "json_object"}, "json"),
        (
            {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
            {"type": "object"},
        ),
        ({"type": "text"}, None),
    ],
)
async def test_a_response_format_becomes_a_format(wanted: Any, form: Any) -> None:
    assert (await asked(settings={"response_format": wanted})).json.get("format") == form


async def test_tools_and_their_results_go_back_as_objects() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    made = ToolCall(id="call_1", name="f", arguments='{"a": 1}')
    messages = (
        said("be brief", "developer"),
        said("hi"),
        Utterance(role="assistant", calls=(made,), reasoning="hm"),
        Utterance(role="tool", call="call_1", content=(Text("42"),)),
    )

    body = (await asked(messages=messages, settings={"tools": tools})).json

    assert body["tools"] == tools
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": {"a": 1}}}],
            "thinking": "hm",
        },
        {"role": "tool", "content": "42", "tool_call_id": "call_1", "tool_name": "f"},
    ]


async def test_tools_that_must_not_be_called_are_not_told_of() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]

    assert "tools" not in (await asked(settings={"tools": tools, "tool_choice": "none"})).json


async def load(file: FileRef) -> bytes:
    return b"\x89PNG"


async def test_images_go_along_in_base64() -> None:
    image = Image(file=FileRef(id="1", media="image/png"))
    messages = (Utterance(role="user", content=(Text("what is "), image, Text("this"))),)

    request = await asked(messages=messages, load=load)

    assert request.json["messages"] == [
        {"role": "user", "content": "what is this", "images": ["iVBORw=="]}
    ]


async def test_an_image_elsewhere_is_refused_before_anybody_is_asked() -> None:
    messages = (Utterance(role="user", content=(Image(url="https://example.com/a.png"),)),)
    async with doubled(writes()) as double, plain_client() as client:
        outcome = await collect(Ollama(), call(client, double.url, messages=messages))

    assert outcome.code == "bad_request"
    assert double.asked == []


async def test_an_ollama_without_a_key_is_asked_without_one() -> None:
    async with doubled(writes(line(**DONE))) as double, plain_client() as client:
        await collect(Ollama(), call(client, "", upstream=Upstream(double.url)))

    assert "authorization" not in double.asked[0].headers
