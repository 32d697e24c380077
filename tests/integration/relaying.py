"""Short words for tests that speak to the relay over HTTP."""

from typing import Any

import httpx

from tests.integration.edges import Edge
from tests.integration.waiting import until_known


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
