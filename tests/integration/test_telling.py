"""What an edge tells: how it is, what it offers, and what it would never find again."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from actors.child import Child, Remote
from actors.master import Master
from runtime.testing import Kit, running
from tests.integration.edges import Edge, serving
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


async def test_the_document_says_what_is_true(edge: Edge) -> None:
    document = (await edge.get("/openapi.json")).json()
    older = (await edge.get("/docs/openapi.json")).text
    follow = document["paths"]["/api/relay/children/{name}/tasks"]["get"]
    names = {parameter["name"] for parameter in follow["parameters"]}

    assert '"required":[]' not in older
    assert "code" in document["components"]["schemas"]["Problem"]["required"]
    assert names == {"name", "child_id", "slots", "seconds"}
    assert (
        "24 hours" in document["paths"]["/api/relay/send"]["post"]["parameters"][0]["description"]
    )


@pytest.mark.parametrize("task_id", [".", ".."])
async def test_a_task_that_could_not_be_asked_for_is_refused(edge: Edge, task_id: str) -> None:
    body = {"from": "a", "to": "far", "type": "task", "task_id": task_id}
    refused = await edge.post("/api/relay/send", body)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_field")


async def test_health_says_when_no_host_is_alive(kit: Kit) -> None:
    async with serving(kit.server.url) as edge:
        before = await kit.bus.lasts("$KV.nodes.>", stream="KV_nodes")
        for node in before:
            await kit.bus.publish(node.subject, b"", headers={"KV-Operation": "PURGE"})
        answer = await edge.get("/health")
        passed_on = await edge.get("/health", headers={"X-Forwarded-For": "192.0.2.7"})
        for node in before:
            await kit.bus.publish(node.subject, node.data)

    assert before
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["hosts"]) == ("degraded", 0)
    assert passed_on.json() == {"status": "degraded"}
