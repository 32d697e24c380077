"""A person takes a conversation in which OpenAI's clients ask: what ends, and what is refused."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from runtime.bus import new_id
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.ownership import Assignee, Release, TakeOver
from tests.integration.completing import ACTORS, PATH, asking, complete, error, streaming
from tests.integration.edges import Edge
from tests.integration.speaking import gate

pytestmark = pytest.mark.asyncio(loop_scope="module")
ANN = Assignee(id="ann", name="Ann")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**ACTORS) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with asking(kit) as edge:
        yield edge


@pytest.mark.promise("FD-28", "FD-29", "FD-30", "FD-69")
async def test_a_stream_ends_with_the_reason_when_a_person_takes_its_conversation(
    kit: Kit, edge: Edge
) -> None:
    name = new_id()
    headers = {"X-Conversation-Id": name}
    async with streaming(edge, f"wait {name}", headers) as stream:
        await stream.until(b"one ")
        await kit.ask(Address("session", name), TakeOver(agent=ANN))
        gate(name).set()
        got = await stream.rest()
    whole = await complete(edge, "hello", headers)
    async with streaming(edge, "hello", headers) as next_stream:
        await next_stream.rest()
        refused = next_stream.response
    form = {"prompt": (None, "hello"), "model": (None, "demo"), "conversation_id": (None, name)}
    asked = await edge.client.post(PATH, files=form)
    await kit.ask(Address("session", name), Release(agent="ann"))
    again = await complete(edge, "hello", headers)

    assert stream.text == "one "
    assert b'"code":"MANUAL_IN_PROGRESS"' in got
    assert b"[DONE]" not in got
    assert error(whole) == (409, "MANUAL_IN_PROGRESS", None)
    assert (refused.status_code, refused.headers["content-type"]) == (409, "application/json")
    assert whole.headers["x-should-retry"] == refused.headers["x-should-retry"] == "false"
    assert (asked.status_code, asked.json()["code"]) == (409, "MANUAL_IN_PROGRESS")
    assert asked.headers["x-should-retry"] == "false"
    assert asked.json()["assignee"] == {"id": "ann", "name": "Ann"}
    assert again.status_code == 200
