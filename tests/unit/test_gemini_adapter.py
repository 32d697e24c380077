"""The adapter for Gemini, against servers that write exact bytes."""

import json
from typing import Any

import pytest

from actors.models.events import (
    Counted,
    Ended,
    ReasoningDelta,
    Refusal,
    Started,
    TextDelta,
    ToolDelta,
)
from actors.models.gemini import Gemini
from schemas.model import FileRef, Image, Text, ToolCall, Usage, Utterance
from tests.unit.provider_double import (
    KEY,
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


def answer(*parts: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0}
    if parts:
        candidate["content"] = {"parts": list(parts), "role": "model"}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "r1"} | more


def frame(body: Any) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\r\n\r\n"


HELLO = [
    answer({"text": "hm", "thought": True}, usageMetadata={"promptTokenCount": 4}),
    answer({"text": "Hel"}),
    answer(
        {"text": "lo"},
        finish="STOP",
        usageMetadata={
            "promptTokenCount": 4,
            "candidatesTokenCount": 2,
            "thoughtsTokenCount": 3,
            "cachedContentTokenCount": 1,
        },
    ),
]
HEARD = [
    Started("r1"),
    ReasoningDelta("hm"),
    TextDelta("Hel"),
    TextDelta("lo"),
    Counted(Usage(prompt=4, completion=5, reasoning=3, cached=1)),
    Ended("stop"),
]


async def streamed(*bodies: Any, **changes: Any) -> Outcome:
    frames = [body if isinstance(body, bytes) else frame(body) for body in bodies]
    return await outcome_of(Gemini(), writes(*frames), **changes)


async def asked(**changes: Any) -> Any:
    async with doubled(writes(*map(frame, HELLO))) as double, plain_client() as client:
        await collect(Gemini(), call(client, double.url, **changes))
    return double.asked[0]


async def test_frames_become_pieces_then_the_last_usage_then_the_end() -> None:
    assert (await streamed(*HELLO)).events == HEARD


@pytest.mark.parametrize("indent", [None, 2])
async def test_an_array_that_comes_piece_by_piece_is_read_as_well(indent: int | None) -> None:
    raw = json.dumps(HELLO, indent=indent).encode()
    pieces = [raw[n : n + 7] for n in range(0, len(raw), 7)]

    outcome = await outcome_of(Gemini(), writes(*pieces, media="application/json"))

    assert outcome.events == HEARD


async def test_the_key_is_in_a_header_and_not_in_the_url() -> None:
    request = await asked(model="gemini-2.5-flash")

    assert request.target == "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == KEY
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("model", "path"),
    [("tunedModels/x-1", "/v1beta/tunedModels/x-1"), ("a?b", "/v1beta/models/a%3Fb")],
)
async def test_a_model_is_named_as_a_resource(model: str, path: str) -> None:
    assert (await asked(model=model)).target.startswith(f"{path}:stream")


async def test_an_end_without_a_finish_is_no_answer() -> None:
    outcome = await streamed(answer({"text": "Hel"}))

    assert (outcome.text, outcome.code) == ("Hel", "truncated")


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT"])
async def test_a_blocked_prompt_is_a_refusal(reason: str) -> None:
    body = {"promptFeedback": {"blockReason": reason, "safetyRatings": []}}

    assert (await streamed(body)).last == Refusal(f"the prompt was blocked: {reason}")


@pytest.mark.parametrize("parts", [(), ({"text": "How to"},)])
async def test_a_blocked_answer_is_a_refusal_with_and_without_text(parts: Any) -> None:
    outcome = await streamed(answer(*parts, finish="SAFETY"))

    assert outcome.last == Refusal("the answer was blocked: SAFETY")


async def test_an_answer_that_was_cut_by_length_may_have_no_text() -> None:
    usage = {"promptTokenCount": 4, "thoughtsTokenCount": 1024}

    outcome = await streamed(answer(finish="MAX_TOKENS", usageMetadata=usage))

    assert outcome.text == ""
    assert outcome.last == Ended("length")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("MALFORMED_FUNCTION_CALL", "garbled"),
        ("OTHER", "server_error"),
        ("SOMETHING_NEW", "server_error"),
        ("MISSING_THOUGHT_SIGNATURE", "bad_request"),
    ],
)
async def test_a_finish_that_leaves_no_answer_is_a_fault(reason: str, code: str) -> None:
    assert (await streamed(answer({"text": "Hel"}, finish=reason))).code == code


async def test_an_unspecified_finish_is_none() -> None:
    unspecified = answer({"text": "hi"}, finish="FINISH_REASON_UNSPECIFIED")

    assert (await streamed(unspecified)).code == "truncated"
    assert (await streamed(unspecified, answer(finish="STOP"))).last == Ended("stop")


RAW = b"""{
  "error": {
    "code": 503,
    "message": "The model is overloaded.",
    "status": "UNAVAILABLE"
  }
}"""


@pytest.mark.parametrize("raw", [RAW, RAW + b"\r\n", b"[" + RAW + b"]", frame(json.loads(RAW))])
async def test_an_error_in_the_stream_is_a_fault_raw_or_framed(raw: bytes) -> None:
    outcome = await streamed(answer({"text": "Hel"}), raw)

    assert (outcome.text, outcome.code) == ("Hel", "overloaded")
    assert outcome.fault is not None
    assert outcome.fault.reason == "The model is overloaded."


async def test_an_error_in_a_streamed_array_is_a_fault() -> None:
    raw = b"[" + json.dumps(answer({"text": "Hel"})).encode() + b",\r\n" + RAW + b"]"

    outcome = await outcome_of(Gemini(), writes(raw, media="application/json"))

    assert (outcome.text, outcome.code) == ("Hel", "overloaded")


async def test_an_error_may_be_in_an_array_and_say_when_to_come_back() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}]
    error = {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": details}

    outcome = await outcome_of(Gemini(), says([{"error": error}], status=429))

    assert outcome.fault is not None
    assert (outcome.code, outcome.fault.retry_after) == ("rate_limited", 36)


async def test_names_may_be_spelled_with_underscores() -> None:
    body = {
        "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finish_reason": "MAX_TOKENS"}],
        "usage_metadata": {"prompt_token_count": 4},
        "response_id": "r9",
    }

    outcome = await streamed(body)

    assert outcome.events[0] == Started("r9")
    assert outcome.events[-2:] == [Counted(Usage(prompt=4)), Ended("length")]


async def test_other_candidates_do_not_count() -> None:
    other = {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}}]}

    assert (await streamed(*HELLO[:2], other, *HELLO[2:])).text == "Hello"


async def test_a_picture_and_nothing_else_is_no_answer_that_we_can_give() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}

    assert (await streamed(answer(picture, finish="STOP"))).code == "bad_request"
    assert (await streamed(answer(picture, {"text": "x"}, finish="STOP"))).last == Ended("stop")


@pytest.mark.parametrize(
    "body", [{"candidates": [5]}, answer({"text": 5}), answer({"functionCall": {"args": {}}})]
)
async def test_what_is_no_answer_of_gemini_is_garbled(body: Any) -> None:
    assert (await streamed(body)).code == "garbled"


async def test_function_calls_become_tool_calls_with_ids() -> None:
    called = {"functionCall": {"name": "f", "args": {"a": 1}}}
    given = {"functionCall": {"name": "f", "id": "fc_1"}}

    outcome = await streamed(answer(called, called, given, finish="STOP"))

    first, second, third = outcome.tools
    assert (first.index, first.name, first.text) == (0, "f", '{"a":1}')
    assert first.call.startswith("call_")
    assert first.call != second.call
    assert third == ToolDelta(2, "{}", "fc_1", "f")
    assert outcome.last == Ended("tool_calls")


def turn(call: str) -> tuple[Utterance, ...]:
    made = ToolCall(id=call, name="f", arguments='{"a":1}')
    result = Utterance(role="tool", call=call, content=(Text("42"),))
    return (said("hi"), Utterance(role="assistant", calls=(made,)), result)


async def test_what_a_call_was_signed_with_goes_back() -> None:
    signed = {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln-_"}
    gemini = Gemini()
    answered = writes(frame(answer(signed, finish="STOP")))
    async with doubled(answered) as double, plain_client() as client:
        first = await collect(gemini, call(client, double.url))
        await collect(gemini, call(client, double.url, messages=turn(first.tools[0].call)))

    contents = double.asked[1].json["contents"]
    assert contents[1:] == [
        {"role": "model", "parts": [signed]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "f", "response": {"result": 42}}}],
        },
    ]


@pytest.mark.parametrize(
    ("model", "signature"),
    [("gemini-2.5-flash", None), ("gemini-3-pro", "skip_thought_signature_validator")],
)
async def test_a_call_that_nobody_remembers_signed_goes_unsigned_where_it_may(
    model: str, signature: str | None
) -> None:
    part = (await asked(model=model, messages=turn("call_lost"))).json["contents"][1]["parts"][0]

    assert part.get("thoughtSignature") == signature


async def load(file: FileRef) -> bytes:
    return b"\xfb\xff"


async def test_messages_become_contents() -> None:
    image = Image(file=FileRef(id="1", media="image/png"))
    messages = (
        said("be brief", "system"),
        said("and kind", "developer"),
        Utterance(role="user", content=(Text("look"), image, Text(""))),
        Utterance(role="user", content=(Image(url="https://example.com/a.png"),)),
        said("a cat", "assistant"),
        said("sure?"),
    )

    body = (await asked(messages=messages, load=load)).json

    assert body["systemInstruction"] == {"parts": [{"text": "be brief"}, {"text": "and kind"}]}
    assert body["contents"] == [
        {
            "role": "user",
            "parts": [
                {"text": "look"},
                {"inlineData": {"mimeType": "image/png", "data": "+/8="}},
                {"fileData": {"fileUri": "https://example.com/a.png"}},
            ],
        },
        {"role": "model", "parts": [{"text": "a cat"}]},
        {"role": "user", "parts": [{"text": "sure?"}]},
    ]


async def test_rules_alone_are_something_to_answer() -> None:
    body = (await asked(messages=(said("say hi", "system"),))).json

    assert body == {"contents": [{"role": "user", "parts": [{"text": "say hi"}]}]}


async def test_settings_become_a_generation_config() -> None:
    settings = {
        "temperature": 0.1,
        "top_p": 0.9,
        "max_tokens": 5,
        "stop": "x",
        "n": 2,
        "seed": None,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
    }
    extra = {"generationConfig": {"topK": 4}, "safetySettings": []}

    body = (await asked(settings=settings, extra=extra)).json

    assert body["safetySettings"] == []
    assert body["generationConfig"] == {
        "temperature": 0.1,
        "topP": 0.9,
        "topK": 4,
        "maxOutputTokens": 5,
        "stopSequences": ["x"],
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 1024},
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
    }


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "f"}},
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
    ],
)
async def test_tools_become_function_declarations(choice: Any, config: Any) -> None:
    schema = {"type": "object", "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]

    body = (await asked(settings={"tools": tools, "tool_choice": choice})).json

    assert body["tools"] == [
        {"functionDeclarations": [{"name": "f", "description": "", "parametersJsonSchema": schema}]}
    ]
    assert body["toolConfig"] == {"functionCallingConfig": config}


@pytest.mark.parametrize(
    ("text", "response"),
    [('{"a": 1}', {"a": 1}), ("sunny", {"result": "sunny"}), ("[1]", {"result": [1]})],
)
async def test_a_tools_answer_is_an_object(text: str, response: Any) -> None:
    messages = (*turn("call_1")[:2], Utterance(role="tool", call="call_1", content=(Text(text),)))

    contents = (await asked(messages=messages)).json["contents"]

    assert contents[2]["parts"] == [{"functionResponse": {"name": "f", "response": response}}]
