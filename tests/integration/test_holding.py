"""A remote child holds its task while it is heard of; what is not to be had, nobody gets."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from starlette.types import Receive

from actors.child import Child, Remote
from actors.master import Master
from edge.leasing import lease
from edge.outflow import until_left
from runtime.bus import new_id
from runtime.errors import AskTimeout
from runtime.tables import KeyTable
from runtime.testing import Kit, running
from schemas import subjects
from schemas.envelope import encode, seal
from schemas.relay import Execute, TaskProcessing, TaskReturned, task_topic
from tests.integration.children import (
    A_MINUTE,
    ask_on_a_wire,
    ask_to_take,
    call_back,
    deploy,
    path,
    take,
    view,
)
from tests.integration.edges import Edge, serving
from tests.integration.tasks import CALLABLE, order

PATIENCE = 10.0

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master, child=(Child, CALLABLE), far=Remote) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


@pytest_asyncio.fixture(loop_scope="module")
async def edge(kit: Kit, served: Edge) -> Edge:
    """The edge, with a remote child of the test's own, whom nobody has sent anything."""
    served.child = await deploy(kit)
    return served


# -- holding ----------------------------------------------------------------------------------


@pytest.mark.promise("CB-06")
async def test_a_child_that_is_not_heard_of_again_loses_its_task_to_the_next(
    kit: Kit, edge: Edge
) -> None:
    task_id = await edge.send()
    first = await take(edge)
    await kit.advance(A_MINUTE)
    returned = await kit.event(task_topic(task_id), TaskReturned)
    second = await take(edge, child_id="c2")
    late = await call_back(edge, first)
    done = await call_back(edge, second, child_id="c2")

    assert (returned.child_id, second["task_id"], second["attempt"]) == ("c1", task_id, 2)
    assert (late.status_code, late.json()["code"]) == (409, "leased_by_another")
    assert done.status_code == 200


async def test_a_child_that_is_still_at_it_keeps_its_task(kit: Kit, edge: Edge) -> None:
    task_id = await edge.send()
    task = await take(edge, seconds=60)
    await kit.advance(timedelta(seconds=50))
    body = {"task_id": task_id, "lease": task["lease"], "seconds": 60}
    extended = await edge.post(path(edge, "extend"), body)
    await kit.advance(timedelta(seconds=50))
    held = await view(edge, task_id)

    assert extended.status_code == 200
    assert extended.json() == {"status": "ok"} | {
        "task_id": task_id,
        "lease": task["lease"],
        "until": extended.json()["until"],
    }
    assert extended.json()["until"] > task["until"]
    assert held["held_by"]["until"] == extended.json()["until"]


async def test_a_child_may_give_its_task_back(edge: Edge) -> None:
    task_id = await edge.send()
    task = await take(edge)
    body = {"task_id": task_id, "lease": task["lease"], "reason": "too hard"}
    released = await edge.post(path(edge, "release"), body)
    again = await edge.post(path(edge, "release"), body)
    extended = await edge.post(path(edge, "extend"), body)
    second = await take(edge, child_id="c2")

    assert released.json() == {"status": "ok", "task_status": "pending"}
    for refused in (again, extended):
        assert (refused.status_code, refused.json()["code"]) == (409, "lease_ended")
    assert (second["task_id"], second["attempt"]) == (task_id, 2)


async def test_a_child_that_left_before_its_task_came_has_it_given_back_at_once(
    kit: Kit, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def notice(receive: Receive) -> None:
        await until_left(receive)
        left.set()

    async def slow_lease(*args: Any) -> Any:
        asked.set()
        await left.wait()
        return await lease(*args)

    monkeypatch.setattr("edge.children.until_left", notice)
    monkeypatch.setattr("edge.children.lease", slow_lease)
    task_id = await edge.send()
    wire = await ask_on_a_wire(edge)
    await asyncio.wait_for(asked.wait(), PATIENCE)
    await wire.close()
    await kit.event(task_topic(task_id), TaskProcessing)
    returned = await kit.event(task_topic(task_id), TaskReturned)

    assert "left" in returned.reason


# -- what is not to be had --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nobody", "child", "master", "%3E", "*", "Far", "x" * 100])
async def test_only_what_is_deployed_as_remote_can_be_taken_from(edge: Edge, name: str) -> None:
    taken = await ask_to_take(edge, name=name)
    followed = await edge.get(f"/api/relay/children/{name}/tasks?child_id=c1")

    for refused in (taken, followed):
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown_child")


@pytest.mark.parametrize(
    "body",
    [
        {"child_id": ""},
        {"child_id": None},
        {"child_id": "x" * 201},
        {"seconds": 0},
        {"seconds": 1e9},
        {"wait": -1},
        {"wait": 31},
        {"wait": "5"},
    ],
)
async def test_a_child_says_who_it_is_and_how_long_it_waits(
    edge: Edge, body: dict[str, Any]
) -> None:
    task_id = await edge.send()
    refused = await ask_to_take(edge, **body)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_field")
    assert (await take(edge))["task_id"] == task_id


@pytest.mark.parametrize(
    "query", ["", "?child_id=", "?child_id=a&child_id=b", "?child_id=a&slots=0", "?slots=1"]
)
async def test_a_stream_of_tasks_is_somebodys(edge: Edge, query: str) -> None:
    refused = await edge.get(path(edge, f"tasks{query}"))

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")


@pytest.mark.promise("CB-42")
async def test_a_key_that_is_bound_to_a_child_acts_as_no_other(kit: Kit) -> None:
    name, other = await deploy(kit), await deploy(kit)
    bound = KeyTable(id="b", secret_env="BOUND", scopes=["relay:callback"], children=[name])
    sender = KeyTable(id="s", secret_env="SENDER", scopes=["relay:send"])
    keys = {secrets.token_hex(16): bound, secrets.token_hex(16): sender}
    async with serving(kit.server.url, keys=keys) as edge:
        edge.child = name
        as_bound, as_sender = ({"X-Relay-API-Key": secret} for secret in keys)
        edge.client.headers.update(as_sender)
        task_id = await edge.send()
        unscoped = await call_back(edge, {"task_id": task_id, "lease": ""})
        edge.client.headers.update(as_bound)
        foreign = [
            await ask_to_take(edge, name=other, wait=0),
            await edge.get(f"/api/relay/children/{other}/tasks?child_id={name}"),
        ]
        any_id = await ask_to_take(edge, child_id="c2", wait=0)
        await edge.post(
            path(edge, "release"),
            {"task_id": task_id, "lease": any_id.json()["task"]["lease"], "reason": "not mine"},
        )
        unsent = await edge.post("/api/relay/send", {"from": "a", "to": name})
        done = await call_back(edge, await take(edge))

    assert [answer.status_code for answer in foreign] == [403] * 2
    assert any_id.status_code == 200
    assert {answer.json()["code"] for answer in foreign} == {"foreign_child"}
    for refused in (unscoped, unsent):
        assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
    assert done.status_code == 200


@pytest.mark.promise("CB-42")
async def test_a_bound_key_ends_the_tasks_of_its_children_under_any_id_and_no_others(
    kit: Kit, edge: Edge
) -> None:
    name, other = await deploy(kit), await deploy(kit)
    secret = secrets.token_hex(16)
    bound = KeyTable(id="b", secret_env="BOUND", scopes=["relay:callback"], children=[name])
    own, foreign = [await edge.send(to=to) for to in (name, other)]
    # With a name of its own it is not for this machine alone, and reading needs the scope.
    async with serving(kit.server.url, keys={secret: bound}, hosts=["callboard.test"]) as held:
        held.client.headers.update({"X-Relay-API-Key": secret})
        refused = [
            await held.post("/api/relay/callback", {"task_id": foreign, "child_id": name}),
            await held.post("/api/relay/ack", {"task_id": foreign, "ack_by": name}),
        ]
        acked = await held.post("/api/relay/ack", {"task_id": own})
        body = {"task_id": own, "child_id": "any", "result": {"kept": "secret"}}
        done = await held.post("/api/relay/callback", body)
        late = await held.post("/api/relay/callback", {"task_id": own, "child_id": "other"})
        repeat = await held.post("/api/relay/callback", body)
    view = (await edge.get(f"/api/relay/tasks/{foreign}")).json()

    assert [(a.status_code, a.json()["code"]) for a in refused] == [(403, "child_not_allowed")] * 2
    assert [a.status_code for a in (acked, done, late, repeat)] == [200, 200, 409, 200]
    assert late.json()["code"] == "already_final"
    assert "completed" in late.text
    assert "secret" not in late.text
    assert view["task_status"] == "pending"


async def test_a_job_nobody_can_read_becomes_a_dead_letter(kit: Kit, edge: Edge) -> None:
    await kit.bus.publish(subjects.work(edge.child, 1, "t_1"), b"\xff not a job")
    task_id = await edge.send()
    task = await take(edge)
    (letter,) = await kit.dead_letters()

    assert task["task_id"] == task_id
    assert letter.reason.startswith("unreadable")
    assert letter.body_base64 != ""


async def test_a_job_of_a_task_nobody_knows_is_dropped(kit: Kit, edge: Edge) -> None:
    job = Execute(task_id="t_1", order=order(edge.child))
    sealed = seal(job, id=new_id(), source="master/t_1", subject="t_1", runid=new_id())
    await kit.bus.publish(subjects.work(edge.child, 0, "t_1"), encode(sealed))
    task_id = await edge.send()

    assert (await take(edge))["task_id"] == task_id
    assert await unsettled(kit, edge.child) == 0


async def unsettled(kit: Kit, child: str) -> int:
    found = 0
    for level in range(subjects.PRIORITIES):
        name = subjects.work_consumer(child, level)
        info = await kit.bus.api(f"CONSUMER.INFO.{kit.bus.stream}.{name}")
        found += int(info["num_pending"]) + int(info["num_ack_pending"])
    return found


async def test_a_job_whose_master_does_not_answer_comes_again(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: Any, **__: Any) -> None:
        raise AskTimeout("master/t_1 did not answer within 10 s")

    task_id = await edge.send()
    with monkeypatch.context() as patched:
        patched.setattr("edge.leasing.ask", silent)
        answer = await ask_to_take(edge)

    assert (answer.status_code, answer.json()["code"]) == (504, "not_answered_yet")
    assert (await take(edge))["task_id"] == task_id
