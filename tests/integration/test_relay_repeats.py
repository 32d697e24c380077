"""A request repeated under its key is done once; each failure has an answer of its own."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from actors.child import Child, Remote
from actors.master import Master
from runtime.errors import AskTimeout, BusFault, NoRoom, Unavailable, Unknown
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.deployment import Deployment
from schemas.relay import LOG, Logged
from tests.integration.edges import Edge, serving
from tests.integration.relaying import completed, send
from tests.integration.tasks import CALLABLE

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


@pytest.mark.parametrize(
    ("fault", "known"),
    [
        (AskTimeout("no answer"), "stored, but not answered yet"),
        (Unknown("lost"), "perhaps stored"),
    ],
)
async def test_a_task_without_an_outcome_is_named_and_what_to_do_is_said(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, fault: BusFault, known: str
) -> None:
    async def failing(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("edge.asking.ask", failing)
    body = {"from": "a", "to": "far", "type": "task", "cmd": "x"}
    without = (await edge.post("/api/relay/send", body)).json()
    named = {"Idempotency-Key": "once"}
    answers = [await edge.post("/api/relay/send", body, headers=named) for _ in range(2)]
    first, again = (answer.json() for answer in answers)

    assert without["task_id"].startswith("t_")
    assert first["task_id"] == again["task_id"] != without["task_id"]
    assert known in without["msg"]
    assert known in first["msg"]
    assert "without an Idempotency-Key" in without["msg"]
    assert "repeat it under the same Idempotency-Key" in first["msg"]


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
