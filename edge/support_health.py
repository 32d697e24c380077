"""Whether customers are served, in the words that Fiido's monitors read."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.health import Health, HealthCheck, told
from edge.operation import Operation
from edge.problem import Refusal
from edge.seats import Seats
from edge.shared import Shared
from edge.support_asking import COZE, Customers
from runtime.errors import BusFault
from runtime.kv import Bucket
from runtime.tables import SupportTable
from schemas.deployment import Deployment
from schemas.envelope import UNREADABLE
from schemas.upstream import SEEN, UpstreamReport

WORDS: Mapping[str, Literal["healthy", "degraded", "unhealthy"]] = {
    "ok": "healthy",
    "degraded": "degraded",
    "unavailable": "unhealthy",
}
NODES = "nodes"
AGAIN_AFTER = 2.0
"""Seconds that a finding is good for: however often we are asked, the store is not."""

_decode = msgspec.json.Decoder(UpstreamReport).decode


class SupportHealth(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How chat does: `degraded` where nobody answers or nothing can be stored.

    `auth_mode` is how Coze is logged in to, `NONE` where another model answers; `coze_connected`
    is left out while no host has asked it. `sse_connections` are the customers' streams at this
    edge. Strangers are told the status only.
    """

    status: Literal["healthy", "degraded", "unhealthy"]
    session_isolation: bool
    auth_mode: Literal["OAUTH_JWT", "TOKEN", "NONE", ""] = ""
    model: str | None = None
    coze_connected: bool | None = None
    workflow_id: str | None = None
    app_id: str | None = None
    sse_connections: int | None = None
    sse_limit: int | None = None
    nats: str | None = None
    store: str | None = None
    hosts: int | None = None
    version: str | None = None
    uptime: float | None = None


class SupportHealthCheck:
    """The operation of it."""

    def __init__(
        self,
        shared: Shared,
        health: HealthCheck,
        customers: Customers,
        seats: Seats,
        limits: SupportTable,
    ) -> None:
        self._shared = shared
        self._health = health
        self._customers = customers
        self._seats = seats
        self._limits = limits
        self._nodes = Bucket(shared.bus, NODES)
        self._found: dict[str, Any] = {}
        self._good_until = 0.0
        self._looking = asyncio.Lock()

    def operations(self) -> Sequence[Operation]:
        """The table of it."""
        return (
            Operation(
                "GET",
                "/api/health",
                self.check,
                "Ask whether customers are served",
                name="support_health",
                answers={200: SupportHealth, 503: SupportHealth},
                tag="support",
            ),
        )

    async def check(self, request: Request) -> Response:
        """Answer 200, or 503 while requests would be refused."""
        health = await self._health.look(request)
        found = await self._look() if health.status != "unavailable" else {}
        served = bool(found) or health.status == "unavailable"
        view = SupportHealth(
            status=WORDS[health.status if served else "degraded"], session_isolation=True
        )
        if health.version is not None:
            view = msgspec.structs.replace(view, **found, **self._told(health))
        return told(health, view)

    def _told(self, health: Health) -> dict[str, Any]:
        return {
            "sse_connections": self._seats.taken,
            "sse_limit": self._limits.streams,
            "nats": health.nats,
            "store": health.store or "fine",
            "hosts": health.hosts,
            "version": health.version,
            "uptime": health.uptime,
        }

    async def _look(self) -> dict[str, Any]:
        """Who answers customers; nothing if nobody does."""
        async with self._looking:
            if time.monotonic() >= self._good_until:
                try:
                    wanted = await self._customers.model()
                    self._found = await self._describe(wanted.model, wanted.actors[0])
                except (Refusal, BusFault):
                    self._found = {}
                self._good_until = time.monotonic() + AGAIN_AFTER
            return self._found

    async def _describe(self, model: str, actor: str) -> dict[str, Any]:
        deployment = (await self._shared.deployed.all()).get(actor)
        if deployment is None or deployment.options.get("provider") != COZE:
            return {"model": model, "auth_mode": "NONE"}
        reports = await self._nodes.all(f"{SEEN}{actor}.")
        return {
            "model": model,
            **_read_coze(deployment),
            "coze_connected": _is_connected([each.data for each in reports.values()]),
        }


def _read_coze(deployment: Deployment) -> dict[str, Any]:
    options = deployment.options
    extra, dialect = options.get("extra"), options.get("dialect")
    jwt = isinstance(dialect, dict) and "client" in dialect
    return {
        "auth_mode": "OAUTH_JWT" if jwt else "TOKEN",
        "workflow_id": str(options.get("model") or ""),
        "app_id": str(extra.get("app_id") or "") if isinstance(extra, dict) else "",
    }


def _is_connected(reports: Sequence[bytes]) -> bool | None:
    """Whether some host reaches an upstream; None if no host tells."""
    statuses = []
    for report in reports:
        try:
            statuses += [one.status for one in _decode(report).upstreams]
        except UNREADABLE:
            continue
    return any(status in ("HEALTHY", "BUSY") for status in statuses) if statuses else None
