"""Limits that hold over all edges: requests a minute, streams at once, and silence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from actors.session import Session
from edge.rates import BUCKET
from edge.seats import Seats
from runtime.bus import new_id
from runtime.kv import Bucket
from runtime.tables import KeyTable, SupportTable
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.ownership import Customer, SetCustomer
from tests.integration.customers import ACTORS, STREAM, following, say, streaming, text_of
from tests.integration.edges import Edge, serving
from tests.integration.speaking import gate
from tests.integration.waiting import until_known

pytestmark = pytest.mark.asyncio(loop_scope="module")

SITE, VIP, AGENT = (f"sk-{name}-0123456789abcdef012345" for name in ("site", "vip", "agent"))
KEYS = {
    SITE: KeyTable(id="site", secret_env="SITE_KEY"),
    VIP: KeyTable(id="vip", secret_env="VIP_KEY", tier="vip"),
    AGENT: KeyTable(id="desk", secret_env="AGENT_KEY", tier="agent"),
}
LIMITS = SupportTable(open=True, vip_rate=30, streams=12)
HASTY = SupportTable(streams=12, idle=timedelta(seconds=0.6), heartbeat=timedelta(seconds=0.2))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    # As shipped, a VIP gets a person with the first word.
    session = (Session, {"regulator": {"switched_off": True}})
    async with running(**{**ACTORS, "session": session}) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(kit: Kit) -> AsyncIterator[tuple[Edge, Edge]]:
    async with (
        serving(kit.server.url, keys=KEYS, support=LIMITS) as one,
        serving(kit.server.url, keys=KEYS, support=LIMITS) as other,
    ):
        for edge in (one, other):
            del edge.client.headers["X-Relay-API-Key"]
            # A connection that is kept may be closed just when it is used again.
            edge.client.headers["Connection"] = "close"
        yield one, other


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url, support=HASTY) as edge:
        yield edge


async def statuses(edges: tuple[Edge, Edge], count: int, session: str, **more: Any) -> list[int]:
    """What becomes of requests that race on two edges."""
    racing = [say(edges[n % 2], "hello", user_id=session, **more) for n in range(count)]
    return [answer.status_code for answer in await asyncio.gather(*racing)]


# -- requests ------------------------------------------------------------------------------


@pytest.mark.promise("FD-73", "FD-106")
async def test_of_two_hundred_racing_requests_on_two_edges_twenty_pass(
    edges: tuple[Edge, Edge],
) -> None:
    session = new_id()
    found = await statuses(edges, 200, session)
    late = await say(edges[0], "hello", user_id=session)
    stream = await edges[1].post(
        STREAM, {"message": "hi", "user_id": session}, headers={"Content-Type": "application/json"}
    )
    other = await say(edges[0], "hello", user_id=new_id())

    assert sorted(found) == [200] * 20 + [429] * 180
    for refused in (late, stream):
        body = refused.json()
        assert refused.status_code == 429
        assert body["detail"].startswith("Too many requests: 20 in 60 s are allowed")
        assert body["code"] == "rate_limited"
        assert 0 < int(refused.headers["retry-after"]) <= 61
        assert refused.headers["ratelimit-policy"] == '"user";q=20;w=60'
        assert refused.headers["ratelimit"].startswith('"user";r=0;t=')
    assert other.status_code == 200
    assert other.headers["ratelimit"].startswith('"user";r=19;t=')


@pytest.mark.promise("FD-74")
async def test_a_session_of_a_vip_and_the_key_of_one_have_more(
    kit: Kit, edges: tuple[Edge, Edge]
) -> None:
    known = new_id()
    await kit.ask(Address("session", known), SetCustomer(customer=Customer(vip=True)))
    by_session = await statuses(edges, 40, known)
    by_key = [
        say(edges[n % 2], "hello", {"Authorization": f"Bearer {VIP}"}, user_id=known + "-2")
        for n in range(40)
    ]

    assert sorted(by_session) == [200] * 30 + [429] * 10
    assert sorted(a.status_code for a in await asyncio.gather(*by_key)) == [200] * 30 + [429] * 10


@pytest.mark.promise("FD-75")
async def test_the_key_of_an_agent_has_no_limit(edges: tuple[Edge, Edge]) -> None:
    headers, session = {"Authorization": f"Bearer {AGENT}"}, new_id()
    asked = [say(edges[n % 2], "hello", headers, user_id=session) for n in range(60)]
    answers = await asyncio.gather(*asked)

    assert {answer.status_code for answer in answers} == {200}
    assert "ratelimit" not in answers[0].headers


async def test_who_names_no_session_counts_as_somebody_else_each_time(
    edges: tuple[Edge, Edge],
) -> None:
    answers = await asyncio.gather(*(say(edges[n % 2], "hello") for n in range(30)))

    assert {answer.status_code for answer in answers} == {200}


async def test_an_address_may_have_a_limit_of_its_own(kit: Kit) -> None:
    limits = SupportTable(open=True, address_rate=5)
    async with serving(kit.server.url, support=limits) as edge:
        answers = await asyncio.gather(*(say(edge, "hello", user_id=new_id()) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 3


# -- streams -------------------------------------------------------------------------------


@pytest.mark.promise("FD-76", "FD-77")
async def test_a_user_has_three_streams_over_all_edges_until_one_ends(
    edges: tuple[Edge, Edge],
) -> None:
    session = new_id()
    async with AsyncExitStack() as stack:
        query = f"session_name={session}"
        first = await stack.enter_async_context(following(edges[0], query))
        await stack.enter_async_context(following(edges[1], query))
        said = streaming(edges[0], f"wait {session}", user_id=session)
        stream = await stack.enter_async_context(said)
        async with following(edges[1], query) as fourth:
            refused = fourth.response
        async with streaming(edges[0], "hello", user_id=session) as fifth:
            assert fifth.response.status_code == 429
        async with following(edges[1], f"session_name={new_id()}") as other:
            assert other.response.status_code == 200
        gate(session).set()
        await stream.rest()

        async def is_free() -> bool:
            async with following(edges[1], query) as again:
                return again.response.status_code == 200

        assert await until_known(is_free)
        await first.response.aclose()

    assert refused.status_code == 429
    assert refused.json()["detail"] == "Too many concurrent connections: 3 are open"
    assert refused.json()["code"] == "too_many_streams"
    assert int(refused.headers["retry-after"]) > 0


async def test_racing_streams_of_one_user_never_get_more_than_three_seats(kit: Kit) -> None:
    user, held, release = new_id(), 0, asyncio.Event()
    several = [Seats(Bucket(kit.bus, BUCKET), per_user=3, in_total=100) for _ in range(3)]

    async def sit(seats: Seats) -> bool:
        nonlocal held
        try:
            async with seats.held(user):
                held += 1
                await release.wait()
                return True
        except Exception:
            return False

    sitting = [asyncio.create_task(sit(several[n % 3])) for n in range(30)]
    await until_known(lambda: _done(sitting, 27))
    assert held == 3
    release.set()
    assert sum(await asyncio.gather(*sitting)) == 3
    await asyncio.gather(*(seats.close() for seats in several))


async def _done(tasks: list[asyncio.Task[bool]], count: int) -> bool:
    return sum(task.done() for task in tasks) >= count


@pytest.mark.promise("FD-77")
async def test_the_seats_of_an_edge_that_is_gone_lapse(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.seats.ALIVE", timedelta(seconds=1))
    monkeypatch.setattr("edge.seats.SAY_EVERY", 0.2)
    user = new_id()
    killed, other = (
        Seats(Bucket(kit.bus, BUCKET), per_user=3, in_total=100, name=new_id()) for _ in range(2)
    )
    stack = AsyncExitStack()
    for _ in range(3):
        await stack.enter_async_context(killed.held(user))

    async def is_free() -> bool:
        try:
            async with other.held(user):
                return True
        except Exception:
            return False

    assert not await is_free()
    assert killed._alive is not None
    killed._alive.cancel()
    assert await until_known(is_free)
    await stack.aclose()
    await asyncio.gather(killed.close(), other.close())


@pytest.mark.promise("FD-78")
async def test_all_users_together_have_so_many_streams_over_all_edges(
    edges: tuple[Edge, Edge],
) -> None:
    async with AsyncExitStack() as stack:
        opened = []
        for n in range(16):
            feed = await stack.enter_async_context(following(edges[n % 2]))
            opened.append(feed.response.status_code)

    async def is_free() -> bool:
        async with following(edges[0]) as feed:
            return feed.response.status_code == 200

    assert sorted(opened) == [200] * 12 + [503] * 4
    assert await until_known(is_free)


# -- silence -------------------------------------------------------------------------------


@pytest.mark.promise("FD-79", "FD-97")
async def test_a_feed_without_an_event_ends_although_its_heart_beats(
    hasty: Edge,
) -> None:
    async with following(hasty, f"session_name={new_id()}") as feed:
        told = await feed.rest()

    assert [each["type"] for each in told] == ["connected", "idle"]
    assert feed.comments >= 3
    assert feed.retry > 0


async def test_an_answer_that_stalls_is_told_to_have_ended(hasty: Edge) -> None:
    session = new_id()
    async with streaming(hasty, f"wait {session}", user_id=session) as stream:
        told = await stream.rest()
    gate(session).set()

    assert text_of(told) == "one "
    assert [each["type"] for each in told][-2:] == ["error", "done"]
    assert told[-1]["reason"] == "idle"


@pytest.mark.promise("FD-103")
async def test_how_many_streams_are_open_is_told(kit: Kit) -> None:
    async with serving(kit.server.url) as edge:

        async def look() -> tuple[int, int]:
            health = (await edge.get("/api/health")).json()
            return health["sse_connections"], health["sse_limit"]

        async def is_empty() -> bool:
            return (await look())[0] == 0

        before = await look()
        async with following(edge) as feed:
            await feed.of("connected")
            during = await look()
        assert await until_known(is_empty)

    assert (before, during) == ((0, 1000), (1, 1000))
