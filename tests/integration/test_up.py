"""`callboard up` as its user runs it: real processes, real ports, real signals."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from runtime.store.server import EmbeddedServer
from tests.integration.command import KEY, PATIENCE, ROOT, Callboard


@pytest.fixture
def callboard(tmp_path: Path, nats_server_binary: str) -> Iterator[Callboard]:
    running = Callboard(tmp_path)
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(PATIENCE)
        running.close()


def send(url: str) -> str:
    body = {"from": "master", "to": "child", "type": "task", "cmd": "test"}
    answer = httpx.post(f"{url}/api/relay/send", json=body, headers=KEY, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["task_id"])


def wait_until_completed(url: str, task_id: str) -> None:
    """Follow the task to its end, as a client would."""
    path = f"{url}/api/relay/tasks/{task_id}/events"
    with httpx.stream("GET", path, params={"after": "0"}, timeout=PATIENCE) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: task.completed"):
                return
    raise AssertionError("the feed ended before the task did")


def wait_until_gone(pids: list[int]) -> list[int]:
    """The processes that are still there after a while."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and any(is_alive(pid) for pid in pids):
        os.sched_yield()
    return [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.promise("AC-22", "CB-01", "CB-29", "CB-30")
def test_one_command_starts_everything_and_a_child_answers(callboard: Callboard) -> None:
    url = callboard.wait_for("edge_ready")["addresses"][0]
    wait_until_completed(url, send(url))


@pytest.mark.promise("CB-08", "CB-45")
@pytest.mark.parametrize("word", ["host", "edge", "-c"])
def test_whatever_is_killed_is_started_again_and_goes_on(callboard: Callboard, word: str) -> None:
    url = callboard.wait_for("edge_ready")["addresses"][0]
    callboard.wait_for("host_ready")
    before = send(url)
    os.kill(callboard.find(word), signal.SIGKILL)
    if word == "host":
        callboard.wait_for("host_ready")
    if word == "edge":
        url = callboard.wait_for("edge_ready")["addresses"][0]
    if word == "-c":
        callboard.wait_for("nats_reached")
    after = send(url)

    wait_until_completed(url, before)
    wait_until_completed(url, after)


def test_sigterm_drains_and_leaves_nothing_behind(callboard: Callboard) -> None:
    callboard.wait_for("edge_ready")
    callboard.wait_for("host_ready")
    children = callboard.children()
    callboard.process.send_signal(signal.SIGTERM)
    code = callboard.process.wait(PATIENCE)

    assert len(children) == 3
    assert code == 0
    assert wait_until_gone(children) == []


def test_when_it_is_killed_its_processes_end_by_themselves(callboard: Callboard) -> None:
    callboard.wait_for("edge_ready")
    callboard.wait_for("host_ready")
    children = callboard.children()
    callboard.process.kill()
    callboard.process.wait()

    assert wait_until_gone(children) == []


def test_several_hosts_run_under_names_that_outlive_their_processes(
    tmp_path: Path, nats_server_binary: str
) -> None:
    running = Callboard(tmp_path, "--hosts", "3")
    try:
        names = {running.wait_for("host_ready")["host"] for _ in range(3)}
        url = running.wait_for("edge_ready")["addresses"][0]
        os.kill(running.find("host"), signal.SIGKILL)
        again = running.wait_for("host_ready")["host"]
        wait_until_completed(url, send(url))
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(PATIENCE)
        running.close()

    assert len(names) == 3
    assert again in names
    assert {name.rpartition("-")[2] for name in names} == {"1", "2", "3"}


async def test_hosts_run_beside_one_edge_on_a_server_of_ones_own(
    tmp_path: Path, own_server: EmbeddedServer
) -> None:
    running = Callboard(tmp_path, "--hosts", "2", "--nats", own_server.url)
    try:
        names = {running.wait_for("host_ready")["host"] for _ in range(2)}
        url = running.wait_for("edge_ready")["addresses"][0]
        wait_until_completed(url, send(url))
        processes = len(running.children())
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(PATIENCE)
        running.close()

    assert len(names) == 2
    assert processes == 3


@pytest.mark.parametrize("text", ["0", "65", "-1", "two"])
def test_a_number_of_hosts_that_cannot_be_is_refused(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "up", "--hosts", text],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == 2
    assert "expected a number from 1 to 64" in done.stderr


def test_an_address_that_is_taken_ends_it_with_a_sentence(
    tmp_path: Path, nats_server_binary: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        running = Callboard(tmp_path, port=taken.getsockname()[1])
        code = running.process.wait(PATIENCE)
    running.close()

    assert code == 75
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("up", "[edge]\nlisten = ['nowhere']\n", 'expected "host:port"'),
        ("up", "[[actor]]\nname = 'a'\ntype = 'actors.nothing:Here'\n", "cannot load type"),
        ("up", "[[actor]]\nname = 'a'\ntype = 'actors.child:Child'\n", 'actor "a": options'),
        ("up", "[[edge.key]]\nid = 'k'\nsecret_env = 'NOT_SET'\n", "variable NOT_SET is not set"),
        ("up", "[edge]\nlisten = ['0.0.0.0:8000']\n", "weak_or_missing_secret"),
        ("edge", "[edge]\nlisten = ['0.0.0.0:8000']\n", "weak_or_missing_secret"),
    ],
)
def test_bad_configuration_ends_it_before_anything_starts(
    tmp_path: Path, command: str, text: str, said: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f"{text}[nats]\ndata = '{tmp_path}/data'\n")
    done = subprocess.run(
        [sys.executable, "-m", "runtime", command, "--config", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == 78
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.promise("CB-41")
def test_with_a_certificate_it_speaks_https_and_nothing_else(
    tmp_path: Path, nats_server_binary: str
) -> None:
    if not (openssl := shutil.which("openssl")):
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "req -x509 -nodes -days 1 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    subject = "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        [openssl, *words.split(), *subject.split(), *files], check=True, capture_output=True
    )
    edge = f'certificate = "{certificate}"\ncertificate_key = "{key}"'
    running = Callboard(tmp_path, edge=edge)
    url = running.wait_for("edge_ready")["addresses"][0]
    trust = ssl.create_default_context(cafile=str(certificate))
    answer = httpx.get(f"{url}/health", verify=trust, timeout=PATIENCE)
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url}/health".replace("https:", "http:"), timeout=PATIENCE)
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(PATIENCE)
    running.close()

    assert url.startswith("https://")
    assert answer.status_code == 200


def test_an_ollama_that_is_there_is_found_and_offered(
    tmp_path: Path, nats_server_binary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_tags("qwen3:8b") as where:
        monkeypatch.setenv("OLLAMA_HOST", where)
        running = Callboard(tmp_path, "--hosts", "2")
        try:
            found = running.wait_for("ollama_found")
            deployed = [running.wait_for("actor_deployed")["actor"] for _ in range(3)]
        finally:
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(PATIENCE)
            running.close()

    assert found["models"] == ["qwen3:8b"]
    assert found["switch_off"] == "[models] discover = false"
    assert "ollama-qwen3-8b" in deployed


@contextlib.contextmanager
def serving_tags(*models: str) -> Iterator[str]:
    """An HTTP server with the list that Ollama has of its models; yields `host:port`."""

    class Tags(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"models": [{"name": one} for one in models]}).encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Tags) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
