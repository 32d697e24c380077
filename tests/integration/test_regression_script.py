"""The script of twelve checks, run against what `callboard up` serves as it is shipped."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.command import PATIENCE, ROOT, Callboard, find_free_port

SCRIPT = ROOT / "tests" / "regression_test.sh"
SHIPPED = ROOT / "config" / "local.toml"
CHANGES = {
    '"data" ': '"{data}"\nport = 0 ',
    "127.0.0.1:8000": "127.0.0.1:{port}",
}


@pytest.fixture
async def callboard(tmp_path: Path, nats_server_binary: str) -> AsyncIterator[Callboard]:
    told = {"data": tmp_path / "store", "port": find_free_port()}
    text = SHIPPED.read_text()
    for shipped, ours in CHANGES.items():
        assert shipped in text
        text = text.replace(shipped, ours.format(**told), 1)
    (config := tmp_path / "shipped.toml").write_text(f'{text}\n[log]\nformat = "json"\n')
    running = Callboard(tmp_path, "--config", str(config))
    try:
        yield running
    finally:
        running.process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(running.process.wait), PATIENCE)
        running.close()


@pytest.mark.skipif(not shutil.which("curl"), reason="the script asks by curl")
@pytest.mark.promise("FD-35", "FD-38", "FD-68")
async def test_all_twelve_checks_hold_on_what_is_shipped(callboard: Callboard) -> None:
    (address,) = (await asyncio.to_thread(callboard.wait_for, "edge_ready"))["addresses"]
    script = await asyncio.create_subprocess_exec(
        str(SCRIPT), address, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(4 * PATIENCE):
        said, _ = await script.communicate()

    lines = said.decode().splitlines()
    assert lines[-1] == "12/12", said.decode()
    assert [line.split(" - ")[0] for line in lines[1:-1]] == [f"ok {n:2d}" for n in range(1, 13)]
    assert script.returncode == 0
    assert callboard.errors == []


@pytest.mark.skipif(not shutil.which("curl"), reason="the script asks by curl")
async def test_where_nothing_is_served_every_check_fails_and_so_does_the_script() -> None:
    script = await asyncio.create_subprocess_exec(
        str(SCRIPT),
        f"http://127.0.0.1:{find_free_port()}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE):
        said, _ = await script.communicate()

    assert said.decode().splitlines()[-1] == "0/12"
    assert script.returncode == 1
