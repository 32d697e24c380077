"""The worker with each provider's own adapter, against that provider's wire."""

from contextlib import AsyncExitStack
from typing import Any

import pytest

from actors.fakes.upstream import fake
from runtime.testing import running
from tests.integration.talking import Asker, Talk, deployed

KEY = "pat_" + "k" * 20
KINDS = {
    "openai": "openai",
    "deepseek": "openai",
    "qwen": "openai",
    "vllm": "openai",
    "ollama-v1": "openai",
    "ollama": "ollama",
    "gemini": "gemini",
    "coze": "coze",
}
"""By fake: the provider that speaks to it."""


def options(kind: str, url: str) -> dict[str, Any]:
    more = {"extra": {"app_id": "a1"}} if kind == "coze" else {}
    upstreams = [{"url": url, "key_env": "PROVIDERS_KEY"}]
    return {"provider": KINDS[kind], "model": "m1", "upstreams": upstreams, "tries": 1, **more}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDERS_KEY", KEY)


@pytest.mark.promise("AC-04", "AC-06", "AC-18", "AC-21")
async def test_every_provider_answers_at_once_each_from_a_queue_of_its_own() -> None:
    async with AsyncExitStack() as stack:
        fakes = {
            kind: await stack.enter_async_context(
                fake(kind, text="Hello, you.", models=("m1",), key=KEY)
            )
            for kind in KINDS
        }
        models = {kind: deployed(options(kind, one.url), name=kind) for kind, one in fakes.items()}
        kit = await stack.enter_async_context(running(asker=Asker, **models))
        talk = Talk(kit)
        for kind in KINDS:
            await talk.begin("hi", actor=kind)
        results = [await talk.result() for _ in KINDS]
        kept = await talk.answers()

    assert {one.outcome for one in results} == {"answered"}, results
    assert {one.model: one.text for one in kept} == dict.fromkeys(KINDS, "Hello, you.")
    assert all(one.usage.completion for one in results)


@pytest.mark.parametrize("kind", ["openai", "ollama", "gemini", "coze"])
async def test_a_truncated_stream_is_a_failed_run_never_a_short_success(kind: str) -> None:
    async with fake(
        kind, fault="truncated", text="Hello, you.", models=("m1",), key=KEY
    ) as upstream:
        model = deployed(options(kind, upstream.url), attempts=2)
        async with running(asker=Asker, model=model) as kit:
            talk = Talk(kit)
            result = await talk.ask("hi")
            kept = await talk.answers()

    assert (result.outcome, result.code, result.status) == ("failed", "truncated", 502)
    assert (len(upstream.asked), kept) == (2, [])


async def test_what_a_deployment_says_of_its_servers_is_heeded() -> None:
    async with fake("vllm", fault="reasoning=lone", text="Hello, you.", models=("m1",)) as upstream:
        model = deployed(options("vllm", upstream.url) | {"dialect": {"thinks": "opened"}})
        async with running(asker=Asker, model=model) as kit:
            talk = Talk(kit)
            result = await talk.ask("hi")
            kept = await talk.answers()

    assert result.outcome == "answered"
    assert [(one.text, one.reasoning) for one in kept] == [
        ("Hello, you.", "The user wants an answer.")
    ]
