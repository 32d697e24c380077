"""What a machine does to a host: told to stop in the middle, no files left, a slow disk, a wrong
clock."""

import asyncio
import contextlib
import datetime as wall
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime import clock as clocks
from runtime.bus import Bus, expiry, new_id
from runtime.clock import ServerClock
from runtime.store.server import EmbeddedServer
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address, Message, Topic
from schemas.envelope import encode, seal
from tests.integration.command import PATIENCE, ROOT, Callboard
from tests.integration.counter import EVENTS, HERE, Add, Counter, Get, SetAlarm, Total, Wake
from tests.integration.waiting import until_known

CONFIG = """
[log]
format = "json"
[[actor]]
name = "counter"
type = "tests.integration.counter:Counter"
"""
KEYS = 100
EACH = 3


# -- told to stop -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def host_process(url: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    config = folder / "host.toml"
    config.write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime", "host", "--config", str(config), "--nats", url),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def say(bus: Bus, to: Address, message: Message) -> None:
    sealed = seal(message, id=new_id(), source="test", subject=to.key)
    await bus.publish(subjects.mail(to), encode(sealed), headers=expiry(timedelta(hours=1)))


async def counted(bus: Bus) -> int:
    """How many turns have been stored so far: each emits one event."""
    found = await bus.read(subjects.event(EVENTS), after=0, limit=1)
    return found[0].pending + 1 if found else 0


async def test_a_host_told_to_stop_with_a_hundred_keys_in_flight_ends_clean_and_loses_nothing(
    own_server: EmbeddedServer, own_bus: Bus, tmp_path: Path
) -> None:
    addresses = [Address("counter", f"k{n}") for n in range(KEYS)]
    async with host_process(own_server.url, tmp_path) as first:
        await say(own_bus, addresses[0], Get())
        await until_known(lambda: own_bus.last("state.counter.k0"))
        sending = [say(own_bus, to, Add(n=1)) for _ in range(EACH) for to in addresses]
        sent = asyncio.gather(*sending)
        await until_known(lambda: counted(own_bus))
        first.send_signal(signal.SIGTERM)
        await sent
        async with asyncio.timeout(PATIENCE):
            code = await first.wait()
    async with host_process(own_server.url, tmp_path):
        await until_known(lambda: all_counted(own_bus), PATIENCE)

    assert code == 0
    assert await counted(own_bus) == KEYS * EACH


async def all_counted(bus: Bus) -> bool:
    return await counted(bus) >= KEYS * EACH


# -- no files left ------------------------------------------------------------------------------


@pytest.fixture
def callboard(tmp_path: Path) -> Iterator[Callboard]:
    callboard = Callboard(tmp_path)
    try:
        callboard.wait_for("host_ready")
        yield callboard
    finally:
        callboard.close()


@contextlib.contextmanager
def with_files(pid: int, most: int) -> Iterator[None]:
    """Let a process open files below a number only; what is open stays open."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def processor_time(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_host_without_files_says_so_and_connects_again_when_it_has_some(
    callboard: Callboard,
) -> None:
    with with_files(callboard.find("host"), 3):
        os.kill(callboard.find("-c"), signal.SIGKILL)
        said = callboard.wait_for("nats_unreachable")["error"]
        while "Too many open files" not in said:
            said = callboard.wait_for("nats_unreachable")["error"]
    # The edge reached it without being held up, and now the host does as well.
    for _ in range(2):
        callboard.wait_for("nats_reached")


async def test_an_edge_without_files_serves_who_is_there_and_others_when_it_has_some(
    callboard: Callboard,
) -> None:
    pid, url = callboard.find("edge"), callboard.wait_for("edge_ready")["addresses"][0]
    port = int(url.rpartition(":")[2])
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE, base_url=url) as there:
        assert (await there.get("/health")).status_code == 200
        with with_files(pid, 1 + max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))):
            before = processor_time(pid)
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
            newcomers = [asyncio.create_task(visit(url)) for _ in range(20)]
            await asyncio.wait(newcomers, timeout=2)
            used = processor_time(pid) - before
            still = await there.get("/health")
        for _, writer in held:
            writer.close()
        answers = await asyncio.gather(*newcomers)
        later = await visit(url)

    assert still.status_code == 200
    assert later == 200
    assert set(answers) == {0}
    assert used < 1


async def visit(url: str) -> int:
    """The status of an answer over a connection of its own; 0 if the connection is ended."""
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as newcomer:
        with contextlib.suppress(httpx.TransportError):
            return (await newcomer.get(f"{url}/health")).status_code
    return 0


# -- a slow disk --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def slow_disk(pid: int, seconds: float) -> AsyncIterator[None]:
    """Have every sync of a process take so much longer; skips where that is not possible."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    what = f"inject=fsync,fdatasync:delay_exit={int(seconds * 1e6)}"
    tracer = await asyncio.create_subprocess_exec(
        *(strace, "-f", "-e", "trace=fsync,fdatasync", "-e", what, "-p", str(pid)),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert tracer.stderr is not None
    line = await tracer.stderr.readline()
    if b"attached" not in line:
        await tracer.wait()
        pytest.skip(f"strace may not look at processes here: {line.decode().strip()}")
    draining = asyncio.create_task(tracer.stderr.read())
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        await tracer.wait()
        await draining


async def test_on_a_disk_whose_syncs_take_long_all_is_stored_once_and_nobody_is_cut_off() -> None:
    async with running(counter=Counter) as kit:
        epoch = kit.host.bus.link.epoch
        async with slow_disk(kit.server.pid, 0.2):
            keys = [Address("counter", f"k{n}") for n in range(20)]
            answers = await asyncio.gather(*(kit.ask(to, Add(n=1), timeout=50) for to in keys))
        events = await kit.events(EVENTS, Total)
        still = kit.host.bus.link.epoch

    assert [answer.n for answer in answers] == [1] * 20
    assert len(events) == 20
    assert still == epoch


# -- a wrong clock ------------------------------------------------------------------------------


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with running(counter=Counter) as kit:
        yield kit


class Machine:
    """A machine's clock, which somebody sets."""

    wrong_by = timedelta()

    @classmethod
    def now(cls, zone: Any = None) -> wall.datetime:
        return wall.datetime.now(zone) + cls.wrong_by


@pytest.mark.parametrize("hours", [1, -1, 24 * 365])
async def test_a_host_goes_by_the_time_of_the_server_whatever_its_own_clock_says(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    monkeypatch.setattr(clocks, "datetime", Machine)
    monkeypatch.setattr(Machine, "wrong_by", timedelta(hours=hours))
    clock = ServerClock()
    await clock.learn(kit.bus)
    kit.host.system.clock = clock
    monkeypatch.setattr(Machine, "wrong_by", timedelta(hours=-hours))  # and it jumps
    await kit.ask(HERE, SetAlarm(name="tea", text="tea", seconds=1.5))
    early = await kit.ask(HERE, Get())
    await kit.event(EVENTS, Wake)
    stored = await kit.bus.last(subjects.event(EVENTS))

    assert early.said == []
    assert stored is not None
    assert abs(clock.now() - stored.time) < timedelta(minutes=1)


async def test_a_clock_that_goes_back_during_the_work_changes_neither_order_nor_names(
    kit: Kit,
) -> None:
    ids = set()
    for n in range(1, 21):
        kit.clock.advance(timedelta(minutes=-7 if n % 2 else 5))
        assert (await kit.ask(HERE, Add(n=1))).n == n
    for stored in await kit.bus.read_all(subjects.event(EVENTS), after=0):
        ids.add(stored.data)
    totals = [event.n for event in await kit.events(Topic("counter", "a"), Total)]

    assert totals == list(range(1, 21))
    assert len(ids) == 20
    assert await kit.dead_letters() == []
