"""A server with hosts and an edge on it, each a process of which figures are taken."""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from bench.relay import ROOT, find_free_port
from runtime.store.server import EmbeddedServer

PATIENCE = 60.0


class Spent(msgspec.Struct):
    """What a process has used so far: seconds of CPU; megabytes it holds."""

    cpu: float
    megabytes: float


class Stack:
    """One server, and processes beside it by name."""

    def __init__(self, folder: Path, sync: str) -> None:
        self.folder = folder
        self.server = EmbeddedServer(folder / "nats", sync=sync)
        self.pids: dict[str, int] = {}
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self, name: str, *arguments: str, **environ: str) -> None:
        """Start a program of Python, known as `name` from then on."""
        await self.start_program(name, sys.executable, *arguments, **environ)

    async def start_program(self, name: str, *command: str, **environ: str) -> None:
        """Start any program."""
        environment = {**os.environ, "LOG_LEVEL": "error", "CALLBOARD_CHILD": "1", **environ}
        output = (self.folder / f"{name}.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=ROOT,
        )
        output.close()
        self._processes.append(process)
        self.pids[name] = process.pid

    async def start_part(self, part: str, config: str, *, name: str = "") -> int:
        """Start `callboard host` or `edge`; returns the edge's port."""
        path, port = self.folder / f"{name or part}.toml", find_free_port()
        path.write_text(config)
        arguments = ("-m", "runtime", part, "--config", str(path), "--nats", self.server.url)
        told = {"CALLBOARD_LISTEN": f"127.0.0.1:{port}"}
        await self.start(name or part, *arguments, **told)
        return port

    def said(self, name: str) -> str:
        """The end of what a process has logged."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def spent(self) -> dict[str, Spent]:
        """What each process has used, the server too."""
        pids = {**self.pids, "server": self.server.pid}
        return {name: Spent(_cpu(pid), _megabytes(pid)) for name, pid in pids.items()}

    async def stop(self) -> None:
        """End everything; nothing of it is needed any more."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes))
        await self.server.kill()


@asynccontextmanager
async def stacked(*, data: Path | None = None, sync: str = "always") -> AsyncIterator[Stack]:
    """A stack with its server, for the length of a block."""
    with tempfile.TemporaryDirectory(dir=data, prefix="bench-") as folder:
        stack = Stack(Path(folder), sync)
        await stack.server.start()
        try:
            yield stack
        finally:
            await stack.stop()
            if keep := os.environ.get("KEEP_LOGS"):
                for log in Path(folder).glob("*.log"):
                    Path(keep, log.name).write_bytes(log.read_bytes())


async def wait_until_served(url: str) -> None:
    """Wait until a GET is answered well; raises TimeoutError."""
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(url)).is_success:
                    return
            await asyncio.sleep(0.05)


class Meter:
    """What a stack's processes use between two moments."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._began = time.monotonic()
        self._before = stack.spent()

    def read(self) -> dict[str, Spent]:
        """Cores that each process has kept busy since the beginning, and what it holds now."""
        seconds = time.monotonic() - self._began
        return {
            name: Spent((now.cpu - self._before[name].cpu) / seconds, now.megabytes)
            for name, now in self._stack.spent().items()
        }


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} is gone")
