"""Chat completions over plain HTTP: their bytes, their errors, and who goes on without a client."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from edge import exchange
from edge.completions import MOST_BYTES
from edge.sse import Streams
from runtime.bus import new_id
from runtime.testing import Kit, running
from schemas.conversation import BatchFinished, MessageAnswered, MessageSaid, TaskStopped
from schemas.model import Attachment, Text, conversation_topic, history_topic
from tests.integration.completing import (
    ACTORS,
    OTHER,
    PATH,
    SECRET,
    asking,
    complete,
    error,
    streaming,
)
from tests.integration.edges import PATIENCE, Edge
from tests.integration.speaking import calls, ended, gate
from tests.integration.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**ACTORS) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    streams = Streams()
    streams.heartbeat = 0.2
    async with asking(kit, streams=streams) as edge:
        yield edge


# -- bytes ---------------------------------------------------------------------------------


async def test_a_stream_is_data_lines_and_comments_from_its_first_byte_to_its_last(
    edge: Edge,
) -> None:
    async with streaming(edge, "think hello", stream_options={"include_usage": True}) as stream:
        got = await stream.rest()
    headers = stream.response.headers
    head = re.search(rb'\{"id":"(chatcmpl-[0-9a-f]{32})",.*?"created":(\d+)', got)
    assert head is not None
    chunk = (
        b'data: {"id":"%b","object":"chat.completion.chunk","created":%b,"model":"demo-1",'
        b'"choices":[' % (head[1], head[2])
    )
    blocks = [
        b":",
        chunk + b'{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
        b'"logprobs":null,"finish_reason":null}],"usage":null}',
        chunk + b'{"index":0,"delta":{"content":"hello "},"finish_reason":null}],"usage":null}',
        chunk + b'{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}',
        chunk + b'],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,'
        b'"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":1,"audio_tokens":0,'
        b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}',
        b"data: [DONE]",
    ]
    thoughts = re.findall(rb'"reasoning_content":"([^"]*)"', got)
    others = [each for each in got.split(b"\n\n") if b"reasoning_content" not in each]

    assert others == [*blocks, b""]
    assert b"".join(thoughts) == b"hm, well"
    assert b"\r" not in got
    assert stream.response.status_code == 200
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers
    assert len(headers["x-request-id"]) == 32
    assert headers["openai-processing-ms"].isdigit()


async def test_a_stream_begins_at_once_and_is_kept_alive_by_comments(edge: Edge) -> None:
    async with streaming(edge, "wait alive") as stream:
        await stream.until(b"one ")
        heard = len(stream.got)
        await stream.until(b":\n\n:\n\n")
        kept = stream.got[heard:]
        gate("alive").set()
        await stream.rest()

    assert stream.got.startswith(b":\n\n")
    assert set(kept.split(b"\n\n")) == {b":", b""}
    assert stream.text == "one two "
    assert stream.got.endswith(b"data: [DONE]\n\n")


async def test_a_stream_whose_first_word_is_late_begins_with_comments(edge: Edge) -> None:
    async with streaming(edge, "hush late") as stream:
        await stream.until(b":\n\n:\n\n")
        early = stream.got
        gate("late").set()
        await stream.rest()

    assert set(early.split(b"\n\n")) == {b":", b""}
    assert stream.text == "late "


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "late-failure"}])
async def test_a_stream_that_fails_before_its_first_word_has_a_status(
    edge: Edge, headers: dict[str, str]
) -> None:
    async with streaming(edge, "fail context_too_long", headers, model="long") as stream:
        got = await stream.rest()
    async with streaming(edge, "fail context_too_long", headers, model="long") as again:
        await again.rest()

    assert stream.response.status_code == again.response.status_code == 400
    assert stream.response.headers["content-type"] == "application/json"
    assert msgspec.json.decode(got)["error"]["code"] == "context_length_exceeded"
    assert headers == {} or again.got == got


async def test_a_failure_after_the_beginning_is_told_before_the_stream_closes(edge: Edge) -> None:
    async with streaming(edge, "half truncated", model="broken") as stream:
        got = await stream.rest()

    assert stream.text == "half "
    assert got.endswith(
        b'data: {"error":{"message":"it was truncated","type":"server_error","param":null,'
        b'"code":"truncated"}}\n\n'
    )
    assert b"[DONE]" not in got


async def test_what_moves_to_another_model_before_a_word_goes_on_as_if_nothing_were(
    edge: Edge,
) -> None:
    whole = await complete(edge, "falter on", model="first")
    async with streaming(edge, "falter on", model="first") as stream:
        await stream.rest()

    assert whole.json()["choices"][0]["message"]["content"] == "on "
    assert whole.json()["model"] == "first"
    assert stream.text == "on "
    assert stream.got.endswith(b"data: [DONE]\n\n")


# -- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "media", "expected"),
    [
        (b"{", "application/json", (400, "invalid_json", None)),
        (b'{"a":1,"a":2}', "application/json", (400, "invalid_json", "a")),
        (b"[]", "application/json", (400, "invalid_field", None)),
        (b"{}", "application/json", (400, "invalid_field", "model")),
        (b'{"model":"demo-1"}', "application/json", (400, "invalid_field", "messages")),
        (
            b'{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]}',
            "application/json",
            (400, "invalid_field", "messages[0].content[0].text"),
        ),
        (
            b'{"model":"m","messages":[{"role":"user","content":"a"}],"seed":9999999999999999999}',
            "application/json",
            (400, "invalid_field", "seed"),
        ),
        (b"{}", "text/plain", (415, "unsupported_media_type", None)),
        (b"", "", (415, "unsupported_media_type", None)),
    ],
)
async def test_a_request_that_is_none_is_told_so_in_openais_shape(
    edge: Edge, content: bytes, media: str, expected: Any
) -> None:
    headers = {"Content-Type": media} if media else {}
    answer = await edge.client.post(PATH, content=content, headers=headers)

    assert error(answer) == expected
    assert answer.headers["content-type"] == "application/json"


async def test_every_other_way_to_be_wrong_has_openais_shape_too(edge: Edge) -> None:
    method = await edge.get(PATH)
    pairs = {"Content-Type": "application/x-www-form-urlencoded"}
    elsewhere = await edge.post("/v1/embeddings", {}, headers=pairs)
    stranger = await edge.get("/v1/models", headers={"Authorization": "Bearer sk-wrong"})
    nobody = await edge.client.post(PATH, json={}, headers={"Authorization": ""})
    named = await complete(edge, "hi", {"X-Conversation-Id": "a b"})
    both = await complete(edge, "hi", {"X-Conversation-Id": "a"}, metadata={"conversation_id": "b"})
    warm = await complete(edge, "hi", temperature=9)
    missing = await complete(edge, "hi", messages=[file_message("f" * 32)])

    assert error(method) == (405, "method_not_allowed", None)
    assert method.headers["allow"] == "OPTIONS, POST"
    assert error(elsewhere) == (404, "unknown_url", None)
    assert error(stranger) == error(nobody) == (401, "invalid_api_key", None)
    assert error(named) == (400, "invalid_field", "x-conversation-id")
    assert error(both) == (400, "invalid_field", "metadata.conversation_id")
    assert error(warm) == (400, "invalid_field", "temperature")
    assert warm.json()["error"]["message"] == "temperature: expected float <= 2.0"
    assert error(missing) == (400, "invalid_field", "messages[0].content[0].file.file_id")


async def test_a_body_that_is_too_large_is_refused_before_it_comes(edge: Edge) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {MOST_BYTES + 1}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(head.encode())
    async with asyncio.timeout(PATIENCE):
        got = await reader.readuntil(b"}}")
    writer.close()

    assert got.startswith(b"HTTP/1.1 413 ")
    assert b'"type":"invalid_request_error","param":null,"code":"body_too_large"}}' in got


def file_message(id: str) -> Any:
    return {"role": "user", "content": [{"type": "file", "file": {"file_id": id}}]}


async def test_where_nobody_keeps_conversations_that_is_what_is_said(kit: Kit) -> None:
    async with running(demo=ACTORS["demo"]) as bare, asking(bare) as edge:
        answer = await complete(edge, "hi")

    assert error(answer) == (503, "not_deployed", None)


# -- who goes on without a client ----------------------------------------------------------


def asked(word: str) -> str:
    """The conversation in which a model was told to wait."""
    return next(c.conversation for c in calls if c.messages[-1].content == (Text(f"wait {word}"),))


@pytest.mark.parametrize("stream", [False, True])
async def test_whoever_leaves_has_what_was_begun_for_them_given_up(
    edge: Edge, kit: Kit, stream: bool
) -> None:
    word = f"leave-{stream}"
    if stream:
        async with streaming(edge, f"wait {word}") as left:
            await left.until(b"one ")
    else:
        task = asyncio.create_task(complete(edge, f"wait {word}"))
        await until(lambda: word in ended)
        task.cancel()
    stopped = await kit.event(conversation_topic(asked(word)), TaskStopped)

    assert stopped.reason == "its client has left"
    assert not gate(word).is_set()


async def test_a_conversation_that_is_named_goes_on_without_its_client(
    edge: Edge, kit: Kit
) -> None:
    async with streaming(edge, "wait stay", {"X-Conversation-Id": "stay"}) as left:
        await left.until(b"one ")
    gate("stay").set()
    finished = await kit.event(conversation_topic("stay"), BatchFinished)

    assert finished.status == "SUCCESS"
    assert await kit.events(conversation_topic("stay"), TaskStopped) == []


async def test_a_named_conversation_remembers_what_was_said_and_is_not_told_it_twice(
    edge: Edge, kit: Kit
) -> None:
    first = await complete(edge, "first", {"X-Conversation-Id": "kept"})
    again = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "first "},
        {"role": "user", "content": "second"},
    ]
    second = await complete(edge, "", messages=again, metadata={"conversation_id": "kept"})
    foreign = await complete(
        edge, "hi", {"X-Conversation-Id": "kept", "Authorization": f"Bearer {OTHER}"}
    )
    said = await kit.events(history_topic("kept"), MessageSaid)
    answered = await kit.events(history_topic("kept"), MessageAnswered)

    assert first.status_code == second.status_code == 200
    assert [each.message.content for each in said] == [(Text("first"),), (Text("second"),)]
    assert [each.text for each in answered] == ["first ", "second "]
    assert all(each.remembered for each in answered)
    assert len(calls[-1].messages) == 3
    assert error(foreign) == (404, "conversation_not_found", None)


async def test_a_very_long_message_is_remembered_as_a_file(edge: Edge, kit: Kit) -> None:
    answer = await complete(edge, "say " + "x" * 100_000, {"X-Conversation-Id": "long"})
    (said,) = await kit.events(history_topic("long"), MessageSaid)
    (part,) = said.message.content

    assert answer.status_code == 200
    assert isinstance(part, Attachment)
    assert part.file.size == 100_004


# -- repeats -------------------------------------------------------------------------------


@pytest.mark.promise("AC-07")
@pytest.mark.parametrize("named", [False, True])
async def test_a_repeat_under_its_key_is_the_same_answer_and_asks_nobody(
    edge: Edge, named: bool
) -> None:
    key = {"Idempotency-Key": new_id()} | ({"X-Conversation-Id": new_id()} if named else {})
    first = await complete(edge, "think again", key)
    count = len(calls)
    second = await complete(edge, "think again", key)
    other = await complete(edge, "something else", key)

    assert first.json()["id"] == second.json()["id"]
    assert first.json()["choices"] == second.json()["choices"]
    assert len(calls) == count
    assert error(other) == (422, "idempotency_key_reuse", None)
    assert other.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("named", [False, True])
async def test_a_stream_is_taken_up_again_under_its_key_from_its_beginning(
    edge: Edge, named: bool
) -> None:
    word = f"again-{named}"
    key = {"Idempotency-Key": new_id()} | ({"X-Conversation-Id": new_id()} if named else {})
    async with streaming(edge, f"wait {word}", key) as left:
        await left.until(b"one ")
    async with streaming(edge, f"wait {word}", key) as again:
        await again.until(b"one ")
        gate(word).set()
        await again.rest()
    async with streaming(edge, f"wait {word}", key) as late:
        await late.rest()

    assert again.text == late.text == "one two "
    assert again.got.endswith(b"data: [DONE]\n\n")
    assert sum(each.messages[-1].content == (Text(f"wait {word}"),) for each in calls) == 1


async def test_the_same_image_under_the_same_key_is_the_same_request(edge: Edge) -> None:
    key = {"Idempotency-Key": new_id()}
    image = {"type": "file", "file": {"file_data": "aGVsbG8=", "filename": "a.txt"}}
    said = [{"role": "user", "content": [{"type": "text", "text": "see"}, image]}]
    first = await complete(edge, "", key, messages=said)
    second = await complete(edge, "", key, messages=said)

    assert first.json()["choices"][0]["message"]["content"] == "text/plain a.txt 5\n"
    assert first.json()["id"] == second.json()["id"]


# -- what goes down meanwhile --------------------------------------------------------------


async def test_an_edge_that_stops_says_so_in_its_streams(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STOP_GRACE", 0.01)
    async with asking(kit) as edge:
        waiting = asyncio.create_task(complete(edge, "wait stopping"))
        async with streaming(edge, "wait stopping") as stream:
            await stream.until(b"one ")
            edge.stop.set()
            got = await stream.rest()
        answer = await waiting

    assert b'"code":"server_stopping"' in got
    assert error(answer) == (503, "server_stopping", None)
    assert "retry-after" in answer.headers


async def test_an_answer_comes_although_the_server_went_away_meanwhile(
    edge: Edge, kit: Kit
) -> None:
    waiting = asyncio.create_task(complete(edge, "wait away"))
    async with streaming(edge, "wait away-too") as stream:
        await stream.until(b"one ")
        await until(lambda: "away" in ended)
        await kit.server.kill()
        await kit.server.start()
        gate("away").set()
        gate("away-too").set()
        await stream.rest()
    answer = await waiting

    assert answer.json()["choices"][0]["message"]["content"] == "one two "
    assert stream.text == "one two "
    assert stream.got.endswith(b"data: [DONE]\n\n")
