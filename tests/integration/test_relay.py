"""The relay over HTTP: sending, calling back, and asking what became of it."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from actors.child import Child, Remote
from actors.master import Master
from runtime.errors import AskTimeout, BusFault, NoRoom, Unavailable, Unknown
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.deployment import Deployment
from schemas.relay import LOG, Logged
from tests.integration.edges import KEY, Edge, serving
from tests.integration.tasks import CALLABLE
from tests.integration.waiting import until_known

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master, child=(Child, CALLABLE), far=Remote) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


async def status(edge: Edge, task_id: str) -> str:
    answer = await edge.get(f"/api/relay/task-status/{task_id}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["task_status"])


async def completed(edge: Edge, task_id: str) -> None:
    async def look() -> bool:
        return await status(edge, task_id) == "completed"

    await until_known(look)


async def send(edge: Edge, body: dict[str, Any], **headers: str) -> httpx.Response:
    given = {"from": "master", "to": "far", "type": "task", "cmd": "test"} | body
    return await edge.post("/api/relay/send", given, headers=headers)


async def call_back(edge: Edge, task_id: str, **body: Any) -> httpx.Response:
    return await edge.post("/api/relay/callback", {"task_id": task_id, **body})


# -- the document's own tests -----------------------------------------------------------------

SEND = """\
curl -X POST http://localhost:8008/api/relay/send \\
  -H "Content-Type: application/json" \\
  -H "X-Relay-API-Key: lynker_relay_secret_2025" \\
  -d '{"from":"master","to":"child","type":"task","cmd":"test"}'"""
STATUS = "curl http://localhost:8008/api/relay/task-status/<task_id>"
LOGS = 'curl "http://localhost:8008/api/relay/logs?limit=10"'


async def run(edge: Edge, command: str, task_id: str = "") -> Any:
    """Run a command of the document as a shell does, with our port and our task in it."""
    command = command.replace("localhost:8008", f"127.0.0.1:{edge.port}")
    process = await asyncio.create_subprocess_shell(
        command.replace("<task_id>", task_id).replace("curl", "curl -s"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)


@pytest.mark.promise("CB-09", "CB-10", "CB-17", "CB-24", "CB-26", "CB-46")
async def test_the_three_commands_of_the_document_work_as_written(edge: Edge) -> None:
    sent = await run(edge, SEND)
    await completed(edge, sent["task_id"])
    found = await run(edge, STATUS, sent["task_id"])
    logs = await run(edge, LOGS)

    assert sent["status"] == "ok"
    assert re.fullmatch(r"t_[0-9]{1,39}", sent["task_id"])
    assert found == {"status": "ok", "task_id": sent["task_id"], "task_status": "completed"}
    assert logs["status"] == "ok"
    assert 2 <= len(logs["logs"]) <= 10
    assert logs["logs"][-1]["event"] == "callback"


@pytest.mark.promise("CB-47", "CB-08", "CB-18")
async def test_ten_parallel_sends_without_a_content_type_get_ten_tasks(edge: Edge) -> None:
    def body(n: int) -> dict[str, str]:
        return {"from": "master", "to": "child", "type": "task", "cmd": f"test_{n}"}

    answers = await asyncio.gather(
        *(edge.post("/api/relay/send", body(n)) for n in range(1, 11)),
    )
    ids = [answer.json()["task_id"] for answer in answers]
    await asyncio.gather(*(completed(edge, task_id) for task_id in ids))

    assert {answer.status_code for answer in answers} == {200}
    assert "content-type" not in answers[0].request.headers
    assert len(set(ids)) == 10


# -- sending ----------------------------------------------------------------------------------


@pytest.mark.promise("CB-11", "CB-12", "CB-13", "CB-14", "CB-15", "CB-16", "CB-33")
async def test_all_that_is_sent_is_kept(edge: Edge) -> None:
    body = {
        "payload": {"user_id": "u123", "deep": [1, {"a": None}]},
        "text": "请验证命盘 🀄",
        "priority": 0,
    }
    task_id = (await send(edge, body)).json()["task_id"]
    view = (await edge.get(f"/api/relay/tasks/{task_id}")).json()

    assert view.pop("created") is not None
    assert view == {
        "status": "ok",
        "task_id": task_id,
        "task_status": "pending",
        "from": "master",
        "to": "far",
        "type": "task",
        "cmd": "test",
        **body,
        "child_id": "",
        "result": None,
        "reason": "",
        "attempts": 0,
        "held_by": None,
        "acked_by": [],
        "finished": None,
    }


@pytest.mark.promise("CB-20")
async def test_a_message_has_no_task_and_a_task_may_have_its_own_id(edge: Edge) -> None:
    own = f"mine-{secrets.token_hex(4)}"
    message = await send(edge, {"type": "message", "text": "hello"})
    untyped = await send(edge, {"type": None, "to": "somebody"})
    task = await send(edge, {"task_id": own})
    about = await send(edge, {"type": "message", "text": "hello", "task_id": own})

    assert message.json() == untyped.json() == {"status": "ok", "task_id": None}
    assert task.json() == about.json() == {"status": "ok", "task_id": own}
    assert await status(edge, own) == "pending"


@pytest.mark.parametrize(
    "task_id",
    [
        "a.b",
        "*",
        ">",
        "a b",
        "a/b",
        "../../etc",
        "%2F",
        "任务🀄",
        "\u202eabc",
        "h-" + "0" * 48,
        "x" * 200,
        "?after=1",
        "#",
    ],
)
async def test_any_text_may_be_a_task_id(edge: Edge, task_id: str) -> None:
    own = (task_id + secrets.token_hex(4))[-200:]
    sent = await send(edge, {"task_id": own})
    quoted = "".join(f"%{byte:02X}" for byte in own.encode())
    found = (await edge.get(f"/api/relay/task-status/{quoted}")).json()
    view = (await edge.get(f"/api/relay/tasks/{quoted}")).json()

    assert sent.json() == {"status": "ok", "task_id": own}
    assert found == {"status": "ok", "task_id": own, "task_status": "pending"}
    assert view["task_id"] == own


@pytest.mark.promise("CB-19")
@pytest.mark.parametrize("missing", ["from", "to"])
@pytest.mark.parametrize("value", ["", None])
async def test_a_sender_and_a_receiver_are_needed(edge: Edge, missing: str, value: Any) -> None:
    answer = await send(edge, {missing: value})

    assert answer.status_code == 400
    assert answer.json() == {"status": "error", "msg": "missing from/to", "code": "invalid_field"}


@pytest.mark.parametrize("to", ["nobody", "master", ">", "child.*", "Child", "孩子"])
async def test_a_task_for_nobody_is_refused_and_leaves_nothing(edge: Edge, to: str) -> None:
    own = secrets.token_hex(8)
    answer = await send(edge, {"to": to, "task_id": own})
    found = await edge.get(f"/api/relay/task-status/{own}")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_child")
    assert found.status_code == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"priority": 3}, 422),
        ({"priority": -1}, 422),
        ({"priority": "1"}, 422),
        ({"payload": [1]}, 422),
        ({"text": 1}, 422),
        ({"cmd": {"a": 1}}, 422),
        ({"cmd": "x" * 201}, 422),
        ({"task_id": "x" * 201}, 422),
        ({"task_id": "t_1\n"}, 422),
        ({"payload": {"a": "x" * 100_000}}, 413),
    ],
)
async def test_a_field_that_does_not_fit_is_named(
    edge: Edge, body: dict[str, Any], code: int
) -> None:
    answer = await send(edge, body)

    assert answer.status_code == code, answer.text
    assert answer.json()["status"] == "error"
    if code == 422:
        assert next(iter(body)) in answer.json()["msg"]


# -- repeating --------------------------------------------------------------------------------


async def test_fifty_requests_under_one_key_are_one_task(kit: Kit, edge: Edge) -> None:
    key = secrets.token_hex(8)
    answers = await asyncio.gather(
        *(send(edge, {"cmd": "once"}, **{"Idempotency-Key": key}) for _ in range(50))
    )
    quoted = await send(edge, {"cmd": "once"}, **{"Idempotency-Key": f'"{key}"'})
    bodies = {answer.text for answer in (*answers, quoted)}
    task_id = answers[0].json()["task_id"]
    sent = [line for line in await kit.events(LOG, Logged) if line.task_id == task_id]

    assert {answer.status_code for answer in answers} == {200}
    assert len(bodies) == 1
    assert re.fullmatch(r"t_[0-9]{1,39}", task_id)
    assert len(sent) == 1


async def test_a_key_that_comes_with_another_body_is_refused_and_changes_nothing(
    edge: Edge,
) -> None:
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = await send(edge, {"cmd": "a", "payload": {"x": 1, "y": 2}}, **key)
    reordered = await send(edge, {"payload": {"y": 2, "x": 1}, "cmd": "a"}, **key)
    other = await send(edge, {"cmd": "b"}, **key)
    message = await send(edge, {"type": "message", "cmd": "a"}, **key)
    view = await edge.get(f"/api/relay/tasks/{first.json()['task_id']}")

    assert reordered.text == first.text
    for refused in (other, message):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reuse")
    assert view.json()["cmd"] == "a"


async def test_a_message_is_said_once_however_often_it_is_repeated(kit: Kit, edge: Edge) -> None:
    key, text = {"Idempotency-Key": secrets.token_hex(8)}, secrets.token_hex(8)
    answers = [await send(edge, {"type": "message", "text": text}, **key) for _ in range(3)]
    said = [
        line for line in await kit.events(LOG, Logged) if line.order and line.order.text == text
    ]

    assert [answer.json() for answer in answers] == [{"status": "ok", "task_id": None}] * 3
    assert len(said) == 1


async def test_a_refusal_is_repeated_as_well(edge: Edge) -> None:
    key = {"Idempotency-Key": secrets.token_hex(8)}
    answers = [await send(edge, {"to": "nobody"}, **key) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].text == answers[1].text


async def test_a_callback_may_be_repeated_under_its_key(edge: Edge) -> None:
    task_id, key = await edge.send(), {"Idempotency-Key": secrets.token_hex(8)}
    body = {"task_id": task_id, "child_id": "c1", "result": {"a": 1}}
    first, again = [await edge.post("/api/relay/callback", body, headers=key) for _ in range(2)]
    other = await edge.post("/api/relay/callback", body | {"result": {"a": 2}}, headers=key)

    assert first.json() == again.json() == {"status": "ok", "task_status": "completed"}
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reuse")


# -- calling back -----------------------------------------------------------------------------


@pytest.mark.promise("CB-04", "CB-21", "CB-22", "CB-23")
@pytest.mark.parametrize(
    ("word", "expected"), [("done", "completed"), (None, "completed"), ("error", "failed")]
)
async def test_a_callback_ends_a_task(edge: Edge, word: str | None, expected: str) -> None:
    task_id = await edge.send()
    answer = await call_back(
        edge, task_id, child_id="child_bazi", status=word, result={"summary": "好", "score": 0.85}
    )
    view = (await edge.get(f"/api/relay/tasks/{task_id}")).json()

    assert answer.json() == {"status": "ok", "task_status": expected}
    assert view["task_status"] == expected
    assert (view["child_id"], view["result"]) == ("child_bazi", {"summary": "好", "score": 0.85})
    assert view["finished"] is not None


async def test_of_two_callbacks_at_once_one_wins_and_the_other_is_told_which(edge: Edge) -> None:
    for _ in range(10):
        task_id = await edge.send()
        answers = await asyncio.gather(
            *(call_back(edge, task_id, child_id="c", result={"n": n}) for n in range(2))
        )
        refused = next(answer for answer in answers if answer.status_code == 409)

        assert sorted(answer.status_code for answer in answers) == [200, 409]
        assert refused.json()["code"] == "already_final"


async def test_very_many_callbacks_for_one_task_all_get_an_answer(edge: Edge) -> None:
    task_id = await edge.send()
    answers = await asyncio.gather(
        *(call_back(edge, task_id, child_id="c", result={"n": n % 5}) for n in range(300))
    )
    codes = {answer.status_code for answer in answers}
    won = {answer.request.content for answer in answers if answer.status_code == 200}

    assert codes == {200, 409}
    assert len(won) == 1


@pytest.mark.promise("CB-27")
async def test_a_task_nobody_sent_is_not_found(edge: Edge) -> None:
    answers = [
        await call_back(edge, "t_1761141014541"),
        await edge.post("/api/relay/ack", {"task_id": "t_1761141014541"}),
        await edge.get("/api/relay/task-status/t_1761141014541"),
        await edge.get("/api/relay/tasks/t_1761141014541"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 4
    assert {answer.json()["code"] for answer in answers} == {"task_not_found"}
    assert answers[2].json() == {
        "status": "error",
        "msg": "task not found",
        "code": "task_not_found",
    }


@pytest.mark.promise("CB-28")
async def test_a_task_may_be_acknowledged(edge: Edge) -> None:
    task_id = await edge.send()
    answer = await edge.post("/api/relay/ack", {"task_id": task_id, "ack_by": "用户"})
    view = (await edge.get(f"/api/relay/tasks/{task_id}")).json()

    assert answer.json() == {"status": "ok", "task_status": "pending"}
    assert view["acked_by"] == ["用户"]


@pytest.mark.parametrize("path", ["callback", "ack"])
async def test_a_task_has_to_be_named(edge: Edge, path: str) -> None:
    answer = await edge.post(f"/api/relay/{path}", {"child_id": "c", "status": "done"})

    assert answer.status_code == 400
    assert answer.json()["msg"] == "missing task_id"


# -- how it fits together ---------------------------------------------------------------------


async def test_a_trace_goes_on_through_all_that_comes_of_a_request(kit: Kit, edge: Edge) -> None:
    answer = await send(edge, {"to": "child"}, traceparent=TRACE)
    task_id = answer.json()["task_id"]
    await completed(edge, task_id)
    stored = await kit.bus.read_all(f"event.task.{task_id}", after=0)
    envelopes = [json.loads(one.data) for one in stored]

    assert {envelope["traceparent"] for envelope in envelopes} == {TRACE}
    assert {envelope["principal"] for envelope in envelopes} == {"relay"}
    assert len({envelope["correlationid"] for envelope in envelopes}) == 1


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (AskTimeout("master/t_1 did not answer"), 504, "not_answered_yet"),
        (Unavailable("no connection"), 503, "unavailable"),
        (Unknown("lost"), 503, "unavailable"),
        (NoRoom("full"), 507, "storage_full"),
    ],
)
async def test_each_failure_of_the_bus_has_an_answer_of_its_own(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, fault: BusFault, status: int, code: str
) -> None:
    async def failing(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("edge.asking.ask", failing)
    answer = await send(edge, {})

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (status == 503) == ("retry-after" in answer.headers)
    if status == 504:
        assert "Idempotency-Key" in answer.json()["msg"]


@pytest.mark.promise("CB-44")
async def test_a_task_whose_time_is_over_is_not_known_any_more() -> None:
    brief = Deployment(
        name="master",
        type="actors.master:Master",
        kind="keyed",
        lifetime=timedelta(microseconds=1),
    )
    async with (
        running(master=(Master, brief), far=Remote) as kit,
        serving(kit.server.url) as edge,
    ):
        task_id = await edge.send()
        record = await kit.record(Address("master", task_id))
        answer = await edge.get(f"/api/relay/task-status/{task_id}")

    assert record is not None
    assert record.data
    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")


# -- the log ----------------------------------------------------------------------------------


async def logs(edge: Edge, query: str = "") -> list[dict[str, Any]]:
    answer = (await edge.get(f"/api/relay/logs{query}", headers={"X-Relay-API-Key": ""})).json()
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
    bearer = {"Authorization": f"bearer {KEY}", "X-Relay-API-Key": ""}
    read = await edge.get("/api/relay/logs", headers={"X-Relay-API-Key": ""})

    assert [answer.status_code for answer in refused] == [401] * 8
    assert refused[0].json() == {
        "status": "error",
        "msg": "Unauthorized: Invalid or missing API key",
        "code": "unauthorized",
    }
    assert "www-authenticate" in refused[0].headers
    assert read.status_code == 200
    assert (await edge.post("/api/relay/clear", headers=bearer)).status_code == 200
