"""What is left of a served customer: all of it ends one day, and none of it stands in a log."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from actors.desk import Desk
from actors.human_agent import HumanAgent
from runtime.bus import Stored, new_id
from runtime.config import load
from runtime.tables import SupportTable
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address
from tests.integration.customers import ACTORS, JSON, escalate, following, say, write
from tests.integration.edges import Edge, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = Path(__file__).parents[2] / "config"
EMAIL = "kim.doe@customer.example"
CARD = "4000-1234-5678-9010"
FIIDO = {
    "POST /api/chat",
    "POST /api/chat/stream",
    "GET /api/chat/stream",
    "POST /api/conversation/new",
    "POST /api/conversation/create",
    "POST /api/conversation/clear",
    "GET /api/health",
    "POST /api/manual/escalate",
    "POST /api/manual/messages",
    "GET /api/sessions",
    "GET /api/sessions/stats",
    "GET /api/sessions/queue",
    "GET /api/sessions/{name}",
    "POST /api/sessions/{name}/takeover",
    "POST /api/sessions/{name}/release",
    "POST /api/sessions/{name}/transfer",
    "POST /api/sessions/{name}/email",
    "GET /api/shift/config",
    "GET /api/shift/status",
    "POST /api/agent/login",
    "POST /api/agent/refresh",
    "GET /api/agent/events",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**ACTORS, desk=Desk, human_agent=HumanAgent) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url, support=SupportTable()) as edge:
        yield edge


async def serve(edge: Edge, session: str) -> None:
    """A customer is answered, calls a person, is served by one, and is given back."""
    handling: list[tuple[str, dict[str, Any]]] = [
        ("customer", {"nickname": "Kim", "email": EMAIL}),
        ("takeover", {"agent_id": "ann", "agent_name": "Ann"}),
        ("note", {"agent_id": "ann", "content": f"paid with {CARD}"}),
        ("release", {"agent_id": "ann"}),
    ]
    answers = [
        await say(edge, f"my card is {CARD}", user_id=session),
        await escalate(edge, session, reason=f"write to {EMAIL}"),
    ]
    for path, body in handling:
        answers.append(await edge.post(f"/api/sessions/{session}/{path}", body, headers=JSON))
        if path == "takeover":
            answers.append(await write(edge, session, f"it was {CARD}", role="user"))
            answers.append(await write(edge, session, f"I see {CARD}"))
    assert [(one.status_code, one.text) for one in answers if one.status_code != 200] == []


async def everything(kit: Kit) -> list[Stored]:
    return await kit.bus.read_all(">", after=0)


@pytest.mark.promise("FD-98", "FD-99")
async def test_nothing_of_a_served_customer_is_kept_without_an_end(kit: Kit, edge: Edge) -> None:
    session = new_id()
    await serve(edge, session)
    kept = await everything(kit)
    endless = {
        one.subject
        for one in kept
        if "Nats-TTL" not in one.headers and not one.subject.startswith("timer.")
    }

    kinds = {one.subject.partition(".")[0] for one in kept}
    assert {"mail", "work", "state", "event", "run"} <= kinds
    assert subjects.state("session", session) in {one.subject for one in kept}
    assert endless == set()
    assert {one.subject for one in kept if one.subject.startswith("timer.")} <= {
        one.subject for one in kept if "Nats-Schedule-TTL" in one.headers
    }


@pytest.mark.promise("FD-37")
async def test_what_customers_and_agents_write_stands_in_no_log(edge: Edge) -> None:
    with capture_logs() as logs:
        await serve(edge, new_id())
    told = json.dumps(logs, default=repr)

    assert logs
    assert all("event" in one and "log_level" in one for one in logs)
    assert [word for word in (CARD, EMAIL) if word in told] == []


@pytest.mark.promise("FD-64")
async def test_every_endpoint_that_clients_of_fiido_know_is_there(edge: Edge) -> None:
    document = (await edge.get("/openapi.json")).json()
    published = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }

    assert {one.replace("{name}", "*") for one in FIIDO} <= {
        one.replace("{name}", "*").replace("{session_name}", "*") for one in published
    }


@pytest.mark.promise("FD-52")
async def test_the_shipped_service_listens_where_its_clients_look() -> None:
    assert load(CONFIG / "local.toml", {}).edge.listen == ["127.0.0.1:8000"]


@pytest.mark.promise("FD-39")
async def test_what_a_session_is_like_is_read_from_its_record_alone(kit: Kit, edge: Edge) -> None:
    session = new_id()
    await serve(edge, session)
    async with following(edge, f"session_name={session}") as feed:
        began = await feed.one()
    shown = (await edge.get(f"/api/sessions/{session}")).json()["data"]["session"]
    address = Address("session", session)
    stored = await kit.bus.last(subjects.state(address.actor, address.key))

    assert stored is not None
    assert began.data["status"] == shown["status"] == "bot_active"
    assert shown["user_profile"]["email"] == EMAIL
    assert EMAIL.encode() in stored.data
