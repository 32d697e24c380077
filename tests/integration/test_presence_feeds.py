"""Who is there and who is typing, on real edges: two of them tell one another."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from runtime.tables import KeyTable
from runtime.testing import Kit, running
from schemas import subjects
from schemas.model import conversation_topic
from tests.integration.answering import Answering, gate
from tests.integration.asking import ask, models
from tests.integration.edges import Edge, serving
from tests.integration.feed import Block, Feed, feed

pytestmark = pytest.mark.asyncio(loop_scope="module")

SITE, SITE2, TEAM = "s" * 8 + "ite-secret", "z" * 8 + "ite-secret", "t" * 8 + "eam-secret"
CHAT = ["chat:send", "chat:read"]
KEYS = {
    SITE: KeyTable(id="site", secret_env="SITE", scopes=CHAT),
    SITE2: KeyTable(id="site2", secret_env="SITE2", scopes=CHAT),
    TEAM: KeyTable(
        id="team", secret_env="TEAM", scopes=[*CHAT, "chat:all", "desk:read", "desk:act"]
    ),
}
CHAT_TYPING = "/api/chat/typing"
FROM_AFAR = {"X-Forwarded-For": "192.0.2.7"}
"""What comes from this machine may do more than its key."""
AS_SITE, AS_SITE2, AS_TEAM = ({"X-Relay-API-Key": key, **FROM_AFAR} for key in (SITE, SITE2, TEAM))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(waits=Answering, **models()) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(kit: Kit) -> AsyncIterator[tuple[Edge, Edge]]:
    async with serving(kit.server.url, keys=KEYS) as one, serving(kit.server.url, keys=KEYS) as two:
        for edge in (one, two):
            edge.client.headers.update(AS_SITE)
        yield one, two


async def following(
    stack: contextlib.AsyncExitStack, edge: Edge, name: str, headers: dict[str, str]
) -> Feed:
    path = f"/v1/conversations/{name}/events"
    stream = await stack.enter_async_context(feed(edge, path, **headers))
    assert (await stream.take(1))[0].name == "reset"
    return stream


async def types(edge: Edge, name: str, on: bool = True) -> int:
    path = f"/api/sessions/{name}/typing"
    return (await said(edge, path, {"on": on}, AS_TEAM)).status_code


async def said(edge: Edge, path: str, body: object, headers: dict[str, str]) -> httpx.Response:
    return await edge.post(path, body, headers={"Content-Type": "application/json", **headers})


def about(blocks: list[Block]) -> list[tuple[str, object]]:
    return [
        (one.name, one.data.get("viewers", one.data.get("agent", one.data.get("on"))))
        for one in blocks
    ]


@pytest.mark.promise("FD-46", "FD-81")
async def test_an_agent_and_a_customer_see_each_other_type_across_edges(
    edges: tuple[Edge, Edge],
) -> None:
    here, there = edges
    await ask(here, "hello", "waits", conversation_id="types")
    async with contextlib.AsyncExitStack() as stack:
        customer = await following(stack, here, "types", AS_SITE)
        colleague = await following(stack, there, "types", AS_TEAM)
        seen = (await colleague.until("presence"))[-1]
        assert await types(there, "types") == 204
        typing = (await customer.until("typing"))[-1]
        told = await said(here, CHAT_TYPING, {"user_id": "types"}, AS_SITE)
        answer = (await colleague.until("typing"))[-1]
        await customer.response.aclose()
        left = (await colleague.until("presence"))[-1]

    assert seen.data["viewers"] == [{"id": "site", "role": "user", "name": ""}]
    assert typing.data == {"session": "types", "role": "agent", "name": "", "on": True}
    assert told.status_code == 204
    assert (answer.data["role"], answer.data["on"]) == ("user", True)
    assert left.data["viewers"] == []
    assert typing.cursor == customer.cursor  # no id of its own


async def test_what_is_not_stored_neither_delays_nor_moves_what_is(
    edges: tuple[Edge, Edge],
) -> None:
    here, there = edges
    async with contextlib.AsyncExitStack() as stack:
        with gate("waits"):
            asked = await ask(here, "hello", "waits", conversation_id="busy")
            customer = await following(stack, here, "busy", AS_SITE)
            for number in range(30):
                await types(there, "busy", on=number % 2 == 0)
        blocks = await customer.until("batch.finished")
    stored = [one for one in blocks if one.name not in ("typing", "presence")]
    cursors = [int(one.cursor) for one in stored]

    assert cursors == sorted(set(cursors))
    assert stored[-1].said["batch"] == asked["batch_id"]


async def test_typing_in_somebody_elses_session_is_answered_as_if_there_were_none(
    edges: tuple[Edge, Edge],
) -> None:
    here, _ = edges
    await ask(here, "hello", "waits", conversation_id="private")
    body = {"user_id": "private"}
    refused = await said(here, CHAT_TYPING, body, AS_SITE2)
    own = await said(here, CHAT_TYPING, body, AS_SITE)
    nowhere = await said(here, CHAT_TYPING, {"user_id": "nowhere"}, AS_SITE2)
    customer = await here.post("/api/sessions/private/typing", headers=AS_SITE)
    wrong = await said(here, CHAT_TYPING, {"user_id": 5}, AS_SITE)

    assert (refused.status_code, own.status_code, nowhere.status_code) == (404, 204, 204)
    assert customer.status_code == 403
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/user_id")


async def test_nothing_of_it_is_stored(kit: Kit, edges: tuple[Edge, Edge]) -> None:
    here, _ = edges
    heard = asyncio.Event()
    handle = kit.bus.subscribe(subjects.all_seen("conversation"), lambda _: heard.set())
    assert await types(here, "unheard-of") == 204
    async with asyncio.timeout(10):
        await heard.wait()
    kit.bus.unsubscribe(handle)

    assert await kit.bus.last(subjects.seen(conversation_topic("unheard-of"))) is None
