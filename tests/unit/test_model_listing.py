"""Which models a server offers, asked in each provider's way."""

from types import ModuleType
from typing import Any

import pytest

from actors.models import gemini, ollama, openai
from actors.models.events import Upstream
from actors.models.faults import UpstreamFault
from tests.unit.provider_double import KEY, Answer, Asked, doubled, plain_client, says, writes

LISTS: list[Any] = [
    (openai, {"object": "list", "data": [{"id": "a"}, {"id": "b/c"}]}, ["a", "b/c"], "/v1/models"),
    (ollama, {"models": [{"name": "qwen3:8b", "size": 1}]}, ["qwen3:8b"], "/api/tags"),
    (
        gemini,
        {"models": [{"name": "models/gemini-x"}, {"name": "tunedModels/y"}]},
        ["gemini-x", "tunedModels/y"],
        "/v1beta/models?pageSize=1000",
    ),
]
PROVIDERS = [openai, ollama, gemini]


async def listed(provider: ModuleType, answer: Answer) -> tuple[list[str], list[Asked]]:
    async with doubled(answer) as double, plain_client() as client:
        return await provider.models(client, Upstream(double.url, KEY)), double.asked


@pytest.mark.parametrize(("provider", "body", "names", "target"), LISTS)
async def test_models_are_listed(
    provider: ModuleType, body: Any, names: list[str], target: str
) -> None:
    found, asked = await listed(provider, says(body))

    assert found == names
    assert (asked[0].method, asked[0].target) == ("GET", target)
    assert KEY in asked[0].headers.get("x-goog-api-key", asked[0].headers.get("authorization", ""))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", [{}, {"data": 5, "models": 5}, {"data": [1], "models": [{}]}])
async def test_a_list_without_names_is_empty(provider: ModuleType, body: Any) -> None:
    assert (await listed(provider, says(body)))[0] == []


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (says({"error": {"message": f"bad {KEY}"}}, status=401), "unauthorized"),
        (says({"error": "busy"}, status=503), "overloaded"),
        (says({"error": "broken"}), "server_error"),
        (says([1]), "garbled"),
        (says(b"nonsense"), "garbled"),
        (writes(b"<html><title>Router</title>", media="text/html"), "garbled"),
        (writes(b'{"data"', media="application/json", ends=False), "truncated"),
    ],
)
async def test_what_is_no_list_is_a_fault(provider: ModuleType, answer: Answer, code: str) -> None:
    with pytest.raises(UpstreamFault) as caught:
        await listed(provider, answer)

    assert caught.value.code == code
    assert KEY not in str(caught.value)
