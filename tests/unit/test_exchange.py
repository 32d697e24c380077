"""What may go wrong between us and a provider: connections, silence, limits, encodings."""

import asyncio
import contextlib
import gzip
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from actors.models import exchange
from actors.models.events import Ended, Refusal, TextDelta, Timeouts, Upstream
from actors.models.faults import UpstreamFault
from actors.models.inflating import inflate
from actors.models.openai import OpenAI
from actors.models.wording import Discretion
from tests.unit.provider_double import (
    KEY,
    PATIENCE,
    Wire,
    call,
    collect,
    doubled,
    outcome_of,
    plain_client,
    says,
    writes,
)

HI = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


async def test_where_nobody_listens_is_unreachable() -> None:
    async with doubled(writes()) as double:
        url = double.url
    async with plain_client() as client:
        outcome = await collect(OpenAI(), call(client, url))

    assert outcome.code == "unreachable"


async def test_where_nobody_takes_connections_is_unreachable_after_the_time_to_connect() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        contextlib.ExitStack() as held,
    ):
        for _ in range(4):  # with nobody to accept them, what is more is dropped without a word
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        times = Timeouts(connect=0.2, first=PATIENCE, idle=PATIENCE)
        async with plain_client() as client:
            outcome = await collect(OpenAI(), call(client, url, timeouts=times))

    assert outcome.code == "unreachable"
    assert outcome.fault is not None
    assert "no connection within 0.2 s" in outcome.fault.reason


async def test_a_connection_that_closes_without_an_answer_is_unreachable() -> None:
    async def answer(wire: Wire) -> None:
        raise ConnectionError

    assert (await outcome_of(OpenAI(), answer)).code == "unreachable"


@pytest.mark.parametrize("first", [b"", HI])
async def test_a_reset_is_unreachable_and_what_came_before_is_given(first: bytes) -> None:
    gate = asyncio.Event()

    async def answer(wire: Wire) -> None:
        if first:
            await wire.head()
            await wire.chunk(first)
            await gate.wait()
        wire.reset()

    async with doubled(answer) as double, plain_client() as client:
        pieces = []
        with pytest.raises(UpstreamFault) as caught:  # noqa: PT012
            async for event in OpenAI().stream(call(client, double.url)):
                pieces.append(event)
                gate.set()

    assert caught.value.code == "unreachable"
    assert (TextDelta("hi") in pieces) == bool(first)


async def test_a_body_without_its_end_is_truncated() -> None:
    outcome = await outcome_of(OpenAI(), writes(HI, ends=False))

    assert (outcome.text, outcome.code) == ("hi", "truncated")


async def test_a_body_without_its_end_is_enough_if_the_answer_is_whole() -> None:
    outcome = await outcome_of(OpenAI(), writes(HI, STOP, ends=False))

    assert outcome.last == Ended("stop")


async def test_what_is_no_http_is_garbled() -> None:
    async def answer(wire: Wire) -> None:
        await wire.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        raise ConnectionError

    assert (await outcome_of(OpenAI(), answer)).code == "garbled"


async def test_closing_the_iterator_ends_the_request() -> None:
    ended = asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.head()
        await wire.chunk(HI)
        await wire.gone()
        ended.set()

    async with doubled(answer) as double, plain_client() as client:
        events = OpenAI().stream(call(client, double.url))
        async for event in events:
            if event == TextDelta("hi"):
                break
        await events.aclose()  # type: ignore[attr-defined]  # it is a generator
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


async def test_cancelling_the_wait_ends_the_request() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def answer(wire: Wire) -> None:
        await wire.head()
        began.set()
        await wire.gone()
        ended.set()

    async with doubled(answer) as double, plain_client() as client:
        task = asyncio.create_task(collect(OpenAI(), call(client, double.url)))
        async with asyncio.timeout(PATIENCE):
            await began.wait()
            task.cancel()
            await ended.wait()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_too_few_connections_are_our_own_overload() -> None:
    limits = httpx.Limits(max_connections=1)
    began = asyncio.Event()

    async def answer(wire: Wire) -> None:
        began.set()
        await wire.gone()

    async with doubled(answer) as double, plain_client(limits=limits) as client:
        first = asyncio.create_task(collect(OpenAI(), call(client, double.url)))
        async with asyncio.timeout(PATIENCE):
            await began.wait()
        outcome = await collect(OpenAI(), call(client, double.url, timeouts=Timeouts(pool=0.2)))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    assert outcome.code == "overloaded"


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_a_compressed_answer_is_read_though_nobody_asked_for_it(
    encoding: str, encode: Any
) -> None:
    answer = writes(encode(HI + STOP + DONE), Content_Encoding=encoding)
    async with doubled(answer) as double, plain_client() as client:
        outcome = await collect(OpenAI(), call(client, double.url))

    assert outcome.text == "hi"
    assert double.asked[0].headers["accept-encoding"] == "identity"


async def test_a_little_that_holds_very_much_is_never_in_memory_as_a_whole() -> None:
    async def whole() -> AsyncIterator[bytes]:
        yield body

    body = gzip.compress(b"a" * 20_000_000)
    pieces = [len(piece) async for piece in inflate(whole())]

    assert len(body) < 64 * 1024
    assert (sum(pieces), max(pieces)) == (20_000_000, 64 * 1024)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x"])
async def test_an_encoding_that_was_not_asked_for_and_has_no_bounds_is_garbled(
    encoding: str,
) -> None:
    outcome = await outcome_of(OpenAI(), writes(HI, Content_Encoding=encoding))

    assert outcome.code == "garbled"


async def test_a_broken_encoding_is_garbled() -> None:
    assert (await outcome_of(OpenAI(), writes(HI, Content_Encoding="gzip"))).code == "garbled"


@pytest.mark.parametrize("media", ["text/plain", "application/octet-stream", "application/json"])
async def test_the_content_type_of_a_stream_does_not_matter(media: str) -> None:
    assert (await outcome_of(OpenAI(), writes(HI, STOP, media=media))).text == "hi"


PAGE = b"\n<!DOCTYPE html><html><head><title>502 Bad\nGateway</title></head></html>"


async def test_a_page_of_html_is_no_answer() -> None:
    outcome = await outcome_of(OpenAI(), writes(PAGE, media="text/html"))

    assert outcome.code == "garbled"
    assert outcome.fault is not None
    assert outcome.fault.reason == "an HTML page instead of an answer: 502 Bad Gateway"


async def test_a_page_of_html_with_an_error_is_that_error() -> None:
    outcome = await outcome_of(OpenAI(), writes(PAGE, media="text/html", status=502))

    assert outcome.fault is not None
    assert (outcome.code, outcome.fault.status) == ("server_error", 502)
    assert outcome.fault.reason == "an HTML page instead of an answer: 502 Bad Gateway"


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308])
async def test_what_is_neither_answer_nor_error_is_garbled(status: int) -> None:
    async def answer(wire: Wire) -> None:
        await wire.raw(
            f"HTTP/1.1 {status} X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".encode()
        )

    async with doubled(answer) as double, plain_client() as client:
        outcome = await collect(OpenAI(), call(client, double.url))

    assert outcome.code == "garbled"
    assert len(double.asked) == 1


async def test_of_an_endless_error_only_the_beginning_is_read() -> None:
    async def answer(wire: Wire) -> None:
        await wire.head(500, "text/plain")
        while True:
            await wire.chunk(b"oh no " * 1000)

    outcome = await outcome_of(OpenAI(), answer)

    assert outcome.code == "server_error"
    assert outcome.fault is not None
    assert outcome.fault.reason.startswith("oh no oh no")
    assert len(outcome.fault.reason) < 200


async def test_an_endless_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_BYTES", 100_000)

    async def answer(wire: Wire) -> None:
        await wire.head()
        while True:
            await wire.chunk(HI)

    assert (await outcome_of(OpenAI(), answer)).code == "too_long"


async def test_an_endless_line_ends() -> None:
    async def answer(wire: Wire) -> None:
        await wire.head()
        await wire.chunk(HI + b"data: ")
        while True:
            await wire.chunk(b"x" * 60_000)

    outcome = await outcome_of(OpenAI(), answer)

    assert (outcome.text, outcome.code) == ("hi", "too_long")


def echo(text: str, status: int = 401) -> Any:
    return says({"error": {"message": f"Incorrect API key provided: {text}."}}, status=status)


@pytest.mark.parametrize(
    "text", [KEY, f"Bearer {KEY}", "x" * 160 + KEY, "sk-proj-abc*************wxyz"]
)
async def test_a_key_that_a_provider_repeats_is_not_repeated(text: str) -> None:
    outcome = await outcome_of(OpenAI(), echo(text))

    assert outcome.fault is not None
    assert outcome.code == "unauthorized"
    for said in (outcome.fault.reason, str(outcome.fault), repr(outcome.fault)):
        assert "***" in said
        assert KEY[:9] not in said
        assert "wxyz" not in said


async def test_a_key_within_the_stream_is_not_repeated() -> None:
    for frame in (f'data: {{"error":"bad {KEY}"}}\n\n', f"data: oops {KEY}\n\n"):
        outcome = await outcome_of(OpenAI(), writes(frame.encode()))

        assert outcome.fault is not None
        assert KEY not in str(outcome.fault)


@pytest.mark.parametrize("key", ["sk-line\nbreak", "sk-ümlaut", "sk-\x00"])
async def test_a_key_that_no_header_may_hold_is_told_without_it(key: str) -> None:
    async with doubled(writes()) as double, plain_client() as client:
        outcome = await collect(OpenAI(), call(client, "", upstream=Upstream(double.url, key)))

    assert outcome.code == "unauthorized"
    assert "sk-" not in str(outcome.fault)
    assert double.asked == []


def test_innocent_words_are_not_taken_for_keys() -> None:
    words = "skip_thought_signature_validator, patternmatchingengines and hf are no keys"

    assert Discretion().clean(words) == words


def test_a_key_is_in_no_repr() -> None:
    upstream = Upstream("http://x", KEY)
    request = exchange.Request(httpx.URL("http://x"), headers={"Authorization": KEY})

    assert KEY not in repr(upstream) + repr(request)


async def test_control_characters_do_not_pass() -> None:
    answer = says({"error": {"message": "a\r\nb\x1b[31m\u202ec\x00"}}, status=500)

    outcome = await outcome_of(OpenAI(), answer)

    assert outcome.fault is not None
    assert outcome.fault.reason == "a b [31m c"


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x/", "http://", "http://a:b"])
async def test_a_url_that_is_none_is_our_mistake(url: str) -> None:
    async with plain_client() as client:
        outcome = await collect(OpenAI(), call(client, url))

    assert outcome.code == "bad_request"


@pytest.mark.promise("AC-28", "AC-29")
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/compatible-mode/v1/", "/compatible-mode/v1/chat/completions"),
    ],
)
async def test_a_base_may_be_written_in_several_ways(path: str, asked: str) -> None:
    async with doubled(writes(HI, STOP)) as double, plain_client() as client:
        await collect(OpenAI(), call(client, double.url + path))

    assert double.asked[0].target == asked


async def test_an_error_may_be_the_providers_no() -> None:
    body = {"error": {"message": "The response was filtered", "code": "content_filter"}}

    outcome = await outcome_of(OpenAI(), says(body, status=400))

    assert outcome.events == [Refusal("The response was filtered")]
