"""The relay as it is run: a host and an edge, each a process, and a client that sends tasks.

A round trip is from the POST to the event that says that the task is completed.
"""

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

import httpx

from bench.ours import open_bus
from bench.role import Role
from runtime.connection import Packet
from runtime.errors import BusFault

ROOT = Path(__file__).parent.parent
KEY = "bench_relay_secret_of_one_run"
WHERE = "bench.where"
"""Who listens here tells the edge's address."""


class Stack(Role):
    """`callboard host` and `callboard edge` with the configuration that everybody starts with."""

    async def open(self, url: str) -> None:
        port = find_free_port()
        self.address = f"http://127.0.0.1:{port}"
        told = {"CALLBOARD_LISTEN": f"127.0.0.1:{port}", "RELAY_API_KEY": KEY}
        # With CALLBOARD_CHILD they end when this process does, however it ends.
        environment = {**os.environ, **told, "LOG_LEVEL": "warning", "CALLBOARD_CHILD": "1"}
        self.parts = [await _start(part, url, environment) for part in ("host", "edge")]
        self.bus = await open_bus(url)
        await self._wait_until_healthy()
        self.bus.subscribe(WHERE, self._tell)

    async def _wait_until_healthy(self) -> None:
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.address}/health")).is_success:
                        return
                await asyncio.sleep(0.02)

    def _tell(self, packet: Packet) -> None:
        self.bus.notify(packet.reply, self.address.encode())

    async def close(self) -> None:
        for part in self.parts:
            with contextlib.suppress(ProcessLookupError):
                part.terminate()
        await asyncio.gather(*(part.wait() for part in self.parts))
        await self.bus.link.close()


class Client(Role):
    """Sends tasks to the built-in child, over one connection that stays open."""

    async def open(self, url: str) -> None:
        self.bus = await open_bus(url)
        self.client = httpx.AsyncClient(
            base_url=await self._ask_where(), headers={"X-Relay-API-Key": KEY}, timeout=10
        )
        self.completed = asyncio.Event()
        self.bus.subscribe("live.event.task.*", self._hear)

    async def _ask_where(self) -> str:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(BusFault):
                    return (await self.bus.link.request(WHERE, b"", timeout=5)).data.decode()
                await asyncio.sleep(0.02)

    def _hear(self, packet: Packet) -> None:
        if b'"task.completed"' in packet.data:
            self.completed.set()

    async def trip(self, number: int) -> None:
        self.completed.clear()
        task = {"from": "master", "to": "child", "type": "task", "cmd": "test", "payload": {}}
        answer = await self.client.post("/api/relay/send", json=task)
        answer.raise_for_status()
        async with asyncio.timeout(10):
            await self.completed.wait()

    async def close(self) -> None:
        await self.client.aclose()
        await self.bus.link.close()


async def _start(part: str, url: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "runtime", part, "--nats", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env=environment,
        cwd=ROOT,
    )


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
