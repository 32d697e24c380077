"""Says no at once to what a store in trouble could not take, or could not answer truly."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from edge.problem import Refusal
from runtime.store.storewatch import StoreWatch
from schemas.node import StoreTrouble

READS = frozenset({"GET", "HEAD", "OPTIONS"})
ALWAYS_ANSWERED = ("/health", "/docs", "/openapi.json")
RETRY = {"Retry-After": "5"}

Done = TypeVar("Done")


class StoreGate:
    """Middleware: refuses writes while the store takes none, and all while it lacks messages."""

    def __init__(self, app: ASGIApp, store: StoreWatch) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or raise Refusal."""
        if self._store.trouble.kind and scope["type"] == "http":
            damaged = self._store.trouble.kind == "damaged"
            harmless = scope["method"] in READS and not damaged
            if not (harmless or scope["path"].startswith(ALWAYS_ANSWERED)):
                raise refusal(self._store.trouble)
        await self._app(scope, receive, send)


def refusal(trouble: StoreTrouble, known: str = "nothing was stored") -> Refusal:
    """Why a request is not done: 507 for want of room, else 503."""
    if trouble.kind == "full":
        return Refusal(507, "storage_full", f"there is no room; {known}", headers=RETRY)
    if trouble.kind == "damaged":
        detail = f"the store lacks messages it had acknowledged; {known}"
        return Refusal(503, "data_missing", detail, headers=RETRY)
    detail = f"the store cannot be written; {known}"
    return Refusal(503, "storage_unavailable", detail, headers=RETRY)


async def unless_in_trouble(store: StoreWatch, work: Coroutine[Any, Any, Done]) -> Done:
    """Do what stores something; raises Refusal as soon as the store is known to be in trouble.

    What has been sent by then may have been stored.
    """
    try:
        async with asyncio.timeout(None) as limit:
            with store.ending(limit):
                return await work
    except TimeoutError:
        if not limit.expired():
            raise
        raise refusal(store.trouble, "it is not known whether this was stored") from None
