"""A disk that takes nothing: `callboard up` says so at once, and heals when it is good again.

What stands for the full disk is a limit of the kernel on the size of files, for the server and
for who looks after it, and where one may mount, a small file system.
"""

import asyncio
import contextlib
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.alarm import ALARMS
from runtime.bus import Outgoing
from runtime.errors import NoRoom
from runtime.store.disk import PROBE, look_at_disk
from runtime.testing import running
from schemas.node import StoreTrouble
from schemas.record import Alarm
from tests.integration.command import KEY, PATIENCE, ROOT, Callboard
from tests.integration.counter import Counter
from tests.integration.faults import restart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits another process's files")

AT_ONCE = 2.0
"""Seconds after which a client would have given up on an answer."""
SMALL = 4096


@pytest.fixture
def callboard(tmp_path: Path, nats_server_binary: str) -> Iterator[Callboard]:
    running = Callboard(tmp_path)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(PATIENCE)
        running.close()


def limit_files(pids: list[int], size: int) -> None:
    """Let processes write no file beyond a size."""
    for pid in pids:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def send(url: str, timeout: float = PATIENCE) -> httpx.Response:
    body = {"from": "master", "to": "child", "type": "task", "cmd": "test"}
    return httpx.post(f"{url}/api/relay/send", json=body, headers=KEY, timeout=timeout)


def health(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{url}/health", timeout=AT_ONCE).json()
    return answer


def wait_until_fine(url: str) -> None:
    """Ask the edge until it has heard that all is well."""
    deadline = time.monotonic() + PATIENCE
    while health(url)["status"] != "ok":
        assert time.monotonic() < deadline, health(url)
        time.sleep(0.05)


def alarms(config: Path) -> list[str]:
    command = ["tail", "system/alarms", "--after", "0", "--once", "--jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "runtime", *command, "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    found = [json.loads(line)["event"]["data"] for line in done.stdout.splitlines()]
    return [f"{one['what']}: {one['detail']}" for one in found]


def test_a_full_disk_is_said_at_once_and_the_server_is_restarted_when_there_is_room(
    callboard: Callboard, tmp_path: Path
) -> None:
    url = callboard.wait_for("edge_ready")["addresses"][0]
    callboard.wait_for("host_ready")
    before = send(url)
    concerned = [callboard.process.pid, callboard.find("-c")]
    limit_files(concerned, SMALL)
    said = callboard.wait_for("store_in_trouble")
    refused, still_read = send(url, AT_ONCE), health(url)
    read = httpx.get(f"{url}/api/relay/tasks/{before.json()['task_id']}", timeout=AT_ONCE)
    limit_files(concerned, resource.RLIM_INFINITY)
    callboard.wait_for("nats_server_restarted")
    wait_until_fine(url)
    after = send(url)
    told = alarms(tmp_path / "callboard.toml")

    assert before.status_code == 200
    assert said["kind"] == "full"
    assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
    assert still_read["status"] == "degraded"
    assert "is full" in still_read["store"]
    assert read.status_code == 200
    assert after.status_code == 200
    assert [one for one in told if one.startswith("disk: the disk below ")] != []


async def test_a_batch_that_a_full_disk_makes_incomplete_is_no_message_s_fault() -> None:
    async with running(counter=Counter) as kit:
        parts = [Outgoing(f"event.t.{name}", b"x", {}) for name in "ab"]
        submit = kit.host.system.committer.submit
        await submit(parts, "lane")
        limit_files([kit.server.pid], 0)
        with pytest.raises(NoRoom, match="takes no batch at all"):
            await submit(parts, "lane")
        back = [asyncio.Event(), asyncio.Event()]
        for bus, event in zip((kit.bus, kit.host.bus), back, strict=True):
            bus.link.on_rebuilt.append(event.set)
        await restart(kit.server)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(event.wait() for event in back))
        alarm = await kit.event(ALARMS, Alarm)
        await submit(parts, "lane")

    assert alarm.what == "no_room"


def test_a_disk_is_full_before_the_last_byte_is_gone(tmp_path: Path) -> None:
    fine = look_at_disk(tmp_path)
    left = list(tmp_path.iterdir())

    assert fine == StoreTrouble()
    assert left == []


def test_a_folder_that_cannot_be_written_is_no_place_for_a_store(tmp_path: Path) -> None:
    (tmp_path / PROBE).mkdir()
    found = look_at_disk(tmp_path)

    assert found.kind == "failing"
    assert "fails: Is a directory" in found.detail
