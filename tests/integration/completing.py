"""An edge with models behind it, for tests of what OpenAI's clients see."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from actors.batch import Batch
from actors.session import Session
from runtime.actor import handler
from runtime.tables import KeyTable
from runtime.testing import Kit
from runtime.turn import Turn
from schemas.conversation import BatchOpened, OpenBatch
from schemas.deployment import Deployment
from tests.integration.edges import PATIENCE, Edge, serving
from tests.integration.speaking import Speaking

PATH = "/v1/chat/completions"
JSON = {"Content-Type": "application/json", "Accept": "application/json"}
SECRET = "sk-0123456789abcdef0123456789abcdef"
OTHER = "sk-fedcba9876543210fedcba9876543210"
KEYS = {
    SECRET: KeyTable(id="app", secret_env="APP_KEY"),
    OTHER: KeyTable(id="other", secret_env="OTHER_KEY"),
}
MODEL = "acme/demo-1"
DEMO = {
    "provider": "echo",
    "model": "demo-1",
    "tries": 1,
    "owned_by": "us",
    "aliases": ["demo-*"],
    "id": MODEL,
}
ONLY = {"provider": "echo", "tries": 1}
refused: list[str] = []
"""The conversations that were refused because a person has them, each as often as it was."""


class Desk(Session):
    """A session like any other, but that some belong to a person from the beginning."""

    @handler
    def open_batch(self, message: OpenBatch, ctx: Turn) -> BatchOpened:
        """What is said to `taken…` is said while a person has it."""
        if ctx.key.startswith("taken"):
            refused.append(ctx.key)
            self.state.hold.mode = "manual_live"
        return super().open_batch(message, ctx)


ONCE = ("broken", "long", "quota", "wrong-key", "busy")
"""Models that make one attempt: what fails after its first word fails for good. Each is told to
fail in one way only, because a failure may have its upstream left alone for a while."""


def _once(name: str) -> Deployment:
    return Deployment(
        name=name,
        type="tests.integration.speaking:Speaking",
        kind="worker",
        options={"provider": "echo", "model": name, "tries": 1},
        attempts=1,
    )


ACTORS: dict[str, Any] = {
    "session": Desk,
    "batch": Batch,
    "completion": (Session, {"batches": "completion-batch"}),
    "completion-batch": Batch,
    "demo": (Speaking, DEMO),
    "first": (Speaking, {**ONLY, "model": "first", "fallbacks": ["demo"]}),
    **{name: (Speaking, _once(name)) for name in ONCE},
}


@asynccontextmanager
async def asking(kit: Kit, **options: Any) -> AsyncIterator[Edge]:
    """Serve an edge with keys of its own; its client has one of them."""
    async with serving(kit.server.url, keys=KEYS, **options) as edge:
        edge.client.headers = {"Authorization": f"Bearer {SECRET}"}
        yield edge


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "demo-1", "messages": user(text), **more}


async def complete(edge: Edge, text: str, headers: Any = None, **more: Any) -> httpx.Response:
    return await edge.post(PATH, body(text, **more), headers=JSON | (headers or {}))


class Stream:
    """A stream as its client reads it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.got = b""
        self._raw = response.aiter_raw()

    @property
    def text(self) -> str:
        found = re.findall(rb"^data: (\{.*\})$", self.got, re.MULTILINE)
        choices = [msgspec.json.decode(each).get("choices", []) for each in found]
        return "".join(each[0]["delta"].get("content", "") for each in choices if each)

    async def until(self, words: bytes) -> None:
        """Read until words have come."""
        async with asyncio.timeout(PATIENCE):
            while words not in self.got:
                self.got += await anext(self._raw)

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            async for piece in self._raw:
                self.got += piece
        return self.got


@asynccontextmanager
async def streaming(
    edge: Edge, text: str, headers: Any = None, **more: Any
) -> AsyncIterator[Stream]:
    content = msgspec.json.encode(body(text, stream=True, **more))
    sent = JSON | (headers or {})
    async with edge.client.stream("POST", PATH, content=content, headers=sent) as response:
        yield Stream(response)


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return answer.status_code, found["code"], found["param"]
