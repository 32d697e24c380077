"""Async-Chat's client: it posts forms and polls what becomes of them."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from actors.batch import Batch
from actors.model import Model
from actors.session import Session
from runtime.testing import Deployed, Kit
from tests.integration.edges import PATIENCE, Edge
from tests.integration.waiting import until_known
from tests.unit.parcels import png

Files = list[tuple[str, tuple[str, bytes, str]]]
BOTH = "gemini-2.5-flash, deepseek-r1:1.5b"
COMPLETIONS = "/v1/chat/completions"
ENDED = ("SUCCESS", "FAILED", "PARTIAL")
POLL_EVERY = 0.05


def models(**echoes: Mapping[str, Any]) -> dict[str, Deployed]:
    """A session, its batches, and models that say again what they are told."""
    found: dict[str, Deployed] = {"session": Session, "batch": Batch}
    for name, options in echoes.items():
        found[name] = (Model, {"provider": "echo", **options})
    return found


GEMINI = {"model": "gemini-2.5-flash"}
DEEPSEEK = {"model": "deepseek-r1:1.5b"}


async def post(
    edge: Edge, prompt: str, model: str = "", files: Files | None = None, **rest: Any
) -> httpx.Response:
    """Post a form, as multipart even without a file."""
    headers = rest.pop("headers", {})
    fields = {"prompt": prompt, **({"model": model} if model else {}), **rest}
    parts: list[Any] = [(name, (None, value)) for name, value in fields.items()]
    return await edge.client.post(COMPLETIONS, files=parts + (files or []), headers=headers)


async def ask(edge: Edge, prompt: str, model: str = "", **rest: Any) -> Any:
    """Post a form that is taken; returns the answer."""
    answer = await post(edge, prompt, model, **rest)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def batch(edge: Edge, asked: Any) -> Any:
    """How far a batch is."""
    answer = await edge.get(f"/v1/batches/{asked['batch_id']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def polled(edge: Edge, asked: Any, patience: float = PATIENCE) -> Any:
    """Poll a batch until it has ended, as Async-Chat's page does."""
    async with asyncio.timeout(patience):
        # Polling is what is tested here.
        while (found := await batch(edge, asked))["status"] not in ENDED:  # noqa: ASYNC110
            await asyncio.sleep(POLL_EVERY)
    return found


async def until_status(edge: Edge, asked: Any, task: int, status: str) -> None:
    """Poll until one task of a batch has got so far."""

    async def is_so() -> bool:
        return bool((await batch(edge, asked))["results"][task]["status"] == status)

    await until_known(is_so)


def history_of(asked: Any) -> str:
    """Where the history of a batch's conversation is."""
    return f"/v1/conversations/{asked['conversation_id']}/history"


def a_picture(name: str = "cat.png") -> Files:
    return [("files", (name, png(), "image/png"))]


async def stored_files(kit: Kit) -> set[str]:
    """The ids of all files that are there."""
    found = await kit.bus.lasts("$O.files.M.>", stream="OBJ_files")
    infos = [msgspec.json.decode(one.data) for one in found if one.data]
    return {info["name"] for info in infos if not info.get("deleted")}
