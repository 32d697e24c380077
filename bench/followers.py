"""`python -m bench.followers`: what followers cost an edge, as it is run, on real sockets.

Idle ones in memory; all of one topic coming back at once; one that stops reading.
"""

import argparse
import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from bench.machine import describe
from bench.relay import KEY, ROOT, find_free_port
from runtime.log import configure
from runtime.store.server import EmbeddedServer

GOAL = 40
"""KB that one idle follower may cost the edge."""
LOG = "/api/relay/log/events"
PATIENCE = 60.0
AT_ONCE = 50
STILL = 64
"""KB by which memory may change that does not change any more."""
REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: keep-alive\r\n"
    "Accept: text/event-stream\r\nCache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/142.0.0.0 Safari/537.36\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n{more}\r\n"
)


class Follower:
    """One socket with an open stream; `cursor` is where it would go on, `retry` when (ms)."""

    def __init__(self, port: int, path: str) -> None:
        self.cursor = ""
        self.retry = 0
        self.heard = asyncio.Event()
        self._port = port
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and read what comes at once; raises OSError if it is refused."""
        # What is kept here for a follower is not what is measured, but there are very many.
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=4096)
        more = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
        self._writer.write(REQUEST.format(path=self._path, port=self._port, more=more).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            self.close()
            raise ConnectionError(head.partition(b"\r\n")[0].decode())
        greeting = (await reader.readuntil(b"\n\n")).decode()
        self._learn(greeting)
        self._reading = asyncio.create_task(self._read(reader))

    def _learn(self, text: str) -> None:
        if found := re.findall(r"^retry: (\d+)", text, re.M):
            self.retry = int(found[-1])
        if found := re.findall(r"^id: (\d+)", text, re.M):
            self.cursor = found[-1]
        if "\ndata: " in text:
            self.heard.set()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                self._learn((await reader.readuntil(b"\n\n")).decode())

    @property
    def left(self) -> bool:
        """Whether the edge ended the stream."""
        return self._reading is not None and self._reading.done()

    def close(self) -> None:
        """Go away."""
        if self._reading:
            self._reading.cancel()
        if self._writer:
            self._writer.transport.abort()


class Edge:
    """`callboard edge` as a process, beside a host for the tasks that are followed."""

    def __init__(self, nats: str) -> None:
        self.port = find_free_port()
        self._nats = nats
        self._parts: dict[str, asyncio.subprocess.Process] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, *parts: str) -> None:
        """Run parts, and return once the edge is healthy."""
        told = {"CALLBOARD_LISTEN": f"127.0.0.1:{self.port}", "RELAY_API_KEY": KEY}
        environment = {**os.environ, **told, "LOG_LEVEL": "error", "CALLBOARD_CHILD": "1"}
        for part in parts:
            self._parts[part] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runtime", part, "--nats", self._nats),
                stdin=asyncio.subprocess.PIPE,
                env=environment,
                cwd=ROOT,
            )
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/health")).is_success:
                        return
                await asyncio.sleep(0.05)

    async def kill(self, part: str = "edge") -> None:
        """End a part as a crash would."""
        process = self._parts.pop(part)
        process.kill()
        await process.wait()

    async def stop(self) -> None:
        """End everything."""
        for process in self._parts.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self._parts.values()))

    def memory(self) -> int:
        """KB of the edge that are in memory and its own."""
        text = Path(f"/proc/{self._parts['edge'].pid}/smaps_rollup").read_text()
        return int(re.findall(r"^Rss:\s+(\d+)", text, re.M)[0])


@asynccontextmanager
async def serving() -> AsyncIterator[Edge]:
    """A server, a host and an edge on a store of their own."""
    with tempfile.TemporaryDirectory(prefix="callboard-bench-") as folder:
        server = EmbeddedServer(Path(folder))
        await server.start()
        edge = Edge(server.url)
        try:
            await edge.start("host", "edge")
            yield edge
        finally:
            await edge.stop()
            await server.stop()


async def send_tasks(edge: Edge, count: int) -> list[str]:
    """Send so many tasks; their ids."""
    task = {"from": "master", "to": "child", "type": "task", "cmd": "test", "payload": {}}
    headers = {"X-Relay-API-Key": KEY}
    async with httpx.AsyncClient(
        base_url=edge.url, headers=headers, timeout=PATIENCE, trust_env=False
    ) as client:
        few = asyncio.Semaphore(AT_ONCE)

        async def send() -> str:
            async with few:
                answer = await client.post("/api/relay/send", json=task)
                answer.raise_for_status()
                return str(answer.json()["task_id"])

        return await asyncio.gather(*(send() for _ in range(count)))


async def open_all(followers: list[Follower]) -> None:
    """Open them, a few at a time."""
    few = asyncio.Semaphore(AT_ONCE)

    async def one(follower: Follower) -> None:
        async with few, asyncio.timeout(PATIENCE):
            await follower.open()

    await asyncio.gather(*map(one, followers))


async def measure_idle(count: int, *, apart: bool, seconds: float) -> float:
    """KB of the edge for each idle follower: of one log, or each of a task of its own."""
    async with serving() as edge:
        tasks = await send_tasks(edge, count if apart else 1)
        paths = [f"/api/relay/tasks/{task}/events" for task in tasks] if apart else [LOG] * count
        # What the first of its kind costs is not what each costs.
        first = Follower(edge.port, paths[0])
        await first.open()
        first.close()
        before = await settled(edge)
        followers = [Follower(edge.port, path) for path in paths]
        await open_all(followers)
        await asyncio.sleep(seconds)
        after = await settled(edge)
        assert not any(follower.left for follower in followers), "the edge ended a stream"
        for follower in followers:
            follower.close()
    return (after - before) / count


async def settled(edge: Edge) -> int:
    """The edge's memory once it changes no more."""
    known = 0
    while True:
        before, known = known, edge.memory()
        if abs(known - before) <= STILL:
            return known
        await asyncio.sleep(0.5)


async def measure_return(count: int) -> tuple[float, int, float]:
    """Seconds until all are back after the edge was killed, how often one was told to come later,
    and the longest pause that one was given."""
    async with serving() as edge:
        followers = [Follower(edge.port, LOG) for _ in range(count)]
        await open_all(followers)
        await edge.kill()
        await edge.start("edge")
        began = time.monotonic()
        refused = await asyncio.gather(*(come_back(follower) for follower in followers))
        took = time.monotonic() - began
        await send_tasks(edge, 1)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(follower.heard.wait() for follower in followers))
        for follower in followers:
            follower.close()
    return took, sum(refused), max(follower.retry for follower in followers) / 1000


async def come_back(follower: Follower) -> int:
    """Connect again as a browser does: after the pause it was given, until it works."""
    refused = 0
    while True:
        follower.close()
        await asyncio.sleep(follower.retry / 1000)
        try:
            async with asyncio.timeout(PATIENCE):
                await follower.open()
            return refused
        except OSError:
            refused += 1


async def run(given: argparse.Namespace) -> int:
    """Measure, print, and return 1 if a goal is missed."""
    good = True
    for apart, words in ((False, "of one log"), (True, "each of a task of its own")):
        cost = await measure_idle(given.count, apart=apart, seconds=given.seconds)
        good &= cost < GOAL
        print(f"{given.count} idle followers {words}: {cost:.1f} KB each (goal {GOAL})", flush=True)
    took, refused, pause = await measure_return(given.count)
    print(
        f"{given.count} followers of one log after the edge was killed: all back {took:.1f} s after"
        f" it was ready, {refused} refused on the way; the longest pause was {pause:.1f} s"
    )
    return 0 if good else 1


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.followers", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="followers")
    parser.add_argument("--seconds", type=float, default=20.0, help="idle, heartbeats included")
    given = parser.parse_args()
    configure(level="error")
    print("\n".join(describe(None)), flush=True)
    return asyncio.run(run(given))


if __name__ == "__main__":
    sys.exit(main())
