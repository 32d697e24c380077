"""Whether this edge can serve: plain facts, for people and for load balancers."""

import asyncio
import time
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer
from edge.auth import Doorkeeper
from edge.operation import Operation
from edge.shared import Shared
from runtime.errors import BusFault
from runtime.kv import Bucket
from schemas.node import PREFIX

CHECK_WITHIN = 2.0
CHECK_EVERY = 1.0
"""Seconds that a finding is good for: however often we are asked, the server is not."""


NODES = "nodes"

Status: TypeAlias = Literal["ok", "degraded", "unavailable"]


class Health(msgspec.Struct, omit_defaults=True):
    """What this process knows of itself; strangers from elsewhere are told the status only.

    `degraded`: requests are stored, but no host is alive to work on them; or nothing can be
    stored, and what is there can be read: `store` says why. `unavailable`: nothing is served,
    for want of a connection, or because the store lacks what it had acknowledged. `hosts` are those
    alive, `streams` the server-sent event streams that are open, `uptime` is in seconds.
    """

    status: Status
    nats: Literal["connected", "not connected"] | None = None
    stream: Literal["reachable", "not reachable"] | None = None
    store: str | None = None
    hosts: int | None = None
    version: str | None = None
    uptime: float | None = None
    streams: int | None = None


class HealthCheck:
    """The operation that says whether this edge can serve."""

    def __init__(self, shared: Shared, doorkeeper: Doorkeeper) -> None:
        self._shared = shared
        self._doorkeeper = doorkeeper
        self._nodes = Bucket(shared.bus, NODES)
        self._hosts = 0
        self._version = own_version()
        self._reachable = False
        self._good_until = 0.0
        self._looking = asyncio.Lock()

    def operations(self) -> Sequence[Operation]:
        """The table of it."""
        return (
            Operation(
                "GET",
                "/health",
                self.check,
                "Ask whether the edge can serve",
                name="health",
                answers={200: Health, 503: Health},
                tag="operation",
            ),
        )

    async def check(self, request: Request) -> Response:
        """Answer 200, or 503 while requests would be refused."""
        return told(await self.look(request))

    async def look(self, request: Request) -> Health:
        """Return how this edge does, and to those whom it trusts why."""
        connected = self._shared.bus.link.connected.is_set()
        reachable = connected and await self._reach()
        trouble = self._shared.store.trouble
        serves = reachable and trouble.kind != "damaged"
        fine = self._hosts and not trouble.kind
        health = Health("unavailable" if not serves else "ok" if fine else "degraded")
        if self._doorkeeper.trusts(request):
            health.nats = "connected" if connected else "not connected"
            health.stream = "reachable" if reachable else "not reachable"
            health.store = trouble.detail or None
            health.hosts = self._hosts if reachable else None
            health.version = self._version
            health.uptime = round(time.monotonic() - self._shared.started, 1)
            health.streams = self._shared.streams.count
        return health

    async def _reach(self) -> bool:
        async with self._looking:
            if time.monotonic() >= self._good_until:
                bus = self._shared.bus
                try:
                    await bus.api(f"STREAM.INFO.{bus.stream}", timeout=CHECK_WITHIN)
                    found = await self._nodes.all()
                    self._hosts = sum(key.startswith(PREFIX) for key in found)
                    self._reachable = True
                except BusFault:
                    self._reachable = False
                self._good_until = time.monotonic() + CHECK_EVERY
            return self._reachable


def told(health: Health, view: Any = None) -> Response:
    """Answer how an edge does, in other words if there are some."""
    serves = health.status != "unavailable"
    found = answer(health if view is None else view, 200 if serves else 503)
    if not serves:
        found.headers["Retry-After"] = "1"
    return found


def own_version() -> str:
    """The version of this product, installed or run from its sources."""
    try:
        return version("callboard")
    except PackageNotFoundError:
        project = Path(__file__).parent.parent / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
