"""Runs one contestant once: a fresh server on an empty store, a fresh process for each side."""

import asyncio
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bench.contestants import Contestant, Sizes
from bench.role import Report, Told
from runtime.store.server import EmbeddedServer

PATIENCE = 40.0
"""Seconds; longer than a server waits before it delivers again what a client lost."""


class Spoiled(Exception):
    """A side did not do as it was told; the end of its log says why."""


class Result(msgspec.Struct, kw_only=True):
    """One run: messages per second, CPU microseconds of each process per message, seconds."""

    contestant: str
    sync: str
    round: int
    rate: float = 0.0
    handled: int = 0
    cpu: dict[str, float] = {}
    megabytes: float = 0.0
    trips: list[float] = []


class Side:
    """One role in its process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._name = name
        self._log = log

    @classmethod
    async def start(cls, path: str, url: str, level: str, log: Path) -> "Side":
        """Start it; it is ready once `report` has returned."""
        with log.open("wb") as output:
            return cls(path, await _spawn(path, url, level, output), log)

    async def tell(self, do: str, count: int) -> Report:
        """Have it do something, and wait for what came of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(Told(do=do, count=count)) + b"\n")
        return await self.report(f"{do} {count}")

    async def report(self, told: str = "open") -> Report:
        """Wait for its next line; raises Spoiled with what it was told and how its log ends."""
        assert self.process.stdout is not None
        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                line = await self.process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").splitlines()[-12:]
            ended = "\n".join(said) or f"no answer within {PATIENCE:g} s"
            raise Spoiled(f"{self._name}, told to {told}: {ended}")
        return msgspec.json.decode(line, type=Report)

    async def end(self) -> None:
        """Nothing of it is needed any more, so nothing is drained."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


async def _spawn(path: str, url: str, level: str, output: BinaryIO) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bench.role", path, url, level),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=output,
        limit=1024 * 1024,
        cwd=Path(__file__).parent.parent,
    )


async def run_once(
    contestant: Contestant,
    sizes: Sizes,
    result: Result,
    *,
    data: Path | None = None,
    level: str = "warning",
) -> Result:
    """Fill in the result; `data` is where the store goes. Raises Spoiled."""
    with tempfile.TemporaryDirectory(dir=data, prefix="bench-") as place:
        folder = Path(place)
        server = EmbeddedServer(folder / "nats", sync=result.sync)
        await server.start()
        sides: list[Side] = []
        try:
            for role in (contestant.driver, *[contestant.worker] * contestant.workers):
                at = folder / f"side-{len(sides)}"
                sides.append(await Side.start(role, server.url, level, at))
            await asyncio.gather(*(side.report() for side in sides))
            await _contend(sides[1:], sides[0], server.pid, sizes, result)
        finally:
            await asyncio.gather(*(side.end() for side in sides))
            await server.kill()
    return result


async def _contend(
    workers: list[Side], driver: Side, server: int, sizes: Sizes, result: Result
) -> None:
    if sizes.trips:
        await driver.tell("trips", max(3, sizes.trips // 10))
        result.trips = (await driver.tell("trips", sizes.trips)).trips
    count = sizes.timed(result.sync)
    if not count:
        return
    # What the round trips made them handle is not to be counted with the rest.
    await asyncio.gather(*(one.tell("settle", 0) for one in workers))
    await _load(workers, driver, sizes.warm)
    pids = {"worker": [one.pid for one in workers], "driver": [driver.pid], "server": [server]}
    before = {name: sum(map(_cpu, each)) for name, each in pids.items()}
    sent, settled = await _load(workers, driver, count)
    result.rate = count / (max(one.ended for one in settled) - sent.began)
    result.handled = sum(one.handled for one in settled)
    spent = {name: sum(map(_cpu, each)) - before[name] for name, each in pids.items()}
    result.cpu = {name: seconds / count * 1e6 for name, seconds in spent.items()}
    result.megabytes = max(_megabytes(one.pid) for one in workers)


async def _load(workers: list[Side], driver: Side, count: int) -> tuple[Report, list[Report]]:
    """Have one side send and the other settle; the first that fails spoils it for both."""
    if len(workers) == 1:
        sent, one = await asyncio.gather(
            driver.tell("flood", count), workers[0].tell("settle", count)
        )
        return sent, [one]
    # None of several knows how much falls to it: they look whether all is settled once it is sent.
    sent = await driver.tell("flood", count)
    return sent, await asyncio.gather(*(one.tell("settle", 0) for one in workers))


def _cpu(pid: int) -> float:
    """Seconds of CPU a process has used; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _megabytes(pid: int) -> float:
    """The most memory a process has held; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


def show(result: Result) -> dict[str, Any]:
    """The result as plain data."""
    found: dict[str, Any] = msgspec.to_builtins(result)
    return found
