"""Every adapter against every fault of the fakes that speak its wire.

The table says what must come of each: `whole` is the answer as it was meant, a name is the code
of a fault, anything else how the answer ended.
"""

import re
from typing import Any

import httpx
import pytest

from actors.fakes.arguments import KINDS
from actors.fakes.switches import MENU
from actors.fakes.upstream import Upstream as Fake
from actors.fakes.upstream import fake
from actors.models import exchange, gemini, ollama, openai
from actors.models.events import (
    Adapter,
    Call,
    Counted,
    Ended,
    ReasoningDelta,
    Refusal,
    TextDelta,
    Timeouts,
    ToolDelta,
    Upstream,
)
from actors.models.faults import UpstreamFault
from actors.models.gemini import Gemini
from actors.models.ollama import Ollama
from actors.models.openai import OpenAI
from schemas.model import FileRef, Text, Utterance
from tests.unit.provider_double import plain_client

KEY = "sk-fake-0123456789abcdef"
TEXT = "The weather in Paris is 🌦 today"
THOUGHT = "The user wants an answer."
ADAPTERS: dict[str, tuple[type[Any], Any]] = {
    **dict.fromkeys(["openai", "deepseek", "qwen", "vllm", "ollama-v1"], (OpenAI, openai.models)),
    "ollama": (Ollama, ollama.models),
    "gemini": (Gemini, gemini.models),
}
SOON = Timeouts(connect=5, first=0.3, idle=0.3)
PATIENT = Timeouts(connect=10, first=20, idle=20)
HASTY = {"slow", "hold", "first", "hold-first", "hold-middle"}
"""Faults that nobody waits for the end of."""

EVERYWHERE = {
    "": "whole",
    "slow=30": "timeout",
    "hold": "timeout",
    "first=30": "timeout",
    "hold-first": "timeout",
    "slow=0.01+first=0.01": "whole",
    "reset-first": "unreachable",
    "close-first": "unreachable",
    "400": "bad_request",
    "401": "unauthorized",
    "402": "quota_exhausted",
    "403": "unauthorized",
    "404": "model_not_found",
    "408": "timeout",
    "409": "overloaded",
    "413": "context_too_long",
    "422": "bad_request",
    "429": "rate_limited",
    "500": "server_error",
    "502": "server_error",
    "503": "overloaded",
    "504": "timeout",
    "html": "server_error",
    "html=200": "garbled",
    "html=404": "model_not_found",
    "empty": "truncated",
    "truncated": "truncated",
    "truncated=0": "truncated",
    "cut": "truncated",
    "cut=0": "truncated",
    "dropped": "truncated",
    "reset": "unreachable",
    "garbage": "garbled",
    "long-line=2000000": "too_long",
    "hold-middle": "timeout",
    "hold-middle=0": "timeout",
    "endless": "too_long",
    "every=0.01": "whole",
    "step": "whole",
    "bytes": "whole",
    "utf8": "whole",
    "together": "whole",
    "crlf": "whole",
    "cr": "whole",
    "no-space": "whole",
    "multi-line": "whole",
    "comments": "whole",
    "ids": "whole",
    "bom": "whole",
    "gzip": "whole",
    "close": "whole",
    "gzip+bytes+crlf+comments+ids+multi-line": "whole",
    "close+truncated": "truncated",
    "close+dropped": "truncated",
    "tokens=300": "stop",
    "tokens=3+rate=100": "stop",
    "stamp+tokens=3": "stop",
}
CHAT = {
    "usage": "whole",
    "no-usage": "whole",
    "tools=2": "tool_calls",
    "obfuscation": "whole",
    "reasoning": "whole",
    "reasoning=reasoning": "whole",
    "reasoning=reasoning_content": "whole",
    "reasoning=think": "whole",
    "reasoning=lone": "whole",
    "split-think": "whole",
    "refusal": "refused",
    "finish": "length",
    "finish=content_filter": "refused",
    "finish=insufficient_system_resource": "overloaded",
    "no-finish": "truncated",
    "no-done": "whole",
    "no-done+no-usage+close": "whole",
    "quota": "quota_exhausted",
    "context": "context_too_long",
    "key": "unauthorized",
    "no-model": "model_not_found",
    "wait": "whole",
    "wait=5+every=0.01": "whole",
    "wait=5+every=0.01+crlf": "whole",
    "error": "server_error",
    "error=0": "server_error",
    "models": "whole",
    "reasoning-missing": "bad_request",
}
# Their errors have no word for money: it cannot be told from haste.
NO_QUOTAS = {"quota": "rate_limited"}
EXPECTED: dict[str, dict[str, str]] = {
    **dict.fromkeys(["openai", "deepseek", "qwen"], EVERYWHERE | CHAT),
    "vllm": EVERYWHERE | CHAT | NO_QUOTAS,
    "ollama-v1": EVERYWHERE | CHAT | NO_QUOTAS | {"error": "truncated", "error=0": "truncated"},
    "ollama": EVERYWHERE
    | {
        # What comes is a string and no object, which is seen before it is long.
        "long-line=2000000": "garbled",
        "error": "server_error",
        "load": "truncated",
        "no-counts": "whole",
        "finish": "length",
        "reasoning": "whole",
        "tools=2": "tool_calls",
        "no-thinking": "bad_request",
        "no-model": "model_not_found",
        "models": "whole",
    },
    "gemini": EVERYWHERE
    | {
        "error": "overloaded",
        "error=0": "overloaded",
        "error+error-frame": "overloaded",
        "error+bytes": "overloaded",
        "blocked": "refused",
        "blocked=OTHER": "refused",
        "safety": "refused",
        "safety=PROHIBITED_CONTENT": "refused",
        "max-tokens": "length",
        "finish": "length",
        "finish=SAFETY": "refused",
        "reasoning": "whole",
        "tools=2": "tool_calls",
        "quota": "quota_exhausted",
        "key": "unauthorized",
        "region": "unauthorized",
        "no-model": "model_not_found",
        "models": "whole",
    },
}
CASES = [(kind, fault) for kind, table in EXPECTED.items() for fault in table]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no end is over sooner."""
    monkeypatch.setattr(exchange, "MOST_BYTES", 3_000_000)


async def load(file: FileRef) -> bytes:
    raise AssertionError(f"nobody should want {file}")


async def ask(
    client: httpx.AsyncClient, kind: str, upstream: Fake, fault: str = ""
) -> tuple[list[Any], UpstreamFault | None]:
    adapter: Adapter = ADAPTERS[kind][0]()
    settings = {"reasoning_effort": "low"} if "no-thinking" in fault else {}
    call = Call(
        client=client,
        upstream=Upstream(upstream.url, KEY),
        model="demo-1",
        messages=(Utterance(role="user", content=(Text(TEXT),)),),
        load=load,
        settings=settings,
        timeouts=SOON if names(fault) & HASTY and "=0.0" not in fault else PATIENT,
        dialect={"thinks": "opened"} if "lone" in fault else {},
    )
    events = []
    try:
        async for event in adapter.stream(call):
            events.append(event)
    except UpstreamFault as failed:
        return events, failed
    finally:
        await adapter.close()
    return events, None


def joined(events: list[Any], kind: type[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def names(fault: str) -> set[str]:
    return {re.sub("=.*", "", word) for word in fault.split("+") if word}


def judge(events: list[Any], fault: UpstreamFault | None) -> str:
    """What has come of a call, in the words of the table."""
    if fault is not None:
        assert not any(isinstance(event, Ended | Refusal) for event in events)
        return fault.code
    assert [isinstance(event, Ended | Refusal) for event in events].index(True) == len(events) - 1
    if isinstance(events[-1], Refusal):
        return "refused"
    text = joined(events, TextDelta)
    whole = text == TEXT and events[-1] == Ended("stop")
    return "whole" if whole else str(events[-1].finish)


@pytest.mark.parametrize(("kind", "fault"), CASES)
async def test_what_comes_of_a_fault_is_what_it_must(kind: str, fault: str) -> None:
    text = f"You said: {TEXT}" if fault == "key" else TEXT
    async with fake(kind, fault=fault, text=text) as upstream, plain_client() as client:
        if "step" in fault:
            upstream.open()
        events, failed = await ask(client, kind, upstream, fault)

    assert judge(events, failed) == EXPECTED[kind][fault]
    assert len(upstream.asked) == 1
    assert failed is None or KEY not in str(failed)


@pytest.mark.parametrize("kind", EXPECTED)
async def test_every_switch_of_every_menu_is_in_the_table(kind: str) -> None:
    async with fake(kind) as upstream:
        menu = upstream.menu
    native = {"load", "no-counts", "no-thinking"}
    known = {name for fault in EXPECTED[kind] for name in names(fault)}
    known |= {name for name in MENU if name.startswith("400 to")}
    # Ollama's fake has the menu of its imitation of OpenAI beside its own.
    both = set(EXPECTED["ollama-v1"]) if kind == "ollama" else set()
    known |= {name for fault in both for name in names(fault)}

    assert set(menu) - known - (set() if kind == "ollama" else native) == set()


def test_every_fake_but_one_is_asked() -> None:
    assert set(KINDS) - set(EXPECTED) == {"coze"}


@pytest.mark.parametrize("kind", EXPECTED)
async def test_what_is_thought_is_told_from_what_is_said(kind: str) -> None:
    ways = ["reasoning"]
    if kind not in ("ollama", "gemini"):
        ways += ["reasoning=think", "reasoning=lone", "split-think", "reasoning=reasoning"]
    for way in ways:
        async with fake(kind, fault=way, text=TEXT) as upstream, plain_client() as client:
            events, _ = await ask(client, kind, upstream, way)

        assert (joined(events, ReasoningDelta), joined(events, TextDelta)) == (THOUGHT, TEXT)


@pytest.mark.parametrize("kind", EXPECTED)
async def test_tool_calls_are_whole_and_told_apart(kind: str) -> None:
    async with fake(kind, fault="tools=2") as upstream, plain_client() as client:
        events, _ = await ask(client, kind, upstream)

    calls = [event for event in events if isinstance(event, ToolDelta)]
    for index in (0, 1):
        mine = [call for call in calls if call.index == index]
        assert (mine[0].name, bool(mine[0].call)) == ("get_weather", True)
        arguments = "".join(call.text for call in mine)
        assert arguments.replace(" ", "") == '{"city":"Paris"}'


@pytest.mark.parametrize("kind", EXPECTED)
async def test_usage_is_counted(kind: str) -> None:
    async with fake(kind, text=TEXT) as upstream, plain_client() as client:
        events, _ = await ask(client, kind, upstream)

    assert isinstance(events[-2], Counted)
    assert events[-2].usage.prompt == len(TEXT.split())
    assert events[-2].usage.completion == len(TEXT.split())


@pytest.mark.parametrize(
    ("hint", "seconds"), [("=7", 7), ("=1500ms", 1.5), ("=date", 7), ("=reset", 66.5), ("", None)]
)
async def test_openai_says_when_to_ask_again(hint: str, seconds: float | None) -> None:
    async with fake("openai", fault=f"429{hint}") as upstream, plain_client() as client:
        _, failed = await ask(client, "openai", upstream)

    assert failed is not None
    found = failed.retry_after
    assert found == (seconds if hint != "=date" else pytest.approx(7, abs=2))


async def test_gemini_says_when_to_ask_again() -> None:
    async with fake("gemini", fault="429=36") as upstream, plain_client() as client:
        _, failed = await ask(client, "gemini", upstream)

    assert failed is not None
    assert failed.retry_after == 36


@pytest.mark.parametrize("kind", [kind for kind in EXPECTED if kind != "ollama"])
async def test_the_right_key_is_sent_where_it_belongs(kind: str) -> None:
    async with fake(kind, text=TEXT, key=KEY) as upstream, plain_client() as client:
        events, failed = await ask(client, kind, upstream)

    assert judge(events, failed) == "whole"
    assert KEY not in repr(upstream.asked[0].query)


@pytest.mark.parametrize("kind", EXPECTED)
async def test_models_are_listed_and_their_faults_told(kind: str) -> None:
    list_models = ADAPTERS[kind][1]
    async with fake(kind, models=("a", "b:1")) as upstream, plain_client() as client:
        assert await list_models(client, Upstream(upstream.url, KEY)) == ["a", "b:1"]
    async with fake(kind, fault="models=503") as upstream, plain_client() as client:
        with pytest.raises(UpstreamFault) as caught:
            await list_models(client, Upstream(upstream.url, KEY))

    assert caught.value.code == "overloaded"


async def test_geminis_array_is_read_where_it_does_not_stream_events() -> None:
    async def without_events(request: httpx.Request) -> None:
        request.url = request.url.copy_remove_param("alt")

    hooks: dict[str, list[Any]] = {"request": [without_events]}
    for fault, expected in (
        ("", "whole"),
        ("bytes", "whole"),
        ("429", "rate_limited"),
        ("error", "server_error"),
        ("truncated", "truncated"),
        ("cut", "truncated"),
    ):
        async with (
            fake("gemini", fault=fault, text=TEXT) as upstream,
            plain_client(event_hooks=hooks) as client,
        ):
            assert judge(*await ask(client, "gemini", upstream)) == expected
            assert "alt" not in upstream.asked[0].query


async def test_leaving_an_answer_ends_it_at_the_provider() -> None:
    async with fake("openai", fault="endless+step") as upstream, plain_client() as client:
        call = Call(
            client=client,
            upstream=Upstream(upstream.url, KEY),
            model="demo-1",
            messages=(Utterance(role="user", content=(Text(TEXT),)),),
            load=load,
        )
        upstream.release(2)
        stream: Any = OpenAI().stream(call)
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        await stream.aclose()
        asked = await upstream.ended(upstream.asked[0])

    assert asked.outcome == "left"
