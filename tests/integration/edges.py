"""Edges on real sockets, each with a connection of its own, as processes would be."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from edge.app import build_app
from edge.serve import serve_app
from edge.sse import Streams
from runtime.bus import Bus
from runtime.connection import Connection
from runtime.streams import ensure_streams
from runtime.tables import Config, EdgeTable, KeyTable

KEY = "lynker_relay_secret_2025"
AS_RELAY = {"X-Relay-API-Key": KEY}
PATIENCE = 15.0


class Edge:
    """One edge: where it is, its parts, and a client for it that sends the key."""

    def __init__(self, url: str, app: Any, client: httpx.AsyncClient) -> None:
        self.url = url
        self.shared = app.state.shared
        self.client = client
        self.child = "far"
        """Whom tasks are for, unless a test says otherwise."""
        self.stop = asyncio.Event()
        self.task: asyncio.Task[int]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        return await self.client.post(path, content=content, **options)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def get_nameless(self, path: str) -> httpx.Response:
        """Ask without a key."""
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            return await client.get(self.url + path)

    async def send(self, cmd: str = "test", to: str = "", **rest: Any) -> str:
        """Send a task; returns its id."""
        body = {"from": "master", "to": to or self.child, "type": "task", "cmd": cmd, **rest}
        answer = await self.post("/api/relay/send", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["task_id"])

    async def say(self, text: str, **rest: Any) -> None:
        """Send a message."""
        body = {"from": "user", "to": "master", "text": text, **rest}
        answer = await self.post("/api/relay/send", body)
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def serving(
    nats: str,
    *,
    keys: Mapping[str, KeyTable] | None = None,
    streams: Streams | None = None,
    **edge: Any,
) -> AsyncIterator[Edge]:
    """Serve an edge on the server at `nats`. `keys` are by their secrets."""
    link = Connection([nats])
    await link.open()
    bus = Bus(link)
    await ensure_streams(bus)
    keys = keys or {}
    config = Config(edge=EdgeTable(listen=["127.0.0.1:0"], key=list(keys.values()), **edge))
    environ = {table.secret_env: secret for secret, table in keys.items()}
    app = build_app(config, bus, environ=environ, streams=streams)
    ready: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    many = httpx.Limits(max_connections=None)
    options: Any = {"headers": AS_RELAY, "timeout": PATIENCE, "trust_env": False, "limits": many}
    async with httpx.AsyncClient(**options) as client:
        served = Edge("", app, client)
        served.task = asyncio.create_task(serve_app(app, config, served.stop, ready.set_result))
        served.url = (await asyncio.wait_for(ready, PATIENCE))[0]
        client.base_url = httpx.URL(served.url)
        try:
            yield served
        finally:
            served.stop.set()
            await asyncio.wait_for(served.task, PATIENCE)
            await link.close()
