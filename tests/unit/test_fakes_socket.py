"""What a fake does to a connection, and what it knows of it: faults, forms, ledger, gate."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from actors.fakes.arguments import KINDS
from actors.fakes.upstream import Upstream, fake
from runtime.errors import ConfigError
from tests.unit.upstreams import QUESTION, chunks, faking, stream, texts


@asynccontextmanager
async def reading(
    client: httpx.AsyncClient, upstream: Upstream, model: str
) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of an answer, as they come."""
    body = {"model": model, "messages": QUESTION, "stream": True}
    async with client.stream("POST", f"{upstream.url}/chat/completions", json=body) as answer:
        yield answer.aiter_lines()


async def read(client: httpx.AsyncClient, upstream: Upstream, model: str) -> tuple[str, str]:
    """What could be read of an answer, and the name of what broke it off."""
    said = ""
    try:
        async with reading(client, upstream, model) as lines:
            async for line in lines:
                said += f"{line}\n"
    except httpx.TransportError as error:
        return said, type(error).__name__
    return said, ""


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ("truncated", ""),
        ("cut", ""),
        ("dropped", "RemoteProtocolError"),
        ("reset", "ReadError"),
        ("error", ""),
        ("close+truncated", ""),
        ("gzip+truncated", ""),
    ],
)
async def test_an_answer_breaks_off_after_so_many_pieces(fault: str, broken: str) -> None:
    async with faking() as (upstream, client):
        said, error = await read(client, upstream, f"demo+{fault.replace('+', '=3+', 1)}")
        if "+" not in fault:
            said, error = await read(client, upstream, f"fault:{fault}=3")
        call = upstream.asked[-1]

    assert error == broken
    assert 'finish_reason":"stop' not in said
    assert "[DONE]" not in said
    assert said.count('"delta":{"content"') == (call.tokens if fault != "cut" else 3)
    assert call.outcome == "broken"


@pytest.mark.parametrize("fault", ["reset-first", "close-first"])
async def test_an_answer_may_not_come_at_all(fault: str) -> None:
    async with faking() as (upstream, client):
        said, error = await read(client, upstream, f"fault:{fault}")

    assert (said, error) in {("", "ReadError"), ("", "RemoteProtocolError")}
    assert upstream.asked[0].outcome == "broken"
    assert upstream.asked[0].first_byte_at is None


async def test_an_answer_that_is_not_streamed_breaks_off_too() -> None:
    async with faking() as (upstream, client):
        url = f"{upstream.url}/chat/completions"
        for fault, error in (("dropped", httpx.RemoteProtocolError), ("reset", httpx.ReadError)):
            with pytest.raises(error):
                await client.post(url, json={"model": f"fault:{fault}", "messages": QUESTION})


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("crlf", b"\r\n\r\ndata: {"),
        ("cr", b"\r\rdata: {"),
        ("no-space", b"\n\ndata:{"),
        ("multi-line", b'data: {\ndata:  "id": "chat'),
        ("comments", b": keep-alive\n\ndata: {"),
        ("ids", b"retry: 3000\n\nid: 1\ndata: {"),
        ("bom", b"\xef\xbb\xbfdata: {"),
    ],
)
async def test_a_frame_takes_every_form_that_the_standard_allows(form: str, shown: bytes) -> None:
    async with faking() as (upstream, client):
        answer = await stream(client, upstream, f"demo+{form}")

    assert shown in answer.content
    assert answer.content.rstrip().endswith(b"[DONE]")


@pytest.mark.parametrize("form", ["bytes", "utf8", "together", "gzip", "close"])
async def test_a_form_of_transport_changes_nothing_of_what_is_said(form: str) -> None:
    async with faking(text="Grüße, 你好 🙂") as (upstream, client):
        plain = await stream(client, upstream)
        answer = await stream(client, upstream, f"demo+{form}")

    assert texts(chunks(answer.text)) == texts(chunks(plain.text))
    assert "".join(texts(chunks(answer.text))) == "Grüße, 你好 🙂"


async def test_a_character_is_split_between_two_writes() -> None:
    async with faking() as (upstream, client):
        body = {"model": "demo+utf8", "messages": QUESTION, "stream": True}
        async with client.stream("POST", f"{upstream.url}/chat/completions", json=body) as answer:
            parts = [part async for part in answer.aiter_raw()]

    assert any(part and part[-1] >= 0xC0 for part in parts)


async def test_one_byte_in_each_write_arrives_in_small_pieces() -> None:
    async with faking(text="hi") as (upstream, client):
        body = {"model": "demo+bytes", "messages": QUESTION, "stream": True}
        async with client.stream("POST", f"{upstream.url}/chat/completions", json=body) as answer:
            sizes = [len(part) async for part in answer.aiter_raw()]

    assert len(sizes) > sum(sizes) / 20


async def test_a_line_can_be_longer_than_anybody_keeps() -> None:
    async with faking() as (upstream, client):
        answer = await stream(client, upstream, "demo+long-line=300000")

    assert max(len(line) for line in answer.text.split("\n")) == 300000 + len('data: ""')
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_an_answer_can_go_on_for_ever_until_the_client_leaves() -> None:
    async with faking() as (upstream, client):
        async with reading(client, upstream, "fault:endless") as lines:
            read = [await anext(lines) for _ in range(500)]
        call = await upstream.ended(upstream.asked[0])

    assert call.outcome == "left"
    assert call.tokens > 200
    assert len(read) == 500


async def test_garbage_and_pages_of_proxies_come_instead_of_json() -> None:
    async with faking() as (upstream, client):
        garbage = await stream(client, upstream, "fault:garbage")
        page = await stream(client, upstream, "fault:html")
        fine = await stream(client, upstream, "fault:html=200")
        empty = await stream(client, upstream, "fault:empty")

    assert 'data: {"choices": [{"del\n\n' in garbage.text
    assert (page.status_code, page.headers["content-type"]) == (502, "text/html")
    assert (fine.status_code, fine.text) == (200, page.text)
    assert (empty.status_code, empty.text) == (200, "")
    assert empty.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("fault", "begun"), [("hold", False), ("hold-first", True), ("hold-middle", True)]
)
async def test_an_answer_waits_where_it_is_told_until_released(fault: str, begun: bool) -> None:
    async with faking() as (upstream, client):
        answer = asyncio.create_task(stream(client, upstream, f"demo+{fault}"))
        await upstream.held()
        call = upstream.asked[0]
        had_begun, had_said = call.first_byte_at is not None, call.tokens
        upstream.release()
        said = (await answer).text

    assert had_begun is begun
    assert had_said == (2 if fault == "hold-middle" else 0)
    assert "".join(texts(chunks(said))) == "You said: good morning to you"


async def test_each_piece_waits_for_its_release() -> None:
    async with faking() as (upstream, client):
        answer = asyncio.create_task(stream(client, upstream, "demo+step+tokens=5"))
        await upstream.held()
        upstream.release(2)
        call = upstream.asked[0]
        await upstream.until(lambda: call.tokens == 2 and upstream.gate.waiting == 1)
        upstream.open()
        await answer

    assert call.tokens == 5
    assert call.outcome == "whole"


async def test_faults_are_given_by_argument_turn_model_and_header_and_the_closest_wins() -> None:
    async with faking(fault="tokens=2") as (upstream, client):
        upstream.next("429", "")
        statuses = [(await stream(client, upstream)).status_code for _ in range(2)]
        await stream(client, upstream, "demo+tokens=3")
        client.headers["x-fault"] = "tokens=4, truncated=1"
        await stream(client, upstream, "demo+tokens=3")

    assert statuses == [429, 200]
    assert [call.tokens for call in upstream.asked] == [1, 2, 3, 1]
    assert upstream.asked[3].switches == {"tokens": "4", "truncated": "1"}
    assert {call.model for call in upstream.asked} == {"demo"}


async def test_the_ledger_has_every_request_without_its_secrets() -> None:
    async with faking("openai", key="sk-secret") as (upstream, client):
        client.headers["authorization"] = "Bearer sk-secret"
        await client.get(f"{upstream.url}/models?key=sk-secret")
        await stream(client, upstream)
        printed = repr(upstream.calls)
        told = (await client.get(f"{upstream.root}/fake/calls")).text
    listed, asked = upstream.calls

    assert "sk-secret" not in printed + told
    assert (listed.method, listed.path, listed.generates) == ("GET", "/v1/models", False)
    assert (asked.path, asked.generates) == ("/v1/chat/completions", True)
    assert asked.body["messages"] == QUESTION
    assert asked.headers["authorization"] == "Bearer ***"
    assert upstream.asked == [asked]
    assert asked.first_byte_at is not None
    assert asked.first_token_at is not None
    assert asked.ended_at is not None
    assert asked.at <= asked.first_byte_at <= asked.first_token_at <= asked.ended_at
    assert [call["outcome"] for call in json.loads(told)] == ["whole", "whole"]


async def test_a_client_that_leaves_is_noted_while_the_answer_is_silent() -> None:
    async with faking() as (upstream, client):
        asking = asyncio.create_task(stream(client, upstream, "demo+hold-middle"))
        await upstream.held()
        asking.cancel()
        call = await upstream.ended(upstream.asked[0])

    assert call.outcome == "left"


async def test_pieces_come_at_the_rate_that_is_asked_for() -> None:
    async with faking(tokens=5, rate=100) as (upstream, client):
        await stream(client, upstream)
    call = upstream.asked[0]

    assert call.tokens == 5
    assert call.ended_at is not None
    assert call.first_token_at is not None
    assert call.ended_at - call.first_token_at >= 0.04


async def test_a_piece_can_say_when_it_was_sent() -> None:
    async with faking() as (upstream, client):
        said = texts(chunks((await stream(client, upstream, "demo+stamp+tokens=3")).text))
    times = [int(text) for text in said]

    assert len(times) == 3
    assert times == sorted(times)


async def test_connections_are_kept_and_requests_on_one_are_answered_in_order() -> None:
    async with faking() as (upstream, _client):
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream._port)
        request = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request + request)
        heads = [await reader.readuntil(b"]}") for _ in range(2)]
        writer.write(b"nonsense\r\n\r\n")
        refused = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert all(head.startswith(b"HTTP/1.1 200 OK\r\n") for head in heads)
    assert refused.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "openaj"}, "there is no fake 'openaj'"),
        ({"fault": "resett"}, "fault 'resett' is not on the menu: 400 to 599, bom"),
    ],
)
def test_what_cannot_be_faked_is_refused_at_once(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fake(**given)  # type: ignore[arg-type]  # only names of strings


async def test_every_kind_lists_what_it_can_do() -> None:
    for kind in KINDS:
        async with faking(kind) as (upstream, client):
            menu = (await client.get(f"{upstream.root}/fake/menu")).json()

        assert {"truncated", "reset", "error", "hold-middle", "gzip"} <= menu.keys()


@pytest.mark.parametrize("program", [("actors.fakes",), ("runtime", "fake")])
async def test_the_command_serves_until_it_is_stopped(program: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", *program, "openai", "--tokens", "3", "--fault", "crlf", "--model", "a"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        url = (await process.stdout.readline()).decode().split()[-1]
        async with httpx.AsyncClient(trust_env=False) as client:
            body = {"model": "a+hold", "messages": QUESTION, "stream": True}
            asking = asyncio.create_task(client.post(f"{url}/chat/completions", json=body))
            root = url.removesuffix("/v1")
            await client.post(f"{root}/fake/release?count=1")
            answer = await asking
            calls = (await client.get(f"{root}/fake/calls")).json()
        process.send_signal(signal.SIGTERM)
        code = await process.wait()

    assert b"word3 " in answer.content
    assert b"\r\n\r\n" in answer.content
    assert calls[0]["tokens"] == 3
    assert code == 0
