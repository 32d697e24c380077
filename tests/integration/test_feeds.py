"""Following over HTTP: where a client left off, who reads slowly, and who leaves."""

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import pytest_asyncio

from actors.child import Child, Remote
from actors.master import Master
from edge.sse import IN_TOTAL, PER_KEY, PER_PRINCIPAL, Streams
from runtime.bus import expiry, new_id
from runtime.testing import Kit, running
from schemas import subjects
from schemas.envelope import encode, seal
from schemas.relay import LOG, Logged
from tests.integration.edges import AS_RELAY, KEY, Edge, serving
from tests.integration.feed import Block, feed
from tests.integration.tasks import CALLABLE
from tests.integration.waiting import until, until_known
from tests.integration.wire import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOG_EVENTS = "/api/relay/log/events"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master, child=(Child, CALLABLE), far=Remote) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


def names(blocks: list[Block]) -> list[str]:
    return [block.name for block in blocks]


def cursors(blocks: list[Block]) -> list[int]:
    return [int(block.cursor) for block in blocks]


def texts(blocks: list[Block]) -> list[str]:
    return [block.said["order"]["text"] for block in blocks]


async def complete(edge: Edge, task_id: str) -> None:
    body = {"task_id": task_id, "child_id": "c1", "result": {}}
    assert (await edge.post("/api/relay/callback", body)).status_code == 200


async def newest(kit: Kit) -> int:
    stored = await kit.bus.last(subjects.event(LOG))
    return stored.seq if stored else 0


# -- following --------------------------------------------------------------------------------


@pytest.mark.promise("CB-02")
async def test_a_task_is_followed_from_its_beginning_to_its_end(edge: Edge) -> None:
    task_id = await edge.send(to="far", payload={"x": "命盘"})
    async with feed(edge, f"/api/relay/tasks/{task_id}/events") as events:
        before = await events.take(1)
        await complete(edge, task_id)
        after = await events.take(1)
        headers, retry, comments = events.response.headers, events.retry, events.comments

    assert names(before + after) == ["task.created", "task.completed"]
    assert before[0].said["order"]["payload"] == {"x": "命盘"}
    assert before[0].data["specversion"] == "1.0"
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert 1000 <= retry <= 4000
    assert comments == 1


async def test_a_task_may_be_followed_long_after_it_has_ended(edge: Edge) -> None:
    task_id = await edge.send(to="child")
    path = f"/api/relay/tasks/{task_id}/events"
    async with feed(edge, path) as events:
        first = await events.until("task.completed")
    async with feed(edge, path) as events:
        again = await events.until("task.completed")

    assert again == first


async def test_the_log_is_followed_from_now_on_and_its_cursor_is_told_at_once(
    kit: Kit, edge: Edge
) -> None:
    await edge.say("before")
    async with feed(edge, LOG_EVENTS) as events:
        text = secrets.token_hex(4)
        await edge.say(text)
        (block,) = await events.take(1)
    async with edge.client.stream("GET", LOG_EVENTS) as response:
        head = await anext(response.aiter_text())

    assert texts([block]) == [text]
    assert f"\nid: {await newest(kit)}\n\n" in head


async def test_a_client_goes_on_where_it_left_off(kit: Kit, edge: Edge) -> None:
    start = await newest(kit)
    for n in range(5):
        await edge.say(f"{n}")
    async with feed(edge, f"{LOG_EVENTS}?after={start}") as events:
        whole = await events.take(5)
    for left in range(5):
        cursor = whole[left].cursor
        path = f"{LOG_EVENTS}?after={start}"
        await edge.say("more")
        async with feed(edge, path, **{"Last-Event-ID": cursor}) as events:
            rest = await events.take(4 - left)

        # The header is what the browser knows; the query is what it began with.
        assert rest == whole[left + 1 :]
    assert texts(whole) == ["0", "1", "2", "3", "4"]


async def test_another_edge_gives_the_same_rest(kit: Kit, edge: Edge) -> None:
    start = await newest(kit)
    async with serving(kit.server.url) as other, feed(edge, LOG_EVENTS) as events:
        for n in range(10):
            await (edge if n % 2 else other).say(f"{n}")
        here = await events.take(10)
        async with feed(other, LOG_EVENTS, **{"Last-Event-ID": here[3].cursor}) as elsewhere:
            there = await elsewhere.take(6)

    assert there == here[4:]
    assert sorted(texts(here)) == [f"{n}" for n in range(10)]
    assert cursors(here)[0] > start


async def test_a_cursor_that_is_not_of_this_log_resets_the_client(kit: Kit, edge: Edge) -> None:
    task_id = await edge.send()
    future = f"{await newest(kit) + 100_000}"
    async with feed(edge, LOG_EVENTS, **{"Last-Event-ID": future}) as events:
        (reset,) = await events.take(1)
        await edge.say("after")
        (block,) = await events.take(1)
    async with feed(edge, f"/api/relay/tasks/{task_id}/events?after={future}") as events:
        (task_reset,) = await events.take(1)
        await complete(edge, task_id)
        (completed,) = await events.take(1)

    assert reset.name == task_reset.name == "reset"
    assert reset.data["snapshot"][-1]["task_id"] == task_id
    assert int(reset.cursor) < int(block.cursor)
    assert texts([block]) == ["after"]
    assert task_reset.data["snapshot"]["task_status"] == "pending"
    assert "cursor" in task_reset.data["reason"]
    assert completed.name == "task.completed"


async def test_nobody_follows_a_task_that_is_not_there(edge: Edge) -> None:
    answer = await edge.get("/api/relay/tasks/t_0/events")
    both = await edge.get("/api/relay/tasks/t_0/events", headers={"Last-Event-ID": "3"})

    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
    assert both.text == answer.text
    assert edge.shared.streams.count == 0


async def test_events_come_while_they_happen(edge: Edge) -> None:
    """Each is waited for before the next is said, so none can have been held back."""
    async with feed(edge, LOG_EVENTS) as events:
        for n in range(20):
            await edge.say(f"{n}")
            assert texts(await events.take(1)) == [f"{n}"]


async def test_a_silent_stream_is_kept_alive(kit: Kit) -> None:
    streams = Streams()
    streams.heartbeat = 0.02
    async with serving(kit.server.url, streams=streams) as edge, feed(edge, LOG_EVENTS) as events:
        waiting = asyncio.create_task(events.next())
        await until(lambda: events.comments > 3)
        await edge.say("at last")
        block = await waiting

    assert block is not None
    assert texts([block]) == ["at last"]


# -- who reads slowly, and who leaves ---------------------------------------------------------


async def fill_log(kit: Kit, count: int, size: int) -> list[int]:
    """Put long lines into the log, as a master would; returns their sequences."""
    found = []
    for n in range(count):
        line = Logged(event="ack", at=datetime.now(UTC), by=f"{n:06}" + "x" * size)
        sealed = encode(seal(line, id=new_id(), source="test", subject=LOG.id))
        ttl = expiry(timedelta(days=30))
        found.append((await kit.bus.publish(subjects.event(LOG), sealed, headers=ttl)).seq)
    return found


async def test_who_reads_slowly_gets_everything_from_the_log(kit: Kit, edge: Edge) -> None:
    """Far more is said than sockets and queues hold, and nothing is read meanwhile."""
    async with feed(edge, LOG_EVENTS) as events:
        said = await fill_log(kit, 600, 30_000)
        assert edge.shared.streams.count == 1
        heard = cursors(await events.take(600))
        await edge.say("last")
        last = await events.take(1)

    assert heard == said
    assert texts(last) == ["last"]


@pytest.mark.parametrize("at_all", [False, True])
async def test_who_does_not_read_is_dropped_and_costs_the_others_nothing(
    kit: Kit, at_all: bool
) -> None:
    streams = Streams()
    streams.write_within = 1.0
    async with serving(kit.server.url, streams=streams) as edge:
        dead = await Wire.open(edge.port, limit=1024)
        dead.send(f"GET {LOG_EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await until(lambda: streams.count == 1)
        sipping = asyncio.create_task(sip(dead)) if at_all else None
        async with feed(edge, LOG_EVENTS) as events:
            reading = asyncio.create_task(events.take(400))
            said = await fill_log(kit, 400, 50_000)
            heard = cursors(await reading)
            await until(lambda: streams.count == 1)
        if sipping:
            sipping.cancel()
        await dead.close()

    assert heard == said


async def sip(wire: Wire) -> None:
    """Read a byte now and then, as who would keep a server busy for ever."""
    while True:
        await wire.reader.read(1)
        await asyncio.sleep(0.01)


async def test_streams_that_come_and_go_leave_nothing_behind(edge: Edge) -> None:
    async def visit(how: int) -> None:
        wire = await Wire.open(edge.port)
        wire.send(f"GET {LOG_EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        if how % 2:
            await wire.answer()
        await wire.close()

    await asyncio.gather(*(visit(n) for n in range(200)))
    await until(lambda: edge.shared.streams.count == 0)
    await until(lambda: edge.shared.hub.topics == 0)


async def test_a_connection_that_is_reset_or_half_closed_is_not_counted_any_more(
    edge: Edge,
) -> None:
    for linger in (False, True):
        raw = socket.create_connection(("127.0.0.1", edge.port))
        raw.sendall(f"GET {LOG_EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await until(lambda: edge.shared.streams.count == 1)
        if linger:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            raw.shutdown(socket.SHUT_WR)
        raw.close()
        await edge.say("to nobody")
        await until(lambda: edge.shared.streams.count == 0)


# -- how many ---------------------------------------------------------------------------------


async def test_one_key_may_have_a_hundred_streams_and_anonymous_ones_do_not_count(
    edge: Edge,
) -> None:
    async with contextlib.AsyncExitStack() as opened:
        for _ in range(PER_KEY):
            await opened.enter_async_context(feed(edge, LOG_EVENTS, **AS_RELAY))
        for _ in range(4):
            await opened.enter_async_context(feed(edge, LOG_EVENTS))
        refused = await edge.get(LOG_EVENTS, headers=AS_RELAY)
        health = (await edge.get("/health")).json()
    await until(lambda: edge.shared.streams.count == 0)

    assert (PER_PRINCIPAL, PER_KEY, IN_TOTAL) == (3, 100, 1000)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert "retry-after" in refused.headers
    assert health["streams"] == 104


async def test_one_stream_more_than_all_may_have_is_refused(kit: Kit) -> None:
    streams = Streams(in_total=1)
    async with serving(kit.server.url, streams=streams) as edge, feed(edge, LOG_EVENTS):
        refused = await edge.get(LOG_EVENTS)

    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")
    assert "retry-after" in refused.headers


async def test_a_thousand_clients_may_come_back_at_the_same_moment(kit: Kit) -> None:
    async with serving(kit.server.url) as edge:
        before = await newest(kit)
        await edge.say("missed")
        path = f"{LOG_EVENTS}?after={before}"
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        wires = [await Wire.open(edge.port) for _ in range(IN_TOTAL)]
        for wire in wires:
            wire.send(request)
        heads = await asyncio.gather(*(wire.answer() for wire in wires))
        begun = await asyncio.gather(*(wire.until(b"missed") for wire in wires))
        await edge.say("heard by all")
        heard = await asyncio.gather(*(wire.until(b"heard by all") for wire in wires))
        topics = edge.shared.hub.topics
        await asyncio.gather(*(wire.close() for wire in wires))
        await until(lambda: edge.shared.streams.count == 0)
    pauses = {text.partition(b"retry: ")[2].partition(b"\n")[0] for text in begun}

    assert {head.status for head in heads} == {200}
    assert len(pauses) > 100
    assert {text.count(b"event: relay.logged") for text in heard} == {1}
    assert topics == 1


# -- when the edge, or what it stands on, goes away -------------------------------------------


async def test_an_edge_that_stops_says_goodbye_and_closes(kit: Kit) -> None:
    async with serving(kit.server.url) as edge:
        async with feed(edge, LOG_EVENTS) as events, feed(edge, LOG_EVENTS) as others:
            edge.stop.set()
            goodbyes = [await each.take(1) for each in (events, others)]
            ends = [await each.next() for each in (events, others)]
        code = await asyncio.wait_for(edge.task, 8)
        with pytest.raises(httpx.ConnectError):
            await edge.get("/health")

    assert [names(each) for each in goodbyes] == [["bye"], ["bye"]]
    assert ends == [None, None]
    assert code == 0


async def test_who_follows_does_not_notice_that_the_server_was_away() -> None:
    """Streams stay open, and what was said by others meanwhile comes, once and in order."""
    async with (
        running(master=Master, far=Remote) as kit,
        serving(kit.server.url) as edge,
        feed(edge, LOG_EVENTS) as events,
    ):
        await edge.say("0")
        first = await events.take(1)
        await kit.server.kill()
        await until(lambda: not edge.shared.bus.link.connected.is_set())
        refused = await edge.post("/api/relay/send", {"from": "a", "to": "b"})
        health = await edge.get("/health")
        await kit.server.start()
        await until_known(lambda: is_ready(edge))
        await edge.say("1")
        rest = await events.take(1)

    assert texts(first + rest) == ["0", "1"]
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert "retry-after" in refused.headers
    assert health.status_code == 503
    assert health.json()["nats"] == "not connected"
    assert KEY not in health.text


async def is_ready(edge: Edge) -> bool:
    return (await edge.get("/health")).status_code == 200
