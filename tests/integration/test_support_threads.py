"""A session's conversation with Coze: opened before its first message, kept, and begun anew."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from actors.batch import Batch
from actors.fakes.upstream import Upstream, fake
from actors.session import Session
from runtime.bus import new_id
from runtime.tables import SupportTable
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.ownership import Assignee, TakeOver
from tests.integration.customers import JSON, following, say, streaming
from tests.integration.edges import Edge, serving
from tests.integration.talking import deployed
from tests.unit.signing import PRIVATE_PEM, PUBLIC_PEM

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with fake("coze", public_key=PUBLIC_PEM) as coze:
        yield coze


def coze(url: str, name: str = "coze") -> Any:
    options = {
        "provider": "coze",
        "model": "w1",
        "upstreams": [{"url": url, "key_env": "COZE_PRIVATE_KEY", "name": "cn"}],
        "extra": {"app_id": "a1"},
        "dialect": {"client": "app-1", "key_id": "k1"},
        "tries": 1,
    }
    return deployed(options, name=name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit(upstream: Upstream) -> AsyncIterator[Kit]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COZE_PRIVATE_KEY", PRIVATE_PEM)
        models = {
            "coze": coze(upstream.url),
            "gone": coze("http://127.0.0.1:1", "gone"),
            "echo": deployed({"provider": "echo"}, name="echo"),
        }
        async with running(session=Session, batch=Batch, **models) as kit:
            yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url, support=SupportTable(models=["coze"])) as edge:
        yield edge


async def opened(edge: Edge, session: str, what: str = "new") -> str:
    name = "user_id" if what == "create" else "session_id"
    answer = await edge.post(f"/api/conversation/{what}", {name: session}, headers=JSON)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body == {"success": True, "conversation_id": body["conversation_id"]} | {
        "session_name": session
    }
    return str(body["conversation_id"])


@pytest.mark.promise("FD-06", "FD-21", "FD-23", "FD-24")
async def test_a_conversation_is_opened_first_and_what_is_said_goes_on_in_it(edge: Edge) -> None:
    session = new_id()
    thread = await opened(edge, session)
    answer = await say(edge, "hello", user_id=session, conversation_id=thread)

    assert thread not in ("", session)
    assert answer.status_code == 200, answer.text
    assert answer.json()["conversation_id"] == thread
    assert await opened(edge, session, "create") == thread
    assert await opened(edge, new_id()) != thread


@pytest.mark.promise("FD-25")
async def test_a_first_message_without_one_is_told_which_was_opened(edge: Edge) -> None:
    session = new_id()
    answer = await say(edge, "hello", user_id=session)
    async with streaming(edge, "hello", user_id=session) as stream:
        told = await stream.rest()
    async with following(edge, f"session_name={session}") as feed:
        connected = await feed.of("connected")

    thread = answer.json()["conversation_id"]
    assert thread
    assert told[0]["conversation_id"] == connected[-1]["conversation_id"] == thread
    assert await opened(edge, session) == thread


async def test_a_conversation_is_begun_anew_but_not_while_a_person_has_it(
    kit: Kit, edge: Edge
) -> None:
    session = new_id()
    first = await opened(edge, session)
    anew = await opened(edge, session, "clear")
    await kit.ask(Address("session", session), TakeOver(agent=Assignee(id="ann")))
    refused = await edge.post("/api/conversation/clear", {"session_id": session}, headers=JSON)

    assert anew not in ("", first)
    assert (refused.status_code, refused.json()["detail"]) == (409, "MANUAL_IN_PROGRESS")


async def test_a_conversation_of_another_session_is_refused(edge: Edge) -> None:
    thread = await opened(edge, new_id())
    answer = await say(edge, "hello", user_id=new_id(), conversation_id=thread)

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_thread")


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("new", {}, "/session_id: required, but missing"),
        ("create", {"session_id": "a"}, "/user_id: required, but missing"),
        ("clear", {}, "/session_id: required, but missing"),
    ],
)
async def test_a_session_that_is_not_named_is_missed(
    edge: Edge, path: str, body: Any, words: str
) -> None:
    answer = await edge.post(f"/api/conversation/{path}", body, headers=JSON)

    assert answer.status_code == 400
    assert answer.json()["success"] is False
    assert answer.json()["error"] == words


async def test_a_provider_that_opens_none_is_told_with_a_503_or_its_like(kit: Kit) -> None:
    async with serving(kit.server.url, support=SupportTable(models=["gone"])) as edge:
        body = {"session_id": new_id()}
        answer = await edge.post("/api/conversation/new", body, headers=JSON)

    assert answer.status_code in (502, 503), answer.text
    assert answer.json()["success"] is False


async def test_where_no_threads_are_kept_it_is_the_session_itself(kit: Kit) -> None:
    async with serving(kit.server.url, support=SupportTable(models=["echo"])) as edge:
        session = new_id()
        assert await opened(edge, session) == session
        answer = await say(edge, "hello", user_id=session, conversation_id=session)

    assert answer.status_code == 200


@pytest.mark.promise("FD-49")
async def test_health_tells_how_coze_does(kit: Kit, edge: Edge) -> None:
    health = (await edge.get("/api/health")).json()
    async with serving(kit.server.url, support=SupportTable(models=["nothing"])) as other:
        without = await other.get("/api/health")

    known = ("status", "session_isolation", "auth_mode", "workflow_id", "app_id", "model")
    assert {name: health[name] for name in known} == {
        "status": "healthy",
        "session_isolation": True,
        "auth_mode": "OAUTH_JWT",
        "workflow_id": "w1",
        "app_id": "a1",
        "model": "w1",
    }
    assert (without.status_code, without.json()["status"]) == (200, "degraded")
