"""What agents follow: the live queue of their teams, and one session with its colleagues."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from actors.desk import Desk
from actors.human_agent import HumanAgent
from runtime.tables import KeyTable
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.ownership import AddNote, Assignee, Escalate, SayManual, TakeOver
from tests.integration.agents import ADMIN_KEY, call, lighten, log_in, make_agent
from tests.integration.customers import ACTORS
from tests.integration.edges import PATIENCE, Edge, serving
from tests.integration.feed import Feed, feed

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUEUE = "/api/agent/events"
ANN = Assignee("ann", "Ann")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    desk = (Desk, {"auto_assign": False})
    async with running(**ACTORS, desk=desk, human_agent=HumanAgent) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    keys = {ADMIN_KEY: KeyTable(id="office", secret_env="OFFICE_KEY")}
    async with serving(kit.server.url, keys=keys) as edge:
        lighten(edge)
        await make_agent(edge, "ann", name="Ann")
        await make_agent(edge, "bob", teams=["returns"])
        yield edge


async def bearer(edge: Edge, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {(await log_in(edge, name))['token']}"}


async def of(stream: Feed, kind: str, session: str = "") -> dict[str, Any]:
    """The next event of a type, about a session if one is named."""
    async with asyncio.timeout(PATIENCE):
        while True:
            (block,) = await stream.take(1)
            about = block.data.get("session")
            name = about.get("session_name") if isinstance(about, dict) else about
            if block.data["type"] == kind and session in ("", name):
                return {**block.data, "cursor": block.cursor}


async def begin(kit: Kit, name: str, team: str = "support") -> None:
    await kit.ask(Address("session", name), Escalate(desk=True, team=team))


@pytest.mark.promise("FD-46", "FD-81", "FD-114")
async def test_the_queue_begins_as_it_stands_and_goes_on_by_itself(edge: Edge, kit: Kit) -> None:
    await begin(kit, "before")
    async with feed(edge, QUEUE, **await bearer(edge, "ann")) as stream:
        reset = await of(stream, "reset")
        await begin(kit, "after")
        called = await of(stream, "session_update", "after")
        await kit.ask(Address("session", "before"), TakeOver(agent=ANN))
        taken = await of(stream, "session_update", "before")

    assert [one["session_name"] for one in reset["queue"]["queue"]] == ["before"]
    assert [one["session_name"] for one in reset["sessions"]] == ["before"]
    assert called["session"]["status"] == "pending_manual"
    assert taken["session"]["assigned_agent"] == {"id": "ann", "name": "Ann"}
    assert int(reset["cursor"]) < int(called["cursor"]) < int(taken["cursor"])


async def test_a_lost_connection_goes_on_where_it_was_lost(edge: Edge, kit: Kit) -> None:
    await begin(kit, "lost-0")
    headers = await bearer(edge, "ann")
    async with feed(edge, QUEUE, **headers) as stream:
        await of(stream, "reset")
        await begin(kit, "lost-1")
        seen = await of(stream, "session_update", "lost-1")
    for n in range(2, 5):
        await begin(kit, f"lost-{n}")
    async with feed(edge, QUEUE, **headers, **{"Last-Event-ID": seen["cursor"]}) as stream:
        found = [(await of(stream, "session_update"))["session"]["session_name"] for _ in range(3)]

    assert found == ["lost-2", "lost-3", "lost-4"]


async def test_an_agent_hears_of_their_own_teams_only(edge: Edge, kit: Kit) -> None:
    async with feed(edge, QUEUE, **await bearer(edge, "bob")) as stream:
        reset = await of(stream, "reset")
        await begin(kit, "elsewhere")
        await begin(kit, "here", "returns")
        first = await of(stream, "session_update")

    assert reset["queue"]["queue"] == []
    assert first["session"]["session_name"] == "here"


async def test_who_looks_on_is_there_and_colleagues_hear_how_they_are(edge: Edge, kit: Kit) -> None:
    ann, office = await bearer(edge, "ann"), {"X-Relay-API-Key": ADMIN_KEY}
    async with feed(edge, QUEUE, **office) as watching:
        await of(watching, "reset")
        async with feed(edge, QUEUE, **ann) as stream:
            await of(stream, "reset")
            token = ann["Authorization"].split()[1]
            busy = {"presence": "busy"}
            await call(edge, "POST", "/api/agent/status", busy, token=token)
            async with asyncio.timeout(PATIENCE):
                while True:
                    told = (await of(watching, "agent_update"))["agent"]
                    if (told["id"], told["presence"]) == ("ann", "busy"):
                        break
            seen = await kit.state(Address("human_agent", "ann"))

    assert told["name"] == "Ann"
    assert seen.seen is not None


async def test_a_ticket_opens_the_queue_where_no_header_can_be_sent(edge: Edge) -> None:
    token = (await log_in(edge, "ann"))["token"]
    given = await call(edge, "POST", "/api/agent/ticket", {"path": QUEUE}, token=token)
    path = f"{QUEUE}?ticket={given.json()['ticket']}"
    async with feed(edge, path) as stream:
        reset = await of(stream, "reset")
    again = await call(edge, "GET", path)

    assert reset["type"] == "reset"
    assert (again.status_code, again.json()["code"]) == (401, "invalid_ticket")


async def test_the_queue_ends_for_whoever_is_disabled(edge: Edge) -> None:
    await make_agent(edge, "gone")
    async with feed(edge, QUEUE, **await bearer(edge, "gone")) as stream:
        await of(stream, "reset")
        path = "/api/agent/accounts/gone"
        await call(edge, "PATCH", path, {"disabled": True}, token=ADMIN_KEY)
        async with asyncio.timeout(5):
            rest = await stream.until("bye")

    assert rest[-1].name == "bye"


async def test_a_session_is_followed_with_what_colleagues_do_in_one_order(
    edge: Edge, kit: Kit
) -> None:
    await begin(kit, "close")
    to, headers = Address("session", "close"), await bearer(edge, "ann")
    async with feed(edge, "/api/sessions/close/events", **headers) as stream:
        reset = await of(stream, "reset")
        await kit.ask(to, TakeOver(agent=ANN))
        await kit.ask(to, SayManual(content="hello", agent=ANN))
        await kit.ask(to, AddNote(content="be kind", by=ANN))
        await kit.ask(to, SayManual(content="thanks", role="user"))
        kinds: list[tuple[str, Any]] = []
        cursors: list[int] = []
        while ("manual_message", "thanks") not in kinds:
            (block,) = await stream.take(1)
            if block.data["type"] != "presence":
                kinds.append((block.data["type"], block.data.get("content")))
                cursors.append(int(block.cursor))

    assert reset["session"]["status"] == "pending_manual"
    assert [kind for kind, _ in kinds][:2] in (
        ["status_change", "transition"],
        ["transition", "status_change"],
    )
    assert [said for said in kinds if said[0] in ("manual_message", "note")][-3:] == [
        ("manual_message", "hello"),
        ("note", "be kind"),
        ("manual_message", "thanks"),
    ]
    assert cursors == sorted(cursors)


async def test_who_sees_all_teams_comes_back_for_one_that_is_new(edge: Edge, kit: Kit) -> None:
    office = {"X-Relay-API-Key": ADMIN_KEY}
    async with feed(edge, QUEUE, **office) as stream:
        await of(stream, "reset")
        await begin(kit, "first-of-its-team", "newcomers")
        rest = await stream.until("bye")
        cursor = rest[-1].cursor
    async with feed(edge, QUEUE, **office, **{"Last-Event-ID": cursor}) as stream:
        update = await of(stream, "session_update", "first-of-its-team")

    assert update["session"]["team"] == "newcomers"


@pytest.mark.promise("FD-112", "FD-114")
async def test_ten_agents_join_at_once_and_all_see_each_change(edge: Edge, kit: Kit) -> None:
    headers = await bearer(edge, "ann")
    sessions = [f"joined-{n}" for n in range(10)]

    async def join(n: int) -> list[str]:
        async with feed(edge, QUEUE, **headers) as stream:
            await of(stream, "reset")
            joined.release()
            await begun.wait()
            agent = Assignee(f"agent-{n}", f"Agent {n}")
            await kit.ask(Address("session", sessions[n]), TakeOver(agent=agent, force=True))
            seen: set[str] = set()
            while len(seen) < len(sessions):
                update = await of(stream, "session_update")
                if update["session"]["status"] == "manual_live":
                    seen.add(update["session"]["session_name"])
            return sorted(seen & set(sessions))

    joined, begun = asyncio.Semaphore(0), asyncio.Event()
    for name in sessions:
        await begin(kit, name)
    agents = [asyncio.create_task(join(n)) for n in range(10)]
    for _ in agents:
        await joined.acquire()
    begun.set()

    assert await asyncio.gather(*agents) == [sorted(sessions)] * 10
