"""The log of the relay: what it tells, where it begins, and all of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from actors.child import Child, Remote
from actors.master import Master
from runtime.testing import Kit, running
from tests.integration.edges import KEY, Edge, serving
from tests.integration.relaying import call_back
from tests.integration.tasks import CALLABLE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master, child=(Child, CALLABLE), far=Remote) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


async def logs(edge: Edge, query: str = "") -> list[dict[str, Any]]:
    answer = (await edge.get_nameless(f"/api/relay/logs{query}")).json()
    assert answer["status"] == "ok"
    found = answer["logs"]
    assert isinstance(found, list)
    return found


@pytest.mark.promise("CB-24", "CB-25", "CB-28")
async def test_the_log_tells_what_was_said_in_the_words_it_was_said_in(edge: Edge) -> None:
    cleared = await edge.post("/api/relay/clear")
    task_id = await edge.send("verify", payload={"user_id": "u1"}, text="请")
    await edge.post("/api/relay/ack", {"task_id": task_id, "ack_by": "user"})
    await call_back(edge, task_id, child_id="c1", result={"score": 0.85})
    lines = await logs(edge)
    stamps = [line.pop("ts") for line in lines]

    assert cleared.json() == {"status": "ok", "msg": "对话日志已清空"}
    assert lines == [
        {
            "event": "send",
            "from": "master",
            "to": "far",
            "type": "task",
            "cmd": "verify",
            "payload": {"user_id": "u1"},
            "text": "请",
            "priority": 1,
            "task_id": task_id,
        },
        {"event": "ack", "task_id": task_id, "ack_by": "user"},
        {
            "event": "callback",
            "task_id": task_id,
            "child_id": "c1",
            "status": "done",
            "result": {"score": 0.85},
        },
    ]
    for stamp in stamps:
        at = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)


async def test_nobody_can_write_the_log_by_what_they_send(edge: Edge) -> None:
    await edge.post("/api/relay/clear", {})
    forged: dict[str, Any] = {
        "event": "callback",
        "ts": "1970-01-01 00:00:00",
        "status": "done",
        "cursor": 1,
    }
    await edge.send("x", payload=forged, **forged)
    (line,) = await logs(edge)

    assert line["event"] == "send"
    assert line["ts"] > "2020"
    assert "status" not in line
    assert line["payload"] == forged


@pytest.mark.promise("CB-24", "CB-25")
async def test_the_newest_lines_come_last_and_no_more_than_were_asked_for(edge: Edge) -> None:
    await edge.post("/api/relay/clear")
    for n in range(12):
        await edge.say(f"{n}")
    ten, all_of_them = await logs(edge, "?limit=10"), await logs(edge)
    one = await logs(edge, "?limit=1")
    await edge.post("/api/relay/clear")
    await edge.say("after")

    assert [line["text"] for line in ten] == [f"{n}" for n in range(2, 12)]
    assert [line["text"] for line in all_of_them] == [f"{n}" for n in range(12)]
    assert [line["text"] for line in one] == ["11"]
    assert [line["text"] for line in await logs(edge)] == ["after"]


async def test_no_more_than_a_hundred_lines_come_unless_they_are_asked_for(edge: Edge) -> None:
    await asyncio.gather(*(edge.say(f"{n}") for n in range(120)))

    assert len(await logs(edge)) == 100
    assert len(await logs(edge, "?limit=110")) == 110


async def export(edge: Edge, query: str = "") -> list[dict[str, Any]]:
    answer = await edge.get(f"/api/relay/log.jsonl{query}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jsonl; charset=utf-8"
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.promise("CB-37", "CB-43")
async def test_the_export_has_everything_and_goes_on_where_it_ended(kit: Kit, edge: Edge) -> None:
    before = await export(edge)
    await edge.say("one")
    await edge.post("/api/relay/clear")
    await asyncio.gather(*(edge.say(f"{n}") for n in range(150)))
    whole = await export(edge)
    rest = await export(edge, f"?after={before[-1]['cursor']}")
    two = await export(edge, "?limit=2")
    none = await export(edge, f"?after={whole[-1]['cursor']}")
    stored = await kit.bus.read_all("event.relay.log", after=0)

    assert whole[: len(before)] == before
    assert whole[len(before) :] == rest
    assert [line["event"] for line in rest[:2]] == ["send", "clear"]
    assert rest[1]["by"] == "relay"
    assert len(rest) == 152
    assert two == whole[:2]
    assert none == []
    assert [line["cursor"] for line in whole] == [one.seq for one in stored]


async def test_an_export_after_a_cursor_that_is_not_of_this_log_is_refused(edge: Edge) -> None:
    gone = await edge.get("/api/relay/log.jsonl?after=1000000")

    assert (gone.status_code, gone.json()["code"]) == (410, "cursor_gone")
    assert "after=0" in gone.json()["msg"]


@pytest.mark.promise("CB-03")
async def test_every_write_needs_the_key_and_reads_on_loopback_do_not(edge: Edge) -> None:
    body = {"from": "a", "to": "b", "task_id": "t_1", "child_id": "c", "lease": "l"}
    writes = ["send", "callback", "ack", "clear"]
    writes += [f"children/far/{what}" for what in ("take", "extend", "release")]
    refused = [
        await edge.post(f"/api/relay/{path}", body, headers={"X-Relay-API-Key": ""})
        for path in writes
    ]
    refused.append(await edge.post("/api/relay/send", body, headers={"X-Relay-API-Key": "wrong"}))
    bearer = {"Authorization": f"bearer {KEY}"}
    read = await edge.get_nameless("/api/relay/logs")

    assert [answer.status_code for answer in refused] == [401] * 8
    assert refused[0].json() == {
        "status": "error",
        "msg": "Unauthorized: Invalid or missing API key",
        "code": "unauthorized",
    }
    assert "www-authenticate" in refused[0].headers
    assert read.status_code == 200
    assert (await edge.post("/api/relay/clear", headers=bearer)).status_code == 200


async def test_many_reads_of_a_large_log_at_once_are_all_answered(kit: Kit, edge: Edge) -> None:
    text = "字" * 15_000
    for n in range(0, 400, 20):
        await asyncio.gather(*(edge.say(f"{n + i} {text}") for i in range(20)))
    answers = await asyncio.gather(*(edge.get("/api/relay/logs?limit=1000") for _ in range(10)))
    sizes = {len(answer.content) for answer in answers}
    (newest,) = await logs(edge, "?limit=1")

    assert [answer.status_code for answer in answers] == [200] * 10
    assert max(sizes) < 8 * 1024 * 1024
    assert len(answers[0].json()["logs"]) > 150
    assert all(answer.json()["logs"][-1] == newest for answer in answers)
