"""A desk in processes of its own: hosts, a worker, edges and a server that are killed at random."""

import asyncio
import itertools
import signal
from pathlib import Path
from random import Random
from typing import Any

import httpx

from actors.batch import Batch
from actors.desk import Desk
from actors.human_agent import HumanAgent
from actors.model import Model
from actors.session import Session
from runtime.bus import Bus
from runtime.connection import Connection
from runtime.store.server import EmbeddedServer
from runtime.streams import ensure_streams
from runtime.testing import Kit
from tests.chaos.processes import Process
from tests.integration.command import find_free_port

ACTORS: dict[str, Any] = {
    "session": Session,
    "batch": Batch,
    "desk": Desk,
    "human_agent": HumanAgent,
    "echo": Model,
}
CONFIG = """
[nats]
url = "{url}"
[log]
format = "json"
[host]
run = {run}
[edge]
listen = ["127.0.0.1:{port}"]
[edge.support]
user_rate = 100000
streams_per_user = 100

[[actor]]
name = "session"
type = "actors.session:Session"

[[actor]]
name = "batch"
type = "actors.batch:Batch"

[[actor]]
name = "desk"
type = "actors.desk:Desk"
options = {{ auto_assign = false }}

[[actor]]
name = "human_agent"
type = "actors.human_agent:HumanAgent"

[[actor]]
name = "echo"
type = "actors.model:Model"
attempts = 100
options = {{ provider = "echo", extra = {{ rate = {rate} }} }}
"""
KEEPERS = ["session", "batch", "desk", "human_agent"]
FAULTS = ("host", "worker", "edge", "server", "freeze")
READY = {"host": "host_ready", "worker": "host_ready", "edge": "edge_ready"}
PATIENCE = 60.0
ONE_TRY = 8.0
"""Seconds for one try of a request, after which it is repeated at the other edge."""


class Place:
    """Everything that runs, by name; the server is beside it."""

    def __init__(
        self, folder: Path, server: EmbeddedServer, *, hosts: int, edges: int, rate: int = 60
    ) -> None:
        self.server = server
        self.kit = Kit(folder / "kit", ACTORS)
        self.processes: dict[str, Process] = {}
        self.urls: list[str] = []
        self.clients: list[Client] = []
        self._folder = folder
        self._rate = rate
        for number in range(hosts):
            self._add(f"host-{number}", "host", KEEPERS)
        self._add("worker-0", "host", ["echo"])
        for number in range(edges):
            port = find_free_port()
            self.urls.append(f"http://127.0.0.1:{port}")
            self._add(f"edge-{number}", "edge", [], port)

    def _add(self, name: str, kind: str, run: list[str], port: int = 1) -> None:
        config = self._folder / f"{name}.toml"
        url = self.server.url
        config.write_text(CONFIG.format(url=url, run=run, port=port, rate=self._rate))
        arguments = ["runtime", kind, "--config", str(config), "--nats", url]
        self.processes[name] = Process(name, self._folder / f"{name}.log", arguments)

    async def start(self) -> None:
        """Start everything, and return once it is ready."""
        link = Connection([self.server.url])
        await link.open()
        self.kit.bus = Bus(link)
        await ensure_streams(self.kit.bus)
        await asyncio.gather(*(process.start() for process in self.processes.values()))
        for name, process in self.processes.items():
            await process.say(READY[name.partition("-")[0]])

    def client(self, name: str) -> "Client":
        """Somebody who asks here, until everything ends."""
        self.clients.append(Client(self.urls, name))
        return self.clients[-1]

    async def stop(self) -> None:
        """End everything but the server."""
        await asyncio.gather(*(client.http.aclose() for client in self.clients))
        await asyncio.gather(*(process.kill() for process in self.processes.values()))
        await self.kit.bus.link.close()

    async def hurt(self, fault: str, random: Random) -> str:
        """Do one harm and undo it; returns to whom it was done."""
        away = random.uniform(0.1, 1.2)
        if fault == "server":
            await self.server.kill()
            await asyncio.sleep(away)
            await self.server.start()
            return "server"
        kind = "host" if fault == "freeze" else fault
        name = random.choice([one for one in self.processes if one.startswith(kind)])
        process = self.processes[name]
        if fault == "freeze":
            process.send(signal.SIGSTOP)
            await asyncio.sleep(away + 2)
            process.send(signal.SIGCONT)
            return f"{name} (frozen)"
        await process.kill()
        await asyncio.sleep(away)
        await process.start()
        return name


class Client:
    """Somebody's browser: repeats what was not answered at the next edge, under the same key."""

    def __init__(self, urls: list[str], name: str) -> None:
        self.urls = itertools.cycle(urls)
        self.repeats = 0
        self.cut = 0
        self._name = name
        self._keys = itertools.count()
        self.http = httpx.AsyncClient(trust_env=False, timeout=ONE_TRY)

    async def post(self, path: str, body: Any) -> httpx.Response:
        """Send it until it is answered by anything but a fault."""
        headers = {"Idempotency-Key": f"{self._name}-{next(self._keys)}"}
        last = "nothing"
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        url = next(self.urls) + path
                        answer = await self.http.post(url, json=body, headers=headers)
                        if answer.status_code < 500:
                            return answer
                        last = f"{answer.status_code} {answer.text}"
                    except httpx.TransportError as fault:
                        last = repr(fault)
                    self.repeats += 1
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{path} {body} is not answered: {last}") from None

    async def stream(self, body: Any, begun: asyncio.Event) -> None:
        """Say something and hear the answer as it comes, until it ends or breaks off."""
        headers = {"Idempotency-Key": f"{self._name}-{next(self._keys)}"}
        while not begun.is_set():
            url = next(self.urls) + "/api/chat/stream"
            try:
                async with self.http.stream("POST", url, json=body, headers=headers) as answer:
                    if answer.status_code >= 500:
                        self.repeats += 1
                        await asyncio.sleep(0.1)
                        continue
                    assert answer.status_code == 200, await answer.aread()
                    async for line in answer.aiter_lines():
                        # Some of the answer is there: it is taken away while it is said.
                        if '"answer"' in line or '"done"' in line:
                            begun.set()
            except httpx.TransportError:
                # What was heard at all was stored, and goes on without us.
                self.cut += 1
