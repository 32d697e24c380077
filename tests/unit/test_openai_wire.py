"""How servers of OpenAI's chat completions differ, and fail, within a stream."""

import json
from typing import Any

import pytest

from actors.models.events import Counted, Ended, Refusal, Started, ToolDelta
from actors.models.openai import OpenAI
from schemas.model import Usage
from tests.unit.provider_double import Outcome, outcome_of, says, writes

DONE = b"data: [DONE]\n\n"
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def chunk(finish: str | None = None, index: int = 0, **delta: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "1", "choices": [choice]}).encode() + b"\n\n"


async def streamed(*frames: bytes, **changes: Any) -> Outcome:
    return await outcome_of(OpenAI(), writes(*frames), **changes)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
async def test_reasoning_is_read_by_each_of_its_names(field: str) -> None:
    thought: Any = {field: "hm", "content": None}
    said: Any = {field: None, "content": "hi"}

    outcome = await streamed(chunk(**thought), chunk(**said), STOP, DONE)

    assert (outcome.reasoning, outcome.text) == ("hm", "hi")


async def test_reasoning_that_is_said_under_two_names_counts_once() -> None:
    outcome = await streamed(chunk(reasoning_content="hm", reasoning="hm"), STOP, DONE)

    assert outcome.reasoning == "hm"


async def test_think_tags_split_across_chunks_hold_reasoning() -> None:
    outcome = await streamed(
        chunk(content="<thi"), chunk(content="nk>hm</thi"), chunk(content="nk>\n\nhi"), STOP, DONE
    )

    assert (outcome.reasoning, outcome.text) == ("hm", "hi")


async def test_thoughts_without_an_opening_tag_are_told_by_the_dialect() -> None:
    frames = [chunk(content="hm</thi"), chunk(content="nk>hi"), STOP, DONE]

    outcome = await streamed(*frames, dialect={"thinks": "opened"})

    assert (outcome.reasoning, outcome.text) == ("hm", "hi")


async def test_tags_are_text_where_reasoning_has_a_field() -> None:
    outcome = await streamed(chunk(reasoning="hm"), chunk(content="<think>x</think>"), STOP, DONE)

    assert (outcome.reasoning, outcome.text) == ("hm", "<think>x</think>")


async def test_what_looked_like_a_tag_at_the_end_is_text() -> None:
    outcome = await streamed(chunk(content="<thi"), STOP, DONE)

    assert outcome.text == "<thi"
    assert outcome.last == Ended("stop")


@pytest.mark.parametrize(
    ("reason", "ended"),
    [
        ("stop", Ended("stop")),
        ("length", Ended("length")),
        ("tool_calls", Ended("tool_calls")),
        ("function_call", Ended("tool_calls")),
        ("eos_token", Ended("stop")),
    ],
)
async def test_every_finish_is_one_of_ours(reason: str, ended: Ended) -> None:
    assert (await streamed(chunk(content="hi"), chunk(reason), DONE)).last == ended


async def test_a_filtered_answer_is_a_refusal() -> None:
    outcome = await streamed(chunk(content="How to"), chunk("content_filter"), DONE)

    assert outcome.last == Refusal("the provider's content filter")


async def test_a_lack_of_resources_is_a_fault_of_the_moment() -> None:
    outcome = await streamed(chunk(content="Hel"), chunk("insufficient_system_resource"), DONE)

    assert outcome.code == "overloaded"


async def test_usage_is_counted_in_all_its_parts() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    frame = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"

    outcome = await streamed(STOP, frame, DONE)

    assert outcome.events[-2] == Counted(Usage(prompt=9, completion=5, reasoning=3, cached=4))


async def test_the_cache_of_deepseek_is_counted() -> None:
    frame = b'data: {"choices":[],"usage":{"prompt_tokens":9,"prompt_cache_hit_tokens":8}}\n\n'

    outcome = await streamed(STOP, frame, DONE)

    assert outcome.events[-2] == Counted(Usage(prompt=9, cached=8))


async def test_only_the_last_usage_counts_and_null_is_none() -> None:
    def usage(value: str) -> bytes:
        return b'data: {"choices":[],"usage":%s}\n\n' % value.encode()

    outcome = await streamed(
        usage('{"prompt_tokens":1}'), usage('{"prompt_tokens":2}'), STOP, usage("null"), DONE
    )

    assert [one for one in outcome.events if isinstance(one, Counted)] == [Counted(Usage(prompt=2))]


async def test_of_several_answers_the_first_is_read() -> None:
    outcome = await streamed(
        chunk(content="a"), chunk(index=1, content="b"), chunk("stop", 1), chunk("length"), DONE
    )

    assert outcome.text == "a"
    assert outcome.last == Ended("length")


async def test_padding_unknown_fields_comments_ids_and_pings_do_not_matter() -> None:
    padded = b'data: {"choices":[{"delta":{"content":"hi","x":1}}],"obfuscation":"abc"}\n\n'

    outcome = await streamed(
        b": keep-alive\n\n", b"retry: 3000\n\n", b"id: 4\n\n", b"event: ping\ndata: {}\n\n",
        padded, STOP, DONE,
    )  # fmt: skip

    assert outcome.text == "hi"
    assert outcome.last == Ended("stop")


@pytest.mark.parametrize("change", [(b"\n", b"\r\n"), (b"\n", b"\r"), (b"data: ", b"data:")])
async def test_line_ends_and_spaces_do_not_matter(change: tuple[bytes, bytes]) -> None:
    raw = (chunk(content="hi") + STOP + DONE).replace(*change)

    assert (await streamed(raw)).text == "hi"


async def test_data_in_several_lines_is_one_object() -> None:
    raw = b'data: {"choices":\ndata: [{"delta":{"content":"hi"}}]}\n\n'

    assert (await streamed(raw, STOP, DONE)).text == "hi"


async def test_one_byte_at_a_time_is_enough() -> None:
    raw = chunk(content="天気 🌦") + STOP + DONE

    outcome = await streamed(*(raw[n : n + 1] for n in range(len(raw))))

    assert outcome.text == "天気 🌦"


async def test_what_comes_after_the_end_does_not_count_however_often_it_ends() -> None:
    outcome = await streamed(chunk(content="hi"), STOP, DONE, DONE, chunk(content="!"), STOP, DONE)

    assert outcome.text == "hi"
    assert [event for event in outcome.events if isinstance(event, Ended)] == [Ended("stop")]


async def test_an_empty_chunk_and_the_end_is_no_answer() -> None:
    empty = b'data: {"id":"","object":"","created":0,"model":"","choices":null}\n\n'

    outcome = await streamed(chunk(content="Hel"), empty)

    assert (outcome.text, outcome.code) == ("Hel", "truncated")


@pytest.mark.parametrize("rest", [b'data: {"choices":[{"de', STOP[:-1]])
async def test_an_end_within_an_event_is_no_answer(rest: bytes) -> None:
    outcome = await streamed(chunk(content="Hel"), rest)

    assert (outcome.text, outcome.code) == ("Hel", "truncated")


async def test_an_empty_body_is_no_answer() -> None:
    assert (await streamed()).code == "truncated"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b'data: {"error":{"message":"no","type":"server_error","code":null}}\n\n', "server_error"),
        (
            b'data: {"error":{"message":"no","type":"BadRequestError","code":400}}\n\n',
            "bad_request",
        ),
        (b'event: error\ndata: {"message":"no"}\n\n', "server_error"),
        (b'data: {"error":"no"}\n\n', "server_error"),
        (b'data: {"object":"error","message":"no","code":429}\n\n', "rate_limited"),
        (b'data: {"error":{"message":"no","code":"rate_limit_exceeded"}}\n\n', "rate_limited"),
        (b'data: {"error":{"message":"no","type":"insufficient_quota"}}\n\n', "quota_exhausted"),
        (b'{"error": {"message": "no",\n "code": 503}}\n', "overloaded"),
        (b'[{"error":{"message":"no","code":503,"status":"UNAVAILABLE"}}]\n\n', "overloaded"),
    ],
)
async def test_an_error_in_the_stream_is_a_fault_in_every_shape(frame: bytes, code: str) -> None:
    outcome = await streamed(chunk(content="Hel"), frame, DONE)

    assert (outcome.text, outcome.code) == ("Hel", code)
    assert outcome.fault is not None
    assert outcome.fault.reason == "no"


async def test_an_error_that_is_null_is_none() -> None:
    frame = b'data: {"error":null,"choices":[{"delta":{"content":"hi"}}]}\n\n'

    assert (await streamed(frame, STOP, DONE)).text == "hi"


async def test_an_error_after_the_finish_is_a_fault_still() -> None:
    assert (await streamed(STOP, b'data: {"error":"died"}\n\n', DONE)).code == "server_error"


@pytest.mark.parametrize(
    "frame",
    [
        b"data: nonsense\n\n",
        b"data: 5\n\n",
        b'data: {"choices":[5]}\n\n',
        b'data: {"choices":7}\n\n',
        b'data: {"choices":[{"delta":{"content":{"a":1}}}]}\n\n',
    ],
)
async def test_what_is_no_chunk_is_a_fault(frame: bytes) -> None:
    outcome = await streamed(chunk(content="Hel"), frame, STOP, DONE)

    assert (outcome.text, outcome.code) == ("Hel", "garbled")


async def test_blank_lines_before_an_answer_in_json_are_skipped() -> None:
    body = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'

    outcome = await outcome_of(OpenAI(), writes(*[b"\n"] * 60, body, media="application/json"))

    assert outcome.text == "hi"
    assert outcome.last == Ended("stop")


async def test_a_whole_answer_may_think_without_an_opening_tag() -> None:
    message = {"content": "hm\n</think>\n\nhi"}
    body = {"id": "9", "choices": [{"message": message, "finish_reason": "stop"}]}

    outcome = await outcome_of(OpenAI(), says(body))

    assert outcome.events[0] == Started("9")
    assert (outcome.reasoning, outcome.text) == ("hm\n", "hi")


async def test_a_whole_answer_may_call_tools() -> None:
    calls = [{"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"content": None, "tool_calls": calls}
    body = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}

    outcome = await outcome_of(OpenAI(), says(body))

    assert outcome.tools == [ToolDelta(0, "{}", "call_a", "f")]
    assert outcome.last == Ended("tool_calls")


async def test_a_json_answer_that_is_cut_is_no_answer() -> None:
    outcome = await outcome_of(OpenAI(), says(b'{"choices":[{"message":{"content":"hi"'))

    assert outcome.code == "truncated"


def call(function: dict[str, Any], **more: Any) -> bytes:
    return chunk(tool_calls=[{"function": function} | more])


async def test_whole_calls_under_one_index_are_calls_of_their_own() -> None:
    outcome = await streamed(
        call({"name": "f", "arguments": "{}"}, index=0, id="a"),
        call({"name": "g", "arguments": "{}"}, index=0, id="b"),
        STOP,
        DONE,
    )

    assert outcome.tools == [ToolDelta(0, "{}", "a", "f"), ToolDelta(1, "{}", "b", "g")]
    assert outcome.last == Ended("tool_calls")


async def test_calls_without_an_index_are_told_apart_by_name_and_id() -> None:
    outcome = await streamed(
        call({"name": "f", "arguments": '{"a"'}, id="a"),
        call({"arguments": ":1}"}),
        call({"name": "f", "arguments": "{}"}, id="b"),
        call({"arguments": " "}, id="a"),
        STOP,
    )

    assert [(one.index, one.text) for one in outcome.tools] == [
        (0, '{"a"'),
        (0, ":1}"),
        (1, "{}"),
        (0, " "),
    ]


async def test_a_name_that_is_repeated_with_each_fragment_comes_once() -> None:
    outcome = await streamed(
        call({"name": "f", "arguments": "{"}, index=0, id="a"),
        call({"name": "f", "arguments": "}"}, index=0, id="a"),
        STOP,
    )

    assert outcome.tools == [ToolDelta(0, "{", "a", "f"), ToolDelta(0, "}")]


async def test_a_call_without_an_id_gets_one() -> None:
    outcome = await streamed(chunk(function_call={"name": "f", "arguments": "{}"}), STOP)

    assert outcome.tools[0].call.startswith("call_")


async def test_arguments_that_are_an_object_become_text() -> None:
    outcome = await streamed(call({"name": "f", "arguments": {"a": "é"}}, index=0, id="a"), STOP)

    assert outcome.tools[0].text == '{"a": "é"}'
