"""The official Python SDK of OpenAI against our edge, with its own defaults."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from runtime.errors import AskTimeout
from runtime.testing import Kit, running
from tests.integration.completing import ACTORS, MODEL, ONCE, SECRET, asking, refused, user
from tests.integration.edges import PATIENCE, Edge
from tests.integration.speaking import calls, gate

pytestmark = pytest.mark.asyncio(loop_scope="module")

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**ACTORS) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with asking(kit) as edge:
        yield edge


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(edge: Edge) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(edge) as client:
        yield client


def client_of(edge: Edge, key: str = SECRET) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=key, timeout=PATIENCE)


def messages(text: str) -> Any:
    return user(text)


async def listen(stream: Any, heard: list[str]) -> None:
    async for chunk in stream:
        heard.append(chunk.choices[0].delta.content or "")


async def test_models_are_listed_and_each_is_found_by_an_id_with_slashes(
    client: AsyncOpenAI,
) -> None:
    found = [each async for each in client.models.list()]
    one = await client.models.retrieve("acme/demo-1")

    assert [each.id for each in found] == sorted([MODEL, "first", *ONCE])
    assert (one.id, one.object, one.owned_by) == ("acme/demo-1", "model", "us")
    assert one.created > 1_700_000_000


async def test_a_completion_is_answered_as_a_whole(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=MODEL, messages=messages("think hello world")
    )
    made = raw.parse()
    (choice,) = made.choices

    assert made.object == "chat.completion"
    assert made.id.startswith("chatcmpl-")
    assert made.model == MODEL
    assert choice.message.content == "hello world "
    assert choice.message.model_extra == {"reasoning_content": "hm, well"}
    assert choice.finish_reason == "stop"
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.total_tokens) == (9, 11)
    assert made.usage.prompt_tokens_details is not None
    assert made.usage.prompt_tokens_details.cached_tokens == 4
    assert raw.request_id == raw.headers["x-request-id"]
    assert int(raw.headers["openai-processing-ms"]) >= 0


async def test_a_stream_has_its_pieces_one_end_and_its_usage_if_it_is_asked_for(
    client: AsyncOpenAI,
) -> None:
    stream = await client.chat.completions.create(
        model="demo-7",
        messages=messages("think one two"),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    thought = "".join((d.model_extra or {}).get("reasoning_content", "") for d in deltas)

    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == "one two "
    assert thought == "hm, well"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 11
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_without_being_asked_for_no_usage_is_told(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=messages("hi"), stream=True)
    chunks = [chunk async for chunk in stream]

    assert all("usage" not in chunk.to_dict() for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_the_stream_helper_puts_an_answer_together(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model=MODEL, messages=messages("call"), tools=[TOOL]
    ) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    made = final.choices[0].message.tool_calls or []

    assert {"chunk", "tool_calls.function.arguments.delta"} <= kinds
    assert [call.function.arguments for call in made] == ['{"place":"Kyiv"}', '{"place":"Bern"}']
    assert final.choices[0].finish_reason == "tool_calls"


async def test_calls_of_tools_go_there_and_back(client: AsyncOpenAI) -> None:
    asked = messages("call")
    made = await client.chat.completions.create(
        model=MODEL, messages=asked, tools=[TOOL], tool_choice="auto"
    )
    message = made.choices[0].message
    spoken: Any = message.to_dict()
    results: Any = [
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        for call in message.tool_calls or []
    ]
    await client.chat.completions.create(
        model=MODEL, messages=[*asked, spoken, *results, *messages("thanks")]
    )
    given = calls[-1].messages

    assert made.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert [call["function"]["name"] for call in spoken["tool_calls"]] == ["weather"] * 2
    assert [each.role for each in given] == ["user", "assistant", "tool", "tool", "user"]
    assert [call.id for call in given[1].calls] == ["call_0", "call_1"]
    assert [each.call for each in given[2:4]] == ["call_0", "call_1"]


@pytest.mark.promise("AC-17")
async def test_an_image_reaches_the_model_whether_it_comes_along_or_is_an_address(
    client: AsyncOpenAI,
) -> None:
    data = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    parts: Any = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
    ]
    made = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}]
    )

    assert made.choices[0].message.content == f"image/png  {len(PNG)}\nhttps://x.test/a.png low\n"


async def test_settings_reach_the_model_in_their_own_words(client: AsyncOpenAI) -> None:
    made = await client.chat.completions.create(
        model=MODEL,
        messages=messages("settings"),
        temperature=0.5,
        seed=7,
        stop=["x"],
        response_format={"type": "json_object"},
        extra_body={"top_k": 3},
    )

    assert made.choices[0].message.content == (
        '{"response_format":{"type":"json_object"},"seed":7,"stop":["x"],"temperature":0.5}'
    )


async def test_several_choices_come_from_several_runs(client: AsyncOpenAI) -> None:
    made = await client.chat.completions.create(model=MODEL, messages=messages("hi"), n=3)
    stream = await client.chat.completions.create(
        model=MODEL, messages=messages("hi"), n=2, stream=True
    )
    ends = [c.choices[0].index async for c in stream if c.choices[0].finish_reason]

    assert [choice.index for choice in made.choices] == [0, 1, 2]
    assert [choice.message.content for choice in made.choices] == ["hi "] * 3
    assert made.usage is not None
    assert made.usage.completion_tokens == 6
    assert sorted(ends) == [0, 1]


async def test_a_long_prompt_travels_as_a_file(client: AsyncOpenAI) -> None:
    long = "say " + "x" * 200_000
    made = await client.chat.completions.create(model=MODEL, messages=messages(long))

    assert made.choices[0].message.content == "x" * 200_000 + " "


@pytest.mark.promise("AC-15")
async def test_a_refusal_is_an_answer_that_was_filtered(client: AsyncOpenAI) -> None:
    silent = await client.chat.completions.create(model=MODEL, messages=messages("refuse"))
    spoken = await client.chat.completions.create(model=MODEL, messages=messages("refuse sorry"))

    assert silent.choices[0].finish_reason == spoken.choices[0].finish_reason == "content_filter"
    assert (silent.choices[0].message.content, silent.choices[0].message.refusal) == (
        None,
        "not that",
    )
    assert (spoken.choices[0].message.content, spoken.choices[0].message.refusal) == ("sorry", None)


# -- errors --------------------------------------------------------------------------------


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as completing:
        await client.chat.completions.create(model="nothing", messages=messages("hi"))
    with pytest.raises(openai.NotFoundError) as streaming:
        await client.chat.completions.create(model="nothing", messages=messages("hi"), stream=True)
    with pytest.raises(openai.NotFoundError) as looking:
        await client.models.retrieve("nothing/at-all")

    for found in (completing.value, streaming.value, looking.value):
        assert (found.code, found.param) == ("model_not_found", "model")
        assert "does not exist; expected one of acme/demo-1, broken, " in found.message


async def test_what_is_not_as_it_should_be_is_a_bad_request_with_its_field(
    client: AsyncOpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=MODEL, messages=messages("hi"), temperature=9)

    assert refused.value.param == "temperature"
    assert refused.value.type == "invalid_request_error"


async def test_a_wrong_key_is_not_let_in(edge: Edge) -> None:
    async with client_of(edge, "sk-wrong") as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            await stranger.chat.completions.create(model=MODEL, messages=messages("hi"))
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()

    assert refused.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("model", "told", "kind", "code"),
    [
        ("long", "fail context_too_long", openai.BadRequestError, "context_length_exceeded"),
        ("quota", "fail quota_exhausted", openai.RateLimitError, "insufficient_quota"),
        ("wrong-key", "fail unauthorized", openai.InternalServerError, "upstream_unauthorized"),
    ],
)
async def test_what_a_model_meets_has_its_class_and_is_not_asked_again(
    client: AsyncOpenAI, model: str, told: str, kind: type[openai.APIStatusError], code: str
) -> None:
    before = len(calls)
    for stream in (False, True):
        with pytest.raises(kind) as failed:
            await client.chat.completions.create(
                model=model, messages=messages(told), stream=stream
            )

        assert failed.value.code == code
    assert len(calls) <= before + 2


async def test_a_conversation_that_a_person_has_is_not_asked_again(client: AsyncOpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.ConflictError) as failed:
            await client.chat.completions.create(
                model=MODEL,
                messages=messages("hi"),
                stream=stream,
                extra_headers={"X-Conversation-Id": f"taken-sdk-{stream}"},
            )

        assert failed.value.code == "MANUAL_IN_PROGRESS"
        assert failed.value.response.headers["x-should-retry"] == "false"
        assert refused.count(f"taken-sdk-{stream}") == 1


@pytest.mark.parametrize("named", [True, False])
async def test_only_who_names_no_conversation_asks_again_without_knowing_what_was_stored(
    client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    async def silent(*_: Any, **__: Any) -> None:
        raise AskTimeout("it did not answer in time")

    monkeypatch.setattr("edge.asking.ask", silent)
    with pytest.raises(openai.InternalServerError) as failed:
        await client.with_options(max_retries=0).chat.completions.create(
            model=MODEL,
            messages=messages("hi"),
            extra_headers={"X-Conversation-Id": "unsure"} if named else {},
        )

    assert failed.value.code == "not_answered_yet"
    assert failed.value.response.headers.get("x-should-retry") == ("false" if named else None)


async def test_a_model_that_is_busy_is_asked_again_by_the_client_itself(
    client: AsyncOpenAI,
) -> None:
    before = len(calls)
    with pytest.raises(openai.RateLimitError) as failed:
        await client.chat.completions.create(
            model="busy", messages=messages("fail rate_limited 0.01")
        )

    assert failed.value.code == "rate_limit_exceeded"
    assert failed.value.response.headers["retry-after"] == "1"
    assert len(calls) == before + 3


@pytest.mark.parametrize("code", ["truncated", "server_error"])
async def test_a_stream_that_cannot_go_on_raises_and_is_never_taken_for_whole(
    client: AsyncOpenAI, code: str
) -> None:
    stream = await client.chat.completions.create(
        model="broken", messages=messages(f"half {code}"), stream=True
    )
    heard: list[str] = []
    with pytest.raises(openai.APIError) as failed:
        await listen(stream, heard)

    assert heard == ["", "half "]
    assert failed.value.code in ("truncated", "upstream_error")


@pytest.mark.promise("AC-07")
async def test_two_attempts_are_never_glued_together(client: AsyncOpenAI) -> None:
    heard: list[str] = []
    stream = await client.chat.completions.create(
        model=MODEL, messages=messages("anew sdk"), stream=True
    )
    while "old " not in heard:
        heard.append((await anext(stream)).choices[0].delta.content or "")
    gate("sdk").set()
    with pytest.raises(openai.APIError) as failed:
        await listen(stream, heard)
    whole = await client.chat.completions.create(model=MODEL, messages=messages("anew sdk"))

    assert (heard, failed.value.code) == (["", "old "], "superseded")
    assert whole.choices[0].message.content == "new "
