"""A remote child gets its tasks as a stream, no more at a time than it has slots."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from actors.child import Child, Remote
from actors.master import Master
from runtime.testing import Kit, running
from tests.integration.children import A_MINUTE, call_back, deploy, path, view
from tests.integration.edges import AS_RELAY, Edge, serving
from tests.integration.feed import Feed, feed
from tests.integration.tasks import CALLABLE
from tests.integration.waiting import until, until_known

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
    refused = await edge.get_nameless(tasks_of(edge, "c1"))

    assert refused.status_code == 401
    await until_known(lambda: is_idle(edge))


async def is_idle(edge: Edge) -> bool:
    health = (await edge.get("/health")).json()
    return bool(health["streams"] == 0)
