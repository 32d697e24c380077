"""Remote children take tasks by long poll, and nothing is lost if they vanish."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from actors.child import Child, Remote
from actors.master import Master
from runtime.testing import Kit, running
from schemas import subjects
from tests.integration.children import (
    ask_on_a_wire,
    ask_to_take,
    call_back,
    deploy,
    jobs,
    take,
    view,
)
from tests.integration.edges import Edge, serving
from tests.integration.tasks import CALLABLE
from tests.integration.waiting import until

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
