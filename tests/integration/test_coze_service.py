"""Customers of a workflow at Coze that the environment names, as `callboard up` serves them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.fakes.upstream import Upstream, fake
from tests.integration.command import PATIENCE, ROOT, Callboard
from tests.unit.signing import PRIVATE_PEM, PUBLIC_PEM

SESSIONS = """
[[actor]]
name = "session"
type = "actors.session:Session"
[[actor]]
name = "batch"
type = "actors.batch:Batch"
"""


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with fake("coze", public_key=PUBLIC_PEM) as coze:
        yield coze


@pytest.fixture
async def client(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nats_server_binary: str
) -> AsyncIterator[httpx.AsyncClient]:
    (key := tmp_path / "key.pem").write_text(PRIVATE_PEM)
    said = {
        "COZE_WORKFLOW_ID": "w1",
        "COZE_APP_ID": "a1",
        "COZE_OAUTH_CLIENT_ID": "app-1",
        "COZE_OAUTH_PUBLIC_KEY_ID": "k1",
        "COZE_OAUTH_PRIVATE_KEY_FILE": str(key),
        "COZE_API_BASE": upstream.url,
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    running = Callboard(tmp_path, edge=SESSIONS)
    try:
        ready = await asyncio.to_thread(running.wait_for, "edge_ready")
        await asyncio.to_thread(running.wait_for, "host_ready")
        async with httpx.AsyncClient(base_url=ready["addresses"][0], timeout=PATIENCE) as client:
            yield client
    finally:
        running.process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(running.process.wait), PATIENCE)
        running.close()


async def chat(client: httpx.AsyncClient, session: str, text: str, **more: Any) -> Any:
    body = {"message": text, "user_id": session, **more}
    answer = await client.post("/api/chat", json=body)
    return answer.json() | {"http": answer.status_code}


@pytest.mark.promise("FD-53", "FD-54", "FD-55", "FD-15", "FD-19", "FD-23", "FD-25", "FD-63")
async def test_the_workflow_of_the_environment_answers_each_session_for_itself(
    upstream: Upstream, client: httpx.AsyncClient
) -> None:
    settings = ROOT / ".env"
    before = settings.read_bytes() if settings.exists() else None
    one = await chat(client, "s1", "hello", parameters={"USER_LANGUAGE": "de"})
    two = await chat(client, "s2", "good day")
    again = await chat(client, "s1", "and?", conversation_id=one["conversation_id"])
    foreign = await chat(client, "s2", "mine?", conversation_id=one["conversation_id"])
    models = (await client.get("/v1/models")).json()["data"]
    sent = [call.body for call in upstream.asked]

    assert [one["message"], two["message"], again["message"]] == [
        "You said: hello",
        "You said: good day",
        "You said: and?",
    ]
    assert (foreign["http"], foreign["code"]) == (400, "unknown_thread")
    assert [model["id"] for model in models] == ["coze"]
    assert [(body["workflow_id"], body["app_id"], body["session_name"]) for body in sent] == [
        ("w1", "a1", name) for name in ("s1", "s2", "s1")
    ]
    assert sent[0]["parameters"] == {"USER_LANGUAGE": "de"}
    assert sent[0]["conversation_id"] == sent[2]["conversation_id"] == again["conversation_id"]
    assert sent[1]["conversation_id"] == two["conversation_id"] != one["conversation_id"]
    assert [call.note for call in upstream.asked] == ["s1", "s2", "s1"]
    assert len({call.secret for call in upstream.asked}) == 2
    assert (settings.read_bytes() if settings.exists() else None) == before
