"""Children of one's own, from a folder beside the configuration, deployed while all runs."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.command import KEY, PATIENCE, ROOT, Callboard

LOUD = 'def do(order):\n    return order["cmd"].upper()\n'
QUIET = 'def do(order):\n    return order["cmd"].lower()\n'
PLAN = """
[[actor]]
name = "echo"
type = "actors.child:Child"
options = {{ kind = "callable", call = "{module}:do" }}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


@pytest.fixture
def callboard(tmp_path: Path, mine: Path, nats_server_binary: str) -> Iterator[Callboard]:
    running = Callboard(tmp_path, edge='[host]\nmodules = "mine"')
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(PATIENCE)
        running.close()


def deploy(folder: Path, *words: str, module: str = "") -> subprocess.CompletedProcess[str]:
    """Run `callboard deploy` with the configuration of what runs, and perhaps a plan."""
    plan = folder / "plan.toml"
    plan.write_text(PLAN.format(module=module))
    files = [str(plan)] if module else []
    command = [sys.executable, "-m", "runtime", "deploy", *files, *words, "--yes"]
    return subprocess.run(
        [*command, "--config", str(folder / "callboard.toml")],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def send(url: str) -> dict[str, Any]:
    body = {"from": "master", "to": "echo", "type": "task", "cmd": "Test"}
    answer = httpx.post(f"{url}/api/relay/send", json=body, headers=KEY, timeout=PATIENCE)
    found = answer.json()
    assert isinstance(found, dict)
    return found


def result(url: str) -> Any:
    """What comes of a task, once it is done."""
    path = f"{url}/api/relay/tasks/{send(url)['task_id']}"
    with httpx.stream(
        "GET", f"{path}/events", params={"after": "0"}, headers=KEY, timeout=PATIENCE
    ) as answer:
        assert any(line.startswith("event: task.completed") for line in answer.iter_lines())
    return httpx.get(path, headers=KEY, timeout=PATIENCE).json()["result"]


def test_a_child_is_added_changed_rolled_back_and_removed_while_all_runs(
    callboard: Callboard, tmp_path: Path, mine: Path
) -> None:
    url = callboard.wait_for("edge_ready")["addresses"][0]
    callboard.wait_for("host_ready")
    unknown = send(url)
    (mine / "loud.py").write_text(LOUD)
    (mine / "quiet.py").write_text(QUIET)
    codes = [deploy(tmp_path, module="loud").returncode]
    results = [result(url)]
    codes.append(deploy(tmp_path, module="quiet").returncode)
    results.append(result(url))
    codes.append(deploy(tmp_path, "--rollback").returncode)
    results.append(result(url))
    os.kill(callboard.find("host"), signal.SIGKILL)
    callboard.wait_for("host_ready")
    results.append(result(url))
    codes.append(deploy(tmp_path, "--remove", "echo").returncode)
    gone = send(url)

    assert codes == [0, 0, 0, 0]
    assert results == ["TEST", "test", "TEST", "TEST"]
    assert unknown["code"] == gone["code"] == "unknown_child"


def test_code_that_was_changed_after_a_host_had_loaded_it_is_told(
    callboard: Callboard, tmp_path: Path, mine: Path
) -> None:
    callboard.wait_for("host_ready")
    module = mine / "loud.py"
    module.write_text(LOUD)
    first = deploy(tmp_path, module="loud")
    module.write_text(QUIET + "# changed\n")
    later = module.stat().st_mtime + 5
    os.utime(module, (later, later))
    second = deploy(tmp_path, module="loud")

    assert "had loaded it" not in first.stdout
    assert f"note: {module} was changed after host-" in second.stdout
    assert "until it is restarted" in second.stdout


def test_a_module_that_takes_anothers_name_is_refused(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "callboard.toml").write_text("[host]\nmodules = 'mine'\n")
    (mine / "actors.py").write_text(LOUD)
    done = deploy(tmp_path, module="actors")

    assert done.returncode == 78
    assert "'actors' in" in done.stderr
    assert "is imported instead; rename it" in done.stderr
