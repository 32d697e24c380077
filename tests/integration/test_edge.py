"""An edge as a whole: where it listens, what it lets strangers do, how it starts and ends."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from openapi_spec_validator import validate

from actors.child import Child, Remote
from actors.master import Master
from edge.app import build_app
from edge.lockout import TRIES
from edge.serve import ADDRESS_UNAVAILABLE, serve, serve_app
from runtime.errors import ConfigError
from runtime.tables import Config, EdgeTable
from runtime.testing import Kit, running
from schemas.relay import LOG, Logged
from tests.integration.edges import AS_RELAY, KEY, PATIENCE, Edge, serving
from tests.integration.feed import feed
from tests.integration.tasks import CALLABLE
from tests.integration.waiting import until, until_known
from tests.integration.wire import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
STRONG = "0123456789abcdef0123456789abcdef"
ELSEWHERE = ["192.0.2.1:8000"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master, child=(Child, CALLABLE), far=Remote) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


# -- what it says of itself -------------------------------------------------------------------


async def test_health_is_plain_and_holds_no_secret(edge: Edge) -> None:
    answer = await edge.get("/health", headers={"X-Relay-API-Key": "wrong"})
    head = await edge.client.head("/health")
    facts = answer.json()
    uptime = facts.pop("uptime")

    assert answer.status_code == head.status_code == 200
    assert facts == {
        "status": "ok",
        "nats": "connected",
        "stream": "reachable",
        "hosts": 1,
        "version": "0.1.0",
        "streams": 0,
    }
    assert uptime >= 0
    assert head.content == b""


@pytest.mark.promise("AC-32")
async def test_every_operation_is_published_and_valid(kit: Kit, edge: Edge) -> None:
    document = (await edge.get("/openapi.json")).json()
    page = await edge.get("/docs")
    async with serving(kit.server.url, docs=False) as quiet:
        hidden = [(await quiet.get(path)).status_code for path in ("/docs", "/openapi.json")]
    validate(document)
    relay = {path for path in document["paths"] if path.startswith("/api/relay/")}
    unguarded = [
        f"{method} {path}"
        for path in relay
        for method, operation in document["paths"][path].items()
        if "security" not in operation
    ]

    assert page.status_code == 200
    assert hidden == [404, 404]
    assert unguarded == []
    assert relay == {
        f"/api/relay/{path}"
        for path in (
            "send",
            "callback",
            "ack",
            "clear",
            "logs",
            "log.jsonl",
            "log/events",
            "task-status/{task_id}",
            "tasks/{task_id}",
            "tasks/{task_id}/events",
            "children/{name}/take",
            "children/{name}/tasks",
            "children/{name}/extend",
            "children/{name}/release",
        )
    }


async def test_every_answer_is_safe_to_show(edge: Edge) -> None:
    for path in ("/health", "/nothing", "/api/relay/logs", "/api/relay/nothing"):
        headers = (await edge.get(path)).headers

        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert len(headers["x-request-id"]) == 32
        assert not any(name.startswith("access-control") for name in headers)


# -- who may do what --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def elsewhere(
    kit: Kit, environ: Mapping[str, str] | None = None, **edge: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an edge that would listen beyond loopback, but is not served there."""
    config = Config(edge=EdgeTable(listen=ELSEWHERE, **edge))
    app = build_app(config, kit.bus, environ=environ or {"RELAY_API_KEY": STRONG})
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://board.test") as client:
        yield client
    await app.state.shared.close()


@pytest.mark.promise("CB-40", "CB-42")
async def test_beyond_loopback_even_reading_needs_a_key(kit: Kit) -> None:
    reads = ("logs", "log.jsonl", "log/events", "task-status/t_1", "tasks/t_1", "tasks/t_1/events")
    key = {"X-Relay-API-Key": STRONG}
    async with elsewhere(kit) as client:
        closed = [await client.get(f"/api/relay/{path}") for path in reads]
        opened = await client.get("/api/relay/logs", headers=key)
        health = await client.get("/health")
    async with elsewhere(kit, open_reads=True) as client:
        open_read = await client.get("/api/relay/logs")
        write = await client.post("/api/relay/clear")

    assert [answer.status_code for answer in closed] == [401] * len(reads)
    assert {answer.json()["code"] for answer in closed} == {"unauthorized"}
    assert health.json() == {"status": "ok"}
    assert (opened.status_code, open_read.status_code) == (200, 200)
    assert (write.status_code, health.status_code) == (401, 200)


@pytest.mark.promise("CB-10", "CB-40")
@pytest.mark.parametrize("secret", [KEY, "", "short"])
async def test_beyond_loopback_a_default_or_weak_key_is_refused(kit: Kit, secret: str) -> None:
    with pytest.raises(ConfigError, match="weak_or_missing_secret") as refused:
        async with elsewhere(kit, {"RELAY_API_KEY": secret}):
            pass

    assert not secret or secret not in str(refused.value)


async def test_too_many_wrong_keys_lock_an_address_out(kit: Kit) -> None:
    async with serving(kit.server.url) as edge:
        # Who claims to come from elsewhere is not believed.
        wrong = [
            await edge.get(
                "/api/relay/logs",
                headers={"X-Relay-API-Key": f"wrong-{n}", "X-Forwarded-For": f"10.0.0.{n}"},
            )
            for n in range(TRIES)
        ]
        locked = await edge.post("/api/relay/clear")
        nameless = await edge.get_nameless("/api/relay/logs")

    assert [answer.status_code for answer in wrong] == [401] * TRIES
    assert (locked.status_code, locked.json()["code"]) == (429, "locked_out")
    assert 1 <= int(locked.headers["retry-after"]) <= 61
    assert nameless.status_code == 200


async def test_a_page_of_somebody_else_can_neither_write_nor_read(edge: Edge) -> None:
    origin = {"Origin": "https://evil.example"}
    write = await edge.post("/api/relay/clear", headers=origin)
    preflight = await edge.client.options("/api/relay/send", headers=origin)
    read = await edge.get("/api/relay/logs", headers=origin)

    assert (write.status_code, write.json()["code"]) == (403, "foreign_origin")
    for answer in (preflight, read):
        assert "access-control-allow-origin" not in answer.headers


# -- how it starts and ends -------------------------------------------------------------------


@pytest.mark.promise("CB-29")
async def test_it_listens_on_every_address_it_is_told(kit: Kit) -> None:
    config = Config(edge=EdgeTable(listen=["127.0.0.1:0", "127.0.0.2:0"]))
    app = build_app(config, kit.bus, environ={})
    ready: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(serve_app(app, config, stop, ready.set_result))
    addresses = await asyncio.wait_for(ready, PATIENCE)
    async with httpx.AsyncClient(trust_env=False) as client:
        answers = [(await client.get(f"{each}/health")).status_code for each in addresses]
        stop.set()
        code = await asyncio.wait_for(task, PATIENCE)
        for each in addresses:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{each}/health")

    assert [each.rpartition(":")[0] for each in addresses] == [
        "http://127.0.0.1",
        "http://127.0.0.2",
    ]
    assert answers == [200, 200]
    assert code == 0


async def test_an_address_that_is_taken_ends_it_with_a_code_of_its_own(kit: Kit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = Config(edge=EdgeTable(listen=["127.0.0.1:0", f"127.0.0.1:{port}"]))

        assert await serve(config, kit.bus) == ADDRESS_UNAVAILABLE


async def test_being_cancelled_ends_it_as_gently_as_being_told(kit: Kit) -> None:
    async with serving(kit.server.url) as edge, feed(edge, "/api/relay/log/events") as events:
        edge.task.cancel()
        (goodbye,) = await events.take(1)
        with contextlib.suppress(asyncio.CancelledError):
            await edge.task
        cancelled = edge.task.cancelled()
        edge.task = asyncio.create_task(asyncio.sleep(0, 0))

    assert goodbye.name == "bye"
    assert cancelled


# -- processes --------------------------------------------------------------------------------


class Process:
    """A program of ours in a process of its own, and what it logs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    async def until(self, event: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            async for line in self.process.stderr:
                with contextlib.suppress(msgspec.DecodeError):
                    self.lines.append(msgspec.json.decode(line))
                    if self.lines[-1].get("event") == event:
                        return self.lines[-1]
        raise AssertionError(f"it ended without {event!r}: {self.lines[-5:]}")


@contextlib.asynccontextmanager
async def process(*arguments: str, **environ: str) -> AsyncIterator[Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        cwd=ROOT,
        env={**os.environ, **environ},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(started)
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.asynccontextmanager
async def edge_process(kit: Kit, folder: Path, **environ: str) -> AsyncIterator[Process]:
    port = free_port()
    config = folder / f"edge-{port}.toml"
    config.write_text(f'[edge]\nlisten = ["127.0.0.1:{port}"]\n[log]\nformat = "json"\n')
    arguments = ("runtime", "edge", "--config", f"{config}", "--nats", kit.server.url)
    async with process(*arguments, **environ) as started:
        yield started


@pytest.mark.promise("CB-30", "CB-31", "CB-32", "CB-34")
async def test_several_edge_processes_are_one_relay(kit: Kit, tmp_path: Path) -> None:
    async with edge_process(kit, tmp_path) as one, edge_process(kit, tmp_path) as two:
        urls = [(await each.until("edge_ready"))["addresses"][0] for each in (one, two)]
        async with httpx.AsyncClient(headers=AS_RELAY, timeout=PATIENCE, trust_env=False) as client:
            key = {"Idempotency-Key": "the-same-everywhere"}
            body = {"from": "master", "to": "child", "type": "task", "cmd": "once"}
            answers = await asyncio.gather(
                *(
                    client.post(f"{urls[n % 2]}/api/relay/send", json=body, headers=key)
                    for n in range(20)
                )
            )
            task_id = answers[0].json()["task_id"]
            views = [(await client.get(f"{url}/api/relay/tasks/{task_id}")).json() for url in urls]
        one.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(one.process.wait(), PATIENCE)
    sent = [line for line in await kit.events(LOG, Logged) if line.task_id == task_id]

    assert {answer.text for answer in answers} == {answers[0].text}
    assert [view["cmd"] for view in views] == ["once", "once"]
    assert [line.event for line in sent].count("send") == 1
    assert code == 0


async def test_an_edge_that_dies_before_it_answers_has_stored_the_task_once(
    kit: Kit, edge: Edge, tmp_path: Path
) -> None:
    key = {"Idempotency-Key": "died-before-it-answered"}
    body = {"from": "master", "to": "far", "type": "task", "cmd": "survives"}
    async with edge_process(kit, tmp_path, CRASH_AT="edge.published") as dying:
        url = (await dying.until("edge_ready"))["addresses"][0]
        async with httpx.AsyncClient(headers=AS_RELAY, trust_env=False) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post(f"{url}/api/relay/send", json=body, headers=key)
        await asyncio.wait_for(dying.process.wait(), PATIENCE)
    again = await edge.post("/api/relay/send", body, headers=key)
    sent = [
        line
        for line in await kit.events(LOG, Logged)
        if line.order and line.order.cmd == "survives"
    ]

    assert again.status_code == 200
    assert [line.task_id for line in sent] == [again.json()["task_id"]]


@pytest.mark.promise("CB-05", "CB-35", "CB-36")
async def test_a_remote_child_in_a_process_of_its_own_does_what_it_takes(
    edge: Edge, tmp_path: Path
) -> None:
    arguments = ("actors.remote", "--name", "far", "--call", "actors.commands:run")
    environ = {"LYNKER_API_BASE": edge.url, "RELAY_API_KEY": KEY}
    sent = [await edge.send("verify_chart", payload={"user_id": f"u{n}"}) for n in range(3)]
    state = tmp_path / "child_worker_state.json"
    async with process(*arguments, "--state", f"{state}", **environ):
        await until_known(lambda: are_completed(edge, sent))
        views = [(await edge.get(f"/api/relay/tasks/{task_id}")).json() for task_id in sent]
        await until(lambda: edge.shared.jobs("far")._waiting)

    assert [view["result"]["score"] for view in views] == [1.0] * 3
    assert state.exists()


async def are_completed(edge: Edge, tasks: list[str]) -> bool:
    found = [(await edge.get(f"/api/relay/task-status/{each}")).json() for each in tasks]
    return all(each["task_status"] == "completed" for each in found)


@pytest.mark.promise("CB-45", "CB-47")
async def test_a_thousand_sends_at_the_same_moment_get_a_thousand_tasks(
    kit: Kit, edge: Edge
) -> None:
    wires = [await Wire.open(edge.port) for _ in range(1000)]
    for number, wire in enumerate(wires):
        body = f'{{"from":"master","to":"far","type":"task","cmd":"test_{number}"}}'
        head = f"POST /api/relay/send HTTP/1.1\r\nHost: localhost\r\nX-Relay-API-Key: {KEY}\r\n"
        wire.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    answers = await asyncio.gather(*(wire.answer() for wire in wires))
    await asyncio.gather(*(wire.close() for wire in wires))
    ids = {answer.json.get("task_id") for answer in answers}
    sent = {line.task_id for line in await kit.events(LOG, Logged)}

    assert {answer.status for answer in answers} == {200}
    assert len(ids) == 1000
    assert ids <= sent
