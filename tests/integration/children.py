"""Short words for tests about remote children: deploying one, taking, calling back."""

import secrets
from datetime import timedelta
from typing import Any

import httpx

from edge.jobs import Jobs
from runtime.deployments import seed_deployments
from runtime.testing import Kit
from schemas.deployment import Deployment
from tests.integration.edges import AS_RELAY, Edge
from tests.integration.waiting import until
from tests.integration.wire import Wire

A_MINUTE = timedelta(seconds=61)


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
