"""A stream of OpenAI's, byte by byte."""

import msgspec

from edge.chunks import COMMENT, DONE, Chunks, count, error_chunk
from edge.openai_shapes import ChatChunk
from edge.problem import Refusal
from schemas.model import Usage
from schemas.record import Delta

HEAD = (
    b'data: {"id":"chatcmpl-9x","object":"chat.completion.chunk","created":1769904000,'
    b'"model":"demo-1","choices":['
)


def chunks(*, usage: bool = False) -> Chunks:
    return Chunks("chatcmpl-9x", 1769904000, "demo-1", usage=usage)


def test_a_choice_begins_with_its_role_goes_on_with_text_and_ends_with_a_reason() -> None:
    made = chunks()

    assert made.role(0) == HEAD + (
        b'{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,'
        b'"finish_reason":null}]}\n\n'
    )
    assert made.piece(0, Delta(text="hi")) == HEAD + (
        b'{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
    )
    assert made.finish(1, "stop") == HEAD + b'{"index":1,"delta":{},"finish_reason":"stop"}]}\n\n'


def test_usage_is_null_on_every_chunk_but_its_own_if_it_is_wanted_and_absent_if_not() -> None:
    counted = count([Usage(prompt=9, completion=1, reasoning=1, cached=4)])
    wanted = chunks(usage=True)

    assert wanted.finish(0, "stop").endswith(b'"finish_reason":"stop"}],"usage":null}\n\n')
    assert b"usage" not in chunks().role(0)
    assert wanted.usage(counted) == HEAD + (
        b'],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10,'
        b'"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":1,"audio_tokens":0,'
        b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}\n\n'
    )


def test_what_a_model_thinks_is_a_field_of_its_own() -> None:
    assert chunks().piece(0, Delta(text="hm", kind="reasoning")) == HEAD + (
        b'{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]}\n\n'
    )


def test_a_call_has_its_id_and_name_once_and_its_index_always() -> None:
    first = Delta(text="", kind="tool", index=1, call="call_1", name="f")
    more = Delta(text='{"a"', kind="tool", index=1)

    assert chunks().piece(0, first) == HEAD + (
        b'{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_1","type":"function",'
        b'"function":{"name":"f","arguments":""}}]},"finish_reason":null}]}\n\n'
    )
    assert chunks().piece(0, more) == HEAD + (
        b'{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{\\"a\\""}}]},'
        b'"finish_reason":null}]}\n\n'
    )


def test_a_line_end_in_the_text_ends_no_line_of_the_stream() -> None:
    written = chunks().piece(0, Delta(text="a\nb\r\n\u2028data: x\n\n"))

    assert written.count(b"\n") == 2
    assert b"\r" not in written
    decoded = msgspec.json.decode(written[len(b"data: ") :], type=ChatChunk)
    assert decoded.choices[0].delta.content == "a\nb\r\n\u2028data: x\n\n"


def test_an_error_in_the_stream_has_the_shape_that_clients_raise_for() -> None:
    assert error_chunk(Refusal(502, "truncated", "it broke off")) == (
        b'data: {"error":{"message":"it broke off","type":"server_error","param":null,'
        b'"code":"truncated"}}\n\n'
    )


def test_beside_chunks_a_stream_has_comments_and_one_end() -> None:
    assert COMMENT == b":\n\n"
    assert DONE == b"data: [DONE]\n\n"


def test_the_usage_of_several_choices_is_their_sum() -> None:
    counted = count([Usage(prompt=9, completion=1), Usage(prompt=9, completion=2, reasoning=1)])

    assert (counted.prompt_tokens, counted.completion_tokens, counted.total_tokens) == (18, 3, 21)
    assert counted.completion_tokens_details.reasoning_tokens == 1
