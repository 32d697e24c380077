"""What operators do on three nodes, as the user `admin` of nats/accounts.conf."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime.bus import Bus, expiry, new_id
from runtime.connection import Connection
from runtime.dead import Selection, each_letter
from runtime.deployments import seed_deployments
from runtime.errors import Denied
from runtime.host import Host
from runtime.streams import ensure_streams
from runtime.turn import DAY
from schemas import subjects
from schemas.deployment import Deployment
from schemas.envelope import encode, seal
from schemas.record import Record
from tests.cluster import PASSWORDS, Cluster, login
from tests.integration.command import ROOT
from tests.integration.counter import HERE, Counter, StartTwice, Wake
from tests.integration.desk import Moody
from tests.integration.waiting import until_known

PATIENCE = 60.0
PATH = "tests.integration"
DEPLOYED = [
    Deployment(name="counter", type=f"{PATH}.counter:Counter", kind="keyed"),
    Deployment(name="doubler", type=f"{PATH}.desk:Moody", kind="worker"),
]


@pytest.fixture
async def cluster(nats_server_binary: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path, nats_server_binary)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


@pytest.fixture
async def bus(cluster: Cluster) -> AsyncIterator[Bus]:
    """The bus as a host has it, and a host on it."""
    link = Connection(cluster.urls, **login("host"))
    await link.open()
    bus = Bus(link)
    await until_known(lambda: create_streams(bus), PATIENCE)
    await seed_deployments(bus, DEPLOYED)
    host = Host(bus, classes={"counter": Counter, "doubler": Moody})
    await host.start()
    yield bus
    await host.stop()
    await link.close()


async def create_streams(bus: Bus) -> bool:
    """False while the nodes that have just started do not all know of each other."""
    with contextlib.suppress(Denied):
        await ensure_streams(bus, replicas=3)
        return True
    return False


async def callboard(cluster: Cluster, folder: Path, *words: object) -> str:
    """Run a command as the user `admin`; what it printed."""
    config = folder / "admin.toml"
    urls = ",".join(cluster.urls)
    config.write_text(
        f'[nats]\nurl = "{urls}"\nuser = "admin"\npassword_env = "PASSWORD"\nreplicas = 3\n'
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "runtime", *map(str, words), "--config", str(config)],
        cwd=ROOT,
        env={"PASSWORD": PASSWORDS["admin"], "PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def tell(bus: Bus, message: Any) -> int:
    data = encode(seal(message, id=new_id(), source="test", subject=HERE.key))
    return (await bus.publish(subjects.mail(HERE), data, headers=expiry(DAY))).seq


async def record(bus: Bus) -> Record | None:
    stored = await bus.last(subjects.state("counter", HERE.key))
    return msgspec.json.decode(stored.data, type=Record) if stored else None


async def said(bus: Bus, count: int) -> list[str]:
    """What an actor has heard, once it is so much."""

    async def look() -> list[str] | None:
        found = await record(bus)
        words = msgspec.json.decode(found.data or b"{}").get("said", []) if found else []
        return words if len(words) >= count else None

    return await until_known(look, PATIENCE)


async def test_a_key_is_paused_skipped_resumed_and_killed_on_three_nodes(
    cluster: Cluster, bus: Bus, tmp_path: Path
) -> None:
    await callboard(cluster, tmp_path, "pause", "counter/a")
    for word in ("one", "two", "three"):
        last = await tell(bus, Wake(text=word))

    async def put_aside() -> bool:
        found = await record(bus)
        return found is not None and found.parked == last

    await until_known(put_aside, PATIENCE)
    await callboard(cluster, tmp_path, "skip", "counter/a")
    await callboard(cluster, tmp_path, "resume", "counter/a")
    heard = await said(bus, 2)
    shown = await callboard(cluster, tmp_path, "actors", "counter/a")
    killed = await callboard(cluster, tmp_path, "kill", "counter/a", "--yes")
    await tell(bus, Wake(text="four"))

    assert heard == ["two", "three"]
    assert "skipped by" in shown
    assert "done" in killed
    assert await said(bus, 1) == ["four"]


async def test_letters_are_replayed_and_runs_stopped_on_three_nodes(
    cluster: Cluster, bus: Bus, tmp_path: Path
) -> None:
    await bus.publish("mail.counter.b", b"garbage")

    async def letter() -> int | None:
        found = [one.seq async for one in each_letter(bus, Selection())]
        return found[0] if found else None

    seq = await until_known(letter, PATIENCE)
    replayed = await callboard(cluster, tmp_path, "dead", "replay", seq)
    await callboard(cluster, tmp_path, "pause", "doubler")
    await tell(bus, StartTwice())

    async def open_run() -> str | None:
        runs = await bus.lasts("run.*")
        return next((one.subject[4:] for one in runs if b"stopped" not in one.data), None)

    run = await until_known(open_run, PATIENCE)
    await callboard(cluster, tmp_path, "run", "stop", run, "--reason", "enough")
    (heard,) = await said(bus, 1)
    shown = await callboard(cluster, tmp_path, "actors")

    assert f"letter {seq} replayed: counter/b" in replayed
    assert heard.startswith("failed stopped by")
    assert "doubler" in shown
