"""What networks and their operators do to a connection, and that it comes back from all of it."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from runtime import connection as timing
from runtime.bus import Bus, new_id
from runtime.connection import Connection
from runtime.errors import Unavailable, Unknown
from runtime.store.server import EmbeddedServer
from tests.integration.brokers import Broker, broker, cluster
from tests.integration.conftest import Connect
from tests.integration.faults import frozen
from tests.integration.healing import HEALED_WITHIN, healed
from tests.integration.waiting import until
from tests.proxy import Proxy


@pytest.fixture
async def link(bus: Bus, proxy: Proxy, connect: Connect) -> Connection:
    """A connection through the man in the middle."""
    return (await connect(proxy.url)).link


@contextlib.asynccontextmanager
async def connected(urls: list[str], **options: str) -> AsyncIterator[Connection]:
    """A connection of several addresses, opened as processes open theirs."""
    link = Connection(urls, **options)
    async with asyncio.timeout(HEALED_WITHIN):
        await link.open()
    try:
        yield link
    finally:
        await link.close()


def urls(nodes: list[Broker]) -> list[str]:
    return [node.url for node in nodes]


@pytest.fixture
def said() -> Iterator[list[dict[str, object]]]:
    """What is logged meanwhile."""
    with structlog.testing.capture_logs() as lines:
        yield lines  # type: ignore[misc]  # a list of mutable mappings


def told(said: list[dict[str, object]], event: str) -> list[str]:
    return [str(line.get("error", "")) for line in said if line["event"] == event]


# -- which server -------------------------------------------------------------------------------


async def test_when_one_server_of_a_list_dies_the_next_one_on_another_port_is_used(
    nats_server_binary: str, tmp_path: Path
) -> None:
    async with cluster(nats_server_binary, tmp_path) as nodes, connected(urls(nodes)) as link:
        for _ in range(2):
            (used,) = [node for node in nodes if node.url.endswith(link.server)]
            await used.kill()
            await healed(link)
            assert not used.url.endswith(link.server)
            await used.start()


async def test_a_frozen_server_is_left_for_another_one(
    nats_server_binary: str, tmp_path: Path
) -> None:
    async with cluster(nats_server_binary, tmp_path) as nodes, connected(urls(nodes)) as link:
        (used,) = [node for node in nodes if node.url.endswith(link.server)]
        with frozen(used):
            await until(lambda: not used.url.endswith(link.server), HEALED_WITHIN)

            await healed(link)


async def test_a_server_that_will_leave_is_left_before_it_cuts_the_connection(
    nats_server_binary: str, tmp_path: Path, said: list[dict[str, object]]
) -> None:
    heard: list[bytes] = []
    async with cluster(nats_server_binary, tmp_path) as nodes, connected(urls(nodes)) as link:
        link.subscribe("news", lambda packet: heard.append(packet.data))
        await healed(link)
        (used,) = [node for node in nodes if node.url.endswith(link.server)]
        used.retire()
        await until(lambda: link.epoch == 2, HEALED_WITHIN)
        await healed(link)
        link.publish("news", b"once")
        await until(lambda: heard)
        await healed(link)

        assert used.alive
        assert not used.url.endswith(link.server)
    assert heard == [b"once"]
    assert told(said, "nats_server_leaving")
    assert not told(said, "nats_unreachable")


async def test_the_only_server_is_not_left_because_it_says_that_it_will_leave(
    link: Connection, proxy: Proxy
) -> None:
    await healed(link)
    proxy.say(b'INFO {"server_id":"X","version":"2.15.1","max_payload":1024,"ldm":true}\r\n')
    await healed(link)

    assert link.epoch == 1


async def test_a_name_that_cannot_be_resolved_stops_nobody_from_reaching_the_next_server(
    shared_server: EmbeddedServer,
) -> None:
    nowhere = [f"nats://nowhere-{n}.invalid:4222" for n in range(3)]
    async with connected([*nowhere, shared_server.url]) as link:
        link.doubt()
        await until(lambda: link.epoch == 2, HEALED_WITHIN)

        await healed(link)


async def test_servers_that_take_connections_and_say_nothing_stop_nobody_either(
    shared_server: EmbeddedServer,
) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    mute = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    async with connected([f"nats://127.0.0.1:{port}", shared_server.url]) as link:
        await healed(link)
    mute.close()


# -- who we are ---------------------------------------------------------------------------------

USER = "authorization {{ user: u, password: {password} }}\n"


async def test_a_password_that_was_changed_is_said_and_tried_again_without_haste(
    nats_server_binary: str, tmp_path: Path, said: list[dict[str, object]]
) -> None:
    old, new = USER.format(password="s3cret-old"), USER.format(password="s3cret-new")
    async with (
        broker(nats_server_binary, tmp_path, old) as server,
        Proxy(server.port) as proxy,
        connected([proxy.url], user="u", password="s3cret-old") as link,
    ):
        await healed(link)
        server.reload(new)
        await until(lambda: told(said, "nats_unreachable"))
        before, began = proxy.accepted, asyncio.get_running_loop().time()
        await until(lambda: proxy.accepted >= before + 3)
        tries = (proxy.accepted - before) / (asyncio.get_running_loop().time() - began)
        server.reload(old)
        await healed(link)
    (reason,) = told(said, "nats_unreachable")

    assert "does not let us in" in reason
    assert "nats.user" in reason
    assert "s3cret" not in str(said)
    assert tries < 10


# -- the line -----------------------------------------------------------------------------------


async def test_a_line_that_is_reset_again_and_again_costs_no_files_and_no_tasks(
    link: Connection, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a reset each second: only the time between two is shortened."""
    monkeypatch.setattr(timing, "STEADY", 0.0)
    bus = Bus(link)
    await healed(link)
    files, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
    stored = 0
    for n in range(300):
        epoch = link.epoch
        proxy.cut()
        await until(lambda epoch=epoch: link.epoch > epoch, HEALED_WITHIN)  # type: ignore[misc]
        if n % 10 == 0:
            await healed(link)
            await bus.publish("event.reset.a", b"%d" % n)
            stored += 1
    await healed(link)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= files)

    assert len(asyncio.all_tasks()) <= tasks
    assert len(await bus.read_all("event.reset.a", after=0)) == stored


async def test_one_that_is_cut_as_soon_as_it_stands_is_not_dialled_in_a_busy_loop(
    link: Connection, proxy: Proxy
) -> None:
    await healed(link)
    loop = asyncio.get_running_loop()
    began, before = loop.time(), proxy.accepted
    link.on_rebuilt.append(proxy.cut)
    proxy.cut()
    await until(lambda: proxy.accepted >= before + 5)
    rate = (proxy.accepted - before) / (loop.time() - began)
    link.on_rebuilt.remove(proxy.cut)
    await healed(link)

    assert rate < 50


async def test_on_a_slow_line_that_breaks_everything_in_two_all_goes_on(
    link: Connection, proxy: Proxy
) -> None:
    bus = Bus(link)
    proxy.latency, proxy.crumbling = (0.2, 0.4), True
    async with asyncio.timeout(30):
        acks = await asyncio.gather(*(bus.publish(f"event.slow.{n}", b"x") for n in range(50)))
        page = await bus.read_all("event.slow.*", after=0)
    proxy.heal()

    assert len({ack.seq for ack in acks}) == len(page) == 50
    assert link.epoch == 1


async def test_after_a_bit_that_flipped_on_the_way_the_connection_is_right_again(
    link: Connection, proxy: Proxy
) -> None:
    """Of what the server says; no checksum but TCP's guards what is in a payload."""
    bus = Bus(link)
    for n in range(40):
        proxy.flip()
        headers = {"Nats-Msg-Id": new_id()}
        with contextlib.suppress(Exception):  # whatever a broken answer makes of it
            await bus.publish(f"event.flip.{n}", b"x", headers=headers, timeout=0.2)
        await healed(link)
        with contextlib.suppress(Unknown, Unavailable):
            await bus.publish(f"event.flip.{n}", b"x", headers=headers, timeout=2)
    proxy.heal()
    await healed(link)
    stored = await bus.read_all("event.flip.*", after=0)

    assert len({one.subject for one in stored}) == len(stored)
