"""What all readers of answers hold to, however their bytes come, whatever they are."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.models.events import (
    Ended,
    ProviderEvent,
    ReasoningDelta,
    Refusal,
    TextDelta,
    ToolDelta,
)
from actors.models.faults import UpstreamFault
from actors.models.gemini_reader import GeminiReader
from actors.models.ollama import OllamaReader
from actors.models.openai_reader import ChatReader
from actors.models.reader import Reader
from actors.models.trouble import Refused
from actors.models.wording import Discretion
from tests.unit.provider_double import cut

Make = Callable[[], Reader]

READERS: dict[str, Make] = {
    "openai": lambda: ChatReader(Discretion("s3cret")),
    "ollama": lambda: OllamaReader(Discretion("s3cret")),
    "gemini": lambda: GeminiReader(Discretion("s3cret"), lambda call, signature: None),
}
TEXTS = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5)


def read(make: Make, pieces: Iterable[bytes]) -> tuple[list[ProviderEvent], str]:
    """The events, and the code of the fault that ended them."""
    reader, failed = make(), None
    events: list[ProviderEvent] = []
    try:
        for piece in pieces:
            events += reader.feed(piece)
        if not reader.over:
            events += reader.end()
    except UpstreamFault as fault:
        failed = fault
    except Refused:
        return events, "refused"
    if failed is None:
        return events, ""
    assert failed.reason.isprintable()
    assert len(failed.reason) < 200
    return events, failed.code


def joined(events: list[ProviderEvent]) -> Any:
    """Events as they are kept: texts as a whole, for where they are cut does not matter."""
    text = "".join(one.text for one in events if isinstance(one, TextDelta))
    thought = "".join(one.text for one in events if isinstance(one, ReasoningDelta))
    tools = [one for one in events if isinstance(one, ToolDelta)]
    return text, thought, tools, [one for one in events if isinstance(one, Ended | Refusal)]


def frames(bodies: Iterable[Any], end: str = "\n") -> bytes:
    return "".join(f"data: {json.dumps(body)}{end}{end}" for body in bodies).encode()


def chat(texts: list[str], thoughts: list[str]) -> list[Any]:
    deltas = [{"reasoning": text} for text in thoughts] + [{"content": text} for text in texts]
    call = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    chunks: list[Any] = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {"tool_calls": [call]}}]})
    chunks.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    return [*chunks, {"choices": [], "usage": {"prompt_tokens": 1}}]


@given(TEXTS, TEXTS, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 5000)))
def test_a_chat_is_read_alike_wherever_it_is_cut(
    texts: list[str], thoughts: list[str], end: str, places: list[int]
) -> None:
    raw = frames(chat(texts, thoughts), end) + b"data: [DONE]" + 2 * end.encode()

    events, code = read(READERS["openai"], cut(raw, places))

    assert code == ""
    assert joined(events) == joined(read(READERS["openai"], [raw])[0])
    assert joined(events)[:2] == ("".join(texts), "".join(thoughts))


@given(TEXTS, TEXTS, st.lists(st.integers(0, 5000)))
def test_ollamas_lines_are_read_alike_wherever_they_are_cut(
    texts: list[str], thoughts: list[str], places: list[int]
) -> None:
    lines: list[Any] = [{"message": {"thinking": text}} for text in thoughts]
    lines += [{"message": {"content": text}} for text in texts]
    raw = "\n".join(json.dumps(line) for line in [*lines, {"done": True}]).encode()

    events, code = read(READERS["ollama"], cut(raw, places))

    assert code == ""
    assert joined(events) == ("".join(texts), "".join(thoughts), [], [Ended("stop")])


@given(TEXTS, TEXTS, st.booleans(), st.lists(st.integers(0, 5000)))
def test_geminis_frames_and_arrays_are_read_alike_wherever_they_are_cut(
    texts: list[str], thoughts: list[str], array: bool, places: list[int]
) -> None:
    parts: list[Any] = [{"text": text, "thought": True} for text in thoughts]
    parts += [{"text": text} for text in texts]
    bodies: list[Any] = [{"candidates": [{"content": {"parts": [part]}}]} for part in parts]
    bodies.append({"candidates": [{"finishReason": "STOP"}]})
    raw = json.dumps(bodies, indent=1).encode() if array else frames(bodies, "\r\n")

    events, code = read(READERS["gemini"], cut(raw, places))

    assert code == ""
    assert joined(events) == ("".join(texts), "".join(thoughts), [], [Ended("stop")])


@pytest.mark.parametrize("name", READERS)
@given(raw=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_are_an_answer_or_a_fault(name: str, raw: bytes, places: list[int]) -> None:
    read(READERS[name], cut(raw, places))


WORDS = """
choices delta message content reasoning tool_calls function name arguments index id finish_reason
usage refusal prompt_tokens error candidates parts text thought functionCall args finishReason done
done_reason thinking promptFeedback blockReason usageMetadata details code type
completion_tokens_details prompt_tokens_details prompt_eval_count
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["stop", "", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS.split()), inner, max_size=4)
    ),
    max_leaves=20,
)
LIKELY: dict[str, Any] = {
    "openai": lambda body: {"choices": [{"delta": body, "finish_reason": "stop"}]},
    "ollama": lambda body: {"message": body, "done": True},
    "gemini": lambda body: {"candidates": [{"content": {"parts": [body]}}]},
}


@pytest.mark.parametrize("name", READERS)
@given(body=JSON, wrapped=st.booleans(), framed=st.booleans())
def test_any_json_is_an_answer_or_a_fault(
    name: str, body: Any, wrapped: bool, framed: bool
) -> None:
    body = LIKELY[name](body) if wrapped else body

    read(READERS[name], [frames([body]) if framed else json.dumps(body).encode()])


@pytest.mark.parametrize("name", READERS)
@given(JSON, st.integers(0, 5000))
def test_an_answer_that_is_cut_is_never_whole(name: str, body: Any, place: int) -> None:
    wholes: dict[str, bytes] = {
        "openai": frames([{"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}]),
        "ollama": b'{"message":{"content":"hi"},"done":true}',
        "gemini": frames([{"candidates": [{"finishReason": "STOP"}]}]),
    }
    raw = wholes[name]

    events, code = read(READERS[name], [raw[: place % len(raw)]])

    assert code == "truncated"
    assert not any(isinstance(one, Ended | Refusal) for one in events)
