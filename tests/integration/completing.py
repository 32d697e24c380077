"""An edge with models behind it, for tests of what OpenAI's clients see."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from actors.batch import Batch
from actors.session import Session
from runtime.actor import handler
from runtime.config import KeyTable
from runtime.errors import Reject
from runtime.testing import Kit
from runtime.turn import Turn
from schemas.conversation import BatchOpened, OpenBatch
from schemas.deployment import Deployment
from tests.integration.edges import Edge, serving
from tests.integration.speaking import Speaking

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
    """A session like any other, but for one that a person has taken over."""

    @handler
    def open_batch(self, message: OpenBatch, ctx: Turn) -> BatchOpened:
        """Refuse what is said to `taken…`."""
        if ctx.key.startswith("taken"):
            refused.append(ctx.key)
            raise Reject("MANUAL_IN_PROGRESS", "a person answers here", status=409)
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
