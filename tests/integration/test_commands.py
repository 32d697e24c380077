"""`callboard actors`, `doctor`, `tail` and `export` as their users run them."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from actors.child import Remote
from actors.master import Master
from runtime.errors import ConfigError
from runtime.terminal.follow import archive
from runtime.testing import Kit, running
from schemas.base import Topic
from tests.integration.command import PATIENCE, ROOT
from tests.integration.tasks import send


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master, far=Remote) as kit:
        yield kit


def callboard(
    *words: object, url: str = "", output: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    named = ["--nats", url] if url else []
    return subprocess.run(
        [sys.executable, "-m", "runtime", *map(str, words), *named],
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )


async def test_actors_shows_what_is_deployed_and_what_waits(kit: Kit) -> None:
    await send(kit, "t_1")
    done = callboard("actors", url=kit.server.url)
    far = next(line.split() for line in done.stdout.splitlines() if line.startswith("far"))

    assert done.returncode == 0
    assert far[1] == "remote"
    assert far[3] == "1"


async def test_doctor_finds_a_running_system_in_order(kit: Kit) -> None:
    done = callboard("doctor", url=kit.server.url)

    assert "WRONG" not in done.stdout
    assert "actor 'master' is served" in done.stdout
    assert done.returncode == 0


async def test_doctor_says_that_a_frozen_server_does_not_answer(kit: Kit) -> None:
    os.kill(kit.server.pid, signal.SIGSTOP)
    try:
        done = callboard("doctor", url=kit.server.url)
    finally:
        os.kill(kit.server.pid, signal.SIGCONT)

    assert done.returncode == 1
    assert f"127.0.0.1:{kit.server.port}" in done.stdout
    assert "does not answer" in done.stdout
    assert "Traceback" not in done.stderr


async def test_tail_prints_the_log_from_a_cursor_on(kit: Kit) -> None:
    await send(kit, "t_1")
    await send(kit, "t_2")
    done = callboard("tail", "relay/log", "--once", "--jsonl", url=kit.server.url)
    lines = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    after = lines[0]["cursor"]
    rest = callboard("tail", "relay/log", "--once", "--after", after, url=kit.server.url)

    assert [line["event"]["data"]["task_id"] for line in lines] == ["t_1", "t_2"]
    assert len(rest.stdout.splitlines()) == 1
    assert "t_2" in rest.stdout


async def test_tail_after_the_end_says_so_and_goes_on(kit: Kit) -> None:
    done = callboard("tail", "--once", "--after", 2**63 - 1, url=kit.server.url)

    assert (done.returncode, done.stdout) == (0, "")
    assert "the log ends at" in done.stderr


@pytest.mark.parametrize("after", ["-1", "9223372036854775808", "x"])
def test_a_cursor_that_cannot_be_is_an_argument_error(after: str) -> None:
    done = callboard("tail", f"--after={after}")

    assert done.returncode == 2
    assert "expected a cursor" in done.stderr


async def test_tail_ends_quietly_when_nobody_reads_it(kit: Kit) -> None:
    await send(kit, "t_1")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = callboard("tail", "--once", url=kit.server.url, output=writing)
    finally:
        os.close(writing)

    assert done.returncode == 141
    assert done.stderr == ""


async def test_export_appends_each_topic_once(kit: Kit, tmp_path: Path) -> None:
    await send(kit, "A")
    await send(kit, "B")
    words = [("export", f"task/{name}", "--to", tmp_path) for name in ("B", "A", "A")]
    said = [callboard(*each, url=kit.server.url).stdout.split()[0] for each in words]
    files = sorted(path.name[:7] for path in tmp_path.iterdir())

    assert said == ["1", "1", "0"]
    assert files == ["task-A-", "task-B-"]


async def test_a_line_that_a_crash_cut_off_is_written_again(kit: Kit, tmp_path: Path) -> None:
    await send(kit, "A")
    await send(kit, "B")
    log = Topic("relay", "log")
    await archive(kit.bus, log, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    again = await archive(kit.bus, log, tmp_path)

    assert again == 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["garbage", '{"cursor":"x"}', '{"cursor":999999}'])
async def test_an_archive_that_cannot_be_is_named_and_left_alone(
    kit: Kit, tmp_path: Path, line: str
) -> None:
    path = tmp_path / "relay-log-2026-01-01.jsonl"
    path.write_text(f"{line}\n")
    done = callboard("export", "relay/log", "--to", tmp_path, url=kit.server.url)

    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert path.read_text() == f"{line}\n"


async def test_a_folder_that_cannot_be_written_is_named(kit: Kit, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        await archive(kit.bus, Topic("relay", "log"), taken)


async def test_a_server_that_chose_its_port_is_found_by_its_folder(
    kit: Kit, tmp_path: Path
) -> None:
    path = tmp_path / "callboard.toml"
    path.write_text(f"[nats]\nport = 0\ndata = '{kit.server.data}'\n")
    found = callboard("actors", "--config", path)
    path.write_text(f"[nats]\nport = 0\ndata = '{tmp_path}/none'\n")
    missing = callboard("doctor", "--config", path)

    assert (found.returncode, "master" in found.stdout) == (0, True)
    assert missing.returncode == 1
    assert "no server has told its port" in missing.stdout
