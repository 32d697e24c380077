"""Remote children over HTTP: they take tasks, hold them, and nothing is lost if they vanish."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.types import Receive

from actors.child import Child, Remote
from actors.master import Master
from edge.jobs import Jobs
from edge.leasing import lease
from edge.outflow import until_left
from runtime.bus import new_id
from runtime.config import KeyTable
from runtime.deployments import seed_deployments
from runtime.errors import AskTimeout
from runtime.testing import Kit, running
from schemas import subjects
from schemas.deployment import Deployment
from schemas.envelope import encode, seal
from schemas.relay import Execute, TaskProcessing, TaskReturned, task_topic
from tests.integration.edges import AS_RELAY, Edge, serving
from tests.integration.feed import Feed, feed
from tests.integration.tasks import CALLABLE, order
from tests.integration.waiting import until, until_known
from tests.integration.wire import Wire

PATIENCE = 10.0
A_MINUTE = timedelta(seconds=61)


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


async def deploy(kit: Kit) -> str:
    name = f"far-{secrets.token_hex(4)}"
    deployment = Deployment(name=name, type="actors.child:Remote", kind="remote")
    await seed_deployments(kit.bus, [deployment])
    await until(lambda: name in kit.host.system.deployments)
    return name


async def ask_to_take(edge: Edge, name: str = "", **body: Any) -> httpx.Response:
    given = {"child_id": "c1", "wait": 5} | body
    return await edge.post(f"/api/relay/children/{name or edge.child}/take", given)


async def take(edge: Edge, **body: Any) -> dict[str, Any]:
    answer = await ask_to_take(edge, **body)
    assert answer.status_code == 200, answer.text
    task = answer.json()["task"]
    assert isinstance(task, dict)
    return task


def jobs(edge: Edge) -> Jobs:
    found = edge.shared.jobs(edge.child)
    assert isinstance(found, Jobs)
    return found


async def ask_on_a_wire(edge: Edge) -> Wire:
    """Ask to take a task on a connection that can be broken."""
    body = b'{"child_id":"c1","wait":30}'
    wire = await Wire.open(edge.port)
    lines = [f"POST /api/relay/children/{edge.child}/take HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in AS_RELAY.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    wire.send("\r\n".join(lines).encode() + body)
    return wire


def path(edge: Edge, what: str) -> str:
    return f"/api/relay/children/{edge.child}/{what}"


async def call_back(edge: Edge, task: dict[str, Any], **body: Any) -> httpx.Response:
    given = {"task_id": task["task_id"], "child_id": "c1", "lease": task["lease"], "result": {}}
    return await edge.post("/api/relay/callback", given | body)


async def view(edge: Edge, task_id: str) -> dict[str, Any]:
    found = (await edge.get(f"/api/relay/tasks/{task_id}")).json()
    assert isinstance(found, dict)
    return found


# -- by long poll -----------------------------------------------------------------------------


@pytest.mark.promise("CB-21", "CB-35")
async def test_a_child_takes_a_task_does_it_and_calls_back(edge: Edge) -> None:
    task_id = await edge.send("verify", payload={"user_id": "u1"}, text="请", priority=2)
    task = await take(edge, seconds=30)
    held = await view(edge, task_id)
    called = await call_back(edge, task, result={"score": 0.85})
    until_then = task.pop("until")

    assert task == {
        "task_id": task_id,
        "from": "master",
        "to": edge.child,
        "type": "task",
        "cmd": "verify",
        "payload": {"user_id": "u1"},
        "text": "请",
        "priority": 2,
        "lease": task["lease"],
        "attempt": 1,
    }
    assert held["task_status"] == "processing"
    assert held["held_by"] == {"child_id": "c1", "until": until_then}
    assert task["lease"] not in str(held)
    assert called.json() == {"status": "ok", "task_status": "completed"}


async def test_a_child_that_waits_gets_a_task_as_soon_as_there_is_one(edge: Edge) -> None:
    waiting = asyncio.create_task(take(edge, wait=30))
    await until(lambda: jobs(edge)._waiting)
    task_id = await edge.send()

    assert (await asyncio.wait_for(waiting, PATIENCE))["task_id"] == task_id


async def test_where_there_is_no_task_nothing_is_answered(edge: Edge) -> None:
    answer = await ask_to_take(edge, wait=0)

    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.promise("CB-33")
async def test_what_is_urgent_is_taken_first(edge: Edge) -> None:
    for priority in (2, 2, 1, 0, 1, 0):
        await edge.send(priority=priority)
    taken = [(await take(edge))["priority"] for _ in range(6)]

    assert taken == [0, 0, 1, 1, 2, 2]


async def test_many_children_at_once_never_get_the_same_task(kit: Kit, edge: Edge) -> None:
    async with serving(kit.server.url) as other:
        other.child = edge.child
        waiting = [
            asyncio.create_task(take((edge, other)[n % 2], child_id=f"c{n}", wait=20))
            for n in range(30)
        ]
        sent = await asyncio.gather(*(edge.send(f"x{n}") for n in range(30)))
        taken = await asyncio.gather(*waiting)

    assert sorted(task["task_id"] for task in taken) == sorted(sent)


async def test_a_task_of_one_name_is_not_for_another(kit: Kit, edge: Edge) -> None:
    other = await deploy(kit)
    task_id = await edge.send(to=other)
    nothing = await ask_to_take(edge, wait=0)

    assert nothing.status_code == 204
    assert (await take(edge, name=other))["task_id"] == task_id


async def test_a_task_that_has_ended_is_not_handed_out_and_the_next_one_is(edge: Edge) -> None:
    ended = await edge.send()
    await edge.post("/api/relay/callback", {"task_id": ended, "child_id": "x"})
    task_id = await edge.send()

    assert (await take(edge))["task_id"] == task_id
    assert (await ask_to_take(edge, wait=0)).status_code == 204


async def test_a_child_that_leaves_while_it_waits_loses_no_task(edge: Edge) -> None:
    wires = [await ask_on_a_wire(edge) for _ in range(5)]
    await until(lambda: len(jobs(edge)._waiting) == 5)
    for wire in wires:
        await wire.close()
    await until(lambda: not jobs(edge)._waiting)
    sent = [await edge.send() for _ in range(5)]
    taken = [await take(edge) for _ in range(5)]

    assert sorted(task["task_id"] for task in taken) == sorted(sent)
    assert {task["attempt"] for task in taken} == {1}


async def test_a_job_that_comes_just_as_its_child_leaves_is_given_back(edge: Edge) -> None:
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(jobs(edge).next(5, gone))
    await until(lambda: jobs(edge)._waiting)
    mine = jobs(edge)._waiting[0]
    mine.add_done_callback(lambda _: gone.set_result(None))
    task_id = await edge.send()
    nothing = await waiting

    assert mine.result() is not None
    assert nothing is None
    assert (await take(edge))["task_id"] == task_id


async def test_a_child_that_waits_is_told_when_the_edge_stops(kit: Kit) -> None:
    async with serving(kit.server.url) as edge:
        waiting = asyncio.create_task(ask_to_take(edge, wait=30))
        await until(lambda: jobs(edge)._waiting)
        edge.stop.set()
        answer = await asyncio.wait_for(waiting, PATIENCE)

    assert answer.status_code == 204


async def test_waiting_survives_a_new_connection_to_the_server(edge: Edge) -> None:
    waiting = asyncio.create_task(take(edge, wait=30))
    await until(lambda: jobs(edge)._waiting)
    epoch = edge.shared.bus.link.epoch
    edge.shared.bus.link.doubt()
    await until(lambda: edge.shared.bus.link.epoch > epoch)
    task_id = await edge.send()

    assert (await asyncio.wait_for(waiting, PATIENCE))["task_id"] == task_id


async def test_consumers_that_were_lost_are_made_again(kit: Kit, edge: Edge) -> None:
    await ask_to_take(edge, wait=0)
    await edge.send("before")
    await take(edge)
    for level in range(subjects.PRIORITIES):
        name = subjects.work_consumer(edge.child, level)
        await kit.bus.api(f"CONSUMER.DELETE.{kit.bus.stream}.{name}")
    task_id = await edge.send()

    assert (await take(edge, wait=10))["task_id"] == task_id


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
    bound = KeyTable(id="b", secret_env="BOUND", scopes=["relay:callback"], children=[name, "c1"])
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
            await ask_to_take(edge, child_id="c2", wait=0),
            await edge.get(path(edge, "tasks?child_id=c2")),
            await edge.post("/api/relay/callback", {"task_id": task_id, "child_id": "c2"}),
            await edge.post("/api/relay/callback", {"task_id": task_id}),
        ]
        unsent = await edge.post("/api/relay/send", {"from": "a", "to": name})
        done = await call_back(edge, await take(edge))

    assert [answer.status_code for answer in foreign] == [403] * 5
    assert {answer.json()["code"] for answer in foreign} == {"foreign_child"}
    for refused in (unscoped, unsent):
        assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
    assert done.status_code == 200


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


# -- as a stream ------------------------------------------------------------------------------


async def next_task(events: Feed) -> dict[str, Any]:
    (found,) = await events.take(1)
    assert found.name == "task"
    assert found.cursor == ""
    task = found.data
    assert isinstance(task, dict)
    return task


def tasks_of(edge: Edge, child_id: str, more: str = "") -> str:
    return path(edge, f"tasks?child_id={child_id}{more}")


async def test_tasks_come_one_after_the_other_as_they_are_done(kit: Kit, edge: Edge) -> None:
    sent = [await edge.send(f"x{n}") for n in range(3)]
    async with feed(edge, tasks_of(edge, "c1"), **AS_RELAY) as events:
        done = []
        for n in range(3):
            task = await next_task(events)
            pending = [(await view(edge, one))["task_status"] for one in sent]
            done.append(task["task_id"])
            await call_back(edge, task)

            assert pending == ["completed"] * n + ["processing"] + ["pending"] * (2 - n)

    assert done == sent


@pytest.mark.parametrize("ending", ["failed", "released", "lapsed"])
async def test_however_a_task_ends_the_next_one_comes(kit: Kit, edge: Edge, ending: str) -> None:
    await edge.send("first")
    async with feed(edge, tasks_of(edge, "c1"), **AS_RELAY) as events:
        first = await next_task(events)
        second_id = await edge.send("second", priority=0)
        if ending == "failed":
            await call_back(edge, first, status="error")
        elif ending == "released":
            await edge.post(path(edge, "release"), first)
        else:
            await kit.advance(A_MINUTE)
        second = await next_task(events)

    assert second["task_id"] == second_id


async def test_a_child_with_more_slots_gets_as_many_tasks(edge: Edge) -> None:
    for n in range(4):
        await edge.send(f"x{n}")
    async with feed(edge, tasks_of(edge, "c1", "&slots=3"), **AS_RELAY) as events:
        first = [await next_task(events) for _ in range(3)]
        waiting = asyncio.create_task(next_task(events))
        await until(lambda: edge.shared.hub.topics == 3)
        too_early = waiting.done()
        await call_back(edge, first[1])
        fourth = await waiting

    assert not too_early
    assert [task["cmd"] for task in (*first, fourth)] == ["x0", "x1", "x2", "x3"]


async def test_a_child_whose_stream_breaks_gets_what_was_not_leased_elsewhere(
    kit: Kit, edge: Edge
) -> None:
    async with feed(edge, tasks_of(edge, "c1"), **AS_RELAY) as events:
        first_id = await edge.send("first")
        first = await next_task(events)
        second_id = await edge.send("second")
    await until(lambda: edge.shared.streams.count == 0)
    await until(lambda: edge.shared.hub.topics == 0)
    async with feed(edge, tasks_of(edge, "c2"), **AS_RELAY) as events:
        second = await next_task(events)
        await call_back(edge, second, child_id="c2")
        await kit.advance(A_MINUTE)
        again = await next_task(events)

    assert (first["task_id"], second["task_id"]) == (first_id, second_id)
    assert (again["task_id"], again["attempt"]) == (first_id, 2)


async def test_children_that_share_a_key_do_not_count_as_one(edge: Edge) -> None:
    async with (
        feed(edge, tasks_of(edge, "c1"), **AS_RELAY),
        feed(edge, tasks_of(edge, "c1"), **AS_RELAY),
        feed(edge, tasks_of(edge, "c1"), **AS_RELAY),
        feed(edge, tasks_of(edge, "c2"), **AS_RELAY),
    ):
        refused = await edge.get(tasks_of(edge, "c1"))

    assert refused.status_code == 429


async def test_a_stream_of_tasks_needs_a_key_even_where_reading_is_open(edge: Edge) -> None:
    refused = await edge.get(tasks_of(edge, "c1"), headers={"X-Relay-API-Key": ""})

    assert refused.status_code == 401
    await until_known(lambda: is_idle(edge))


async def is_idle(edge: Edge) -> bool:
    health = (await edge.get("/health")).json()
    return bool(health["streams"] == 0)
