"""Who may speak in sessions: customers without a key, keys and theirs, and who is no agent."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from runtime.bus import new_id
from runtime.tables import KeyTable, SupportTable
from runtime.testing import Kit, running
from tests.integration.customers import ACTORS, escalate, following, say, write
from tests.integration.edges import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

SITE = "sk-site-0123456789abcdef01234567"
OTHER = "sk-other-0123456789abcdef0123456"
SCOPES = ["chat:send", "chat:read"]
KEYS = {
    SITE: KeyTable(id="site", secret_env="SITE_KEY", scopes=SCOPES),
    OTHER: KeyTable(id="other", secret_env="OTHER_KEY", scopes=SCOPES),
}
PROXIED = {"X-Forwarded-For": "203.0.113.9"}
"""As a proxy passes requests on: they do not come from this machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**ACTORS) as kit:
        yield kit


@pytest.fixture
def session() -> str:
    return new_id()


async def test_customers_need_no_key_where_chat_is_open_and_never_write_as_agents(
    kit: Kit, session: str
) -> None:
    async with serving(kit.server.url, keys=KEYS, support=SupportTable(open=True)) as edge:
        del edge.client.headers["X-Relay-API-Key"]
        edge.client.headers.update(PROXIED)
        answered = await say(edge, "hello", user_id=session)
        async with following(edge, f"session_name={session}") as feed:
            await feed.of("connected")
        called = await escalate(edge, session, user_profile={"vip": True})
        as_agent = await write(edge, session, "I am an agent")
        elsewhere = await edge.get("/v1/models")
        health = await edge.get("/api/health")

    assert answered.status_code == called.status_code == 200
    assert called.json()["data"]["user_profile"]["vip"] is False
    assert (as_agent.status_code, as_agent.json()["code"]) == (403, "missing_scope")
    assert elsewhere.status_code == 401
    assert health.json() == {"status": "healthy", "session_isolation": True}


async def test_without_that_a_key_is_needed_and_sessions_are_its_own(
    kit: Kit, session: str
) -> None:
    site, other = ({"Authorization": f"Bearer {key}"} | PROXIED for key in (SITE, OTHER))
    async with serving(kit.server.url, keys=KEYS) as edge:
        del edge.client.headers["X-Relay-API-Key"]
        refused = await say(edge, "hello", PROXIED, user_id=session)
        answered = await say(edge, "hello", site, user_id=session)
        followed = []
        for headers in (site, other, PROXIED):
            async with following(edge, f"session_name={session}", **headers) as feed:
                followed.append(feed.response.status_code)
        foreign = await say(edge, "hello", other, user_id=session)

    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert answered.status_code == 200
    assert followed == [200, 404, 401]
    assert (foreign.status_code, foreign.json()["code"]) == (404, "conversation_not_found")


async def test_whoever_waited_for_a_session_hears_nothing_of_it_once_it_is_anothers(
    kit: Kit, session: str
) -> None:
    site, other = ({"Authorization": f"Bearer {key}"} | PROXIED for key in (SITE, OTHER))
    async with serving(kit.server.url, keys=KEYS) as edge:
        del edge.client.headers["X-Relay-API-Key"]
        async with (
            following(edge, f"session_name={session}", **other) as spy,
            following(edge, f"session_name={session}", **site) as own,
        ):
            await spy.of("connected")
            await own.of("connected")
            await say(edge, "only for us", site, user_id=session)
            heard, overheard = await own.of("done"), await spy.rest()

    assert [said["content"] for said in heard if said["type"] == "user_message"] == ["only for us"]
    assert [said["type"] for said in overheard if said["type"] != "presence"] == []
