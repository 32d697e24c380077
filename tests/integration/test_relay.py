"""The relay over HTTP: sending, calling back, and asking what became of it."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from actors.child import Child, Remote
from actors.master import Master
from runtime.testing import Kit, running
from tests.integration.edges import Edge, serving
from tests.integration.relaying import call_back, completed, send, status
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
