"""An edge that loses its server: writes are refused at once, streams live on and miss nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from actors.child import Remote
from actors.master import Master
from edge.sse import Streams
from runtime.testing import Kit, running
from tests.integration.edges import Edge, serving
from tests.integration.feed import Block, Feed, feed
from tests.integration.healing import HEALED_WITHIN
from tests.integration.waiting import until, until_known
from tests.proxy import Proxy

LOG_EVENTS = "/api/relay/log/events"
REFUSED_WITHIN = 1.5
"""Seconds, of which the edge may take one; the rest is for a machine that has more to do."""
NOTICED_WITHIN = 3.0
HEARTBEAT = 0.3


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master, far=Remote) as kit:
        yield kit


@pytest.fixture
async def between(kit: Kit) -> AsyncIterator[Proxy]:
    async with Proxy(kit.server.port) as proxy:
        yield proxy


@pytest.fixture
async def edge(between: Proxy) -> AsyncIterator[Edge]:
    """An edge that reaches its server only through a man in the middle."""
    streams = Streams()
    streams.heartbeat = HEARTBEAT
    async with serving(between.url, streams=streams) as edge:
        yield edge


@pytest.fixture
async def other(kit: Kit) -> AsyncIterator[Edge]:
    """An edge that always reaches it."""
    async with serving(kit.server.url) as edge:
        yield edge


def part(proxy: Proxy, *, questions: bool = True, answers: bool = True) -> None:
    """Lose what is said, on the connections there are and on new ones."""
    if questions:
        proxy.deafen()
    if answers:
        proxy.swallow()


async def send(edge: Edge, text: str, key: str = "") -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    body = {"from": "user", "to": "master", "text": text}
    return await edge.post("/api/relay/send", body, headers=headers)


async def is_up(edge: Edge) -> bool:
    return (await edge.get("/health")).status_code == 200


def texts(blocks: list[Block]) -> list[str]:
    return [block.said["order"]["text"] for block in blocks]


@contextlib.asynccontextmanager
async def reading(events: Feed) -> AsyncIterator[list[Block]]:
    """What comes on a stream, while something else is done."""
    found: list[Block] = []

    async def read() -> None:
        while block := await events.next():
            found.append(block)

    task = asyncio.create_task(read())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("questions", "answers"), [(True, True), (False, True), (True, False)], ids=str
)
async def test_writes_are_refused_at_once_and_streams_live_on_without_a_gap(
    edge: Edge, other: Edge, between: Proxy, *, questions: bool, answers: bool
) -> None:
    async with feed(edge, LOG_EVENTS) as events, reading(events) as heard:
        await send(edge, "before")
        await until(lambda: texts(heard) == ["before"])
        part(between, questions=questions, answers=answers)
        async with asyncio.timeout(NOTICED_WITHIN):
            first = await send(edge, "lost", key="k1")
        await until(lambda: not edge.shared.bus.link.connected.is_set(), HEALED_WITHIN)
        for _ in range(3):
            async with asyncio.timeout(REFUSED_WITHIN):
                refused = await send(edge, "refused")
            assert refused.status_code == 503
            assert "retry-after" in refused.headers
        comments = events.comments
        await send(other, "meanwhile")
        await until(lambda: events.comments > comments + 3)
        between.heal()
        between.cut()
        async with asyncio.timeout(HEALED_WITHIN):
            await until_known(lambda: is_up(edge))
        again = await send(edge, "lost", key="k1")
        await send(edge, "after")
        await until(lambda: texts(heard)[-1:] == ["after"])

    assert first.status_code == 503
    assert again.status_code == 200
    assert texts(heard).count("lost") == 1
    assert [text for text in texts(heard) if text != "lost"] == ["before", "meanwhile", "after"]


async def test_what_is_asked_in_the_moment_of_a_partition_ends_in_time(
    edge: Edge, between: Proxy
) -> None:
    task = await edge.send(to="far")
    part(between)
    paths = [f"/api/relay/task-status/{task}", "/api/relay/logs", LOG_EVENTS, "/health"]
    async with asyncio.timeout(HEALED_WITHIN):
        answers = await asyncio.gather(*(edge.get(path) for path in paths))
    between.heal()
    between.cut()

    assert {answer.status_code for answer in answers} == {503}


async def test_connections_and_tasks_of_an_edge_are_as_before_after_many_partitions(
    edge: Edge, between: Proxy
) -> None:
    link = edge.shared.bus.link
    async with feed(edge, LOG_EVENTS) as events, reading(events) as heard:
        await send(edge, "0")
        await until(lambda: heard)
        tasks, listening = len(asyncio.all_tasks()), len(link._subscriptions)
        for n in range(1, 11):
            epoch = link.epoch
            between.cut()
            await until(lambda epoch=epoch: link.epoch > epoch)  # type: ignore[misc]
            assert (await send(edge, str(n))).status_code == 200
        await until(lambda: len(heard) == 11)

        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        await until(lambda: len(link._subscriptions) == listening)
    assert texts(heard) == [str(n) for n in range(11)]
