"""A node that is cut off from the others is left by its clients, who are served again elsewhere."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime import quorum
from runtime.bus import Bus
from runtime.connection import Connection
from runtime.errors import BusFault
from runtime.quorum import leaving_minorities
from runtime.streams import ensure_streams
from tests.cluster import Cluster, login
from tests.integration.waiting import until, until_known

SERVED_WITHIN = 40.0


@pytest.fixture
async def cluster(nats_server_binary: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nodes that can be cut off from each other."""
    cluster = Cluster(tmp_path, nats_server_binary, piped=True)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


@pytest.fixture
async def bus(cluster: Cluster) -> AsyncIterator[Bus]:
    """A host's, with its streams."""
    link = Connection(cluster.urls, **login("host"))
    await link.open()
    try:
        bus = Bus(link)
        await until_known(lambda: has_streams(bus), 30)
        yield bus
    finally:
        await link.close()


async def has_streams(bus: Bus) -> bool:
    try:
        await ensure_streams(bus, replicas=3)
    except BusFault:
        return False
    return True


async def is_stored(bus: Bus) -> bool:
    try:
        await bus.publish("mail.master.t1", b"{}", headers={"Nats-Msg-Id": "once"}, timeout=2)
    except BusFault:
        return False
    return True


def node_of(cluster: Cluster, bus: Bus) -> int:
    """The number of the node that a client is connected to."""
    return [str(node.port) in bus.link.server for node in cluster.nodes].index(True)


@pytest.mark.timeout(120)
async def test_a_client_whose_node_is_cut_off_goes_to_another(cluster: Cluster, bus: Bus) -> None:
    before = node_of(cluster, bus)
    async with leaving_minorities(bus):
        cluster.isolate(before, hard=False)
        await until_known(lambda: is_stored(bus), SERVED_WITHIN)
    after = node_of(cluster, bus)

    assert after != before


async def test_a_client_stays_where_the_leader_answers(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quorum, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(quorum, "ALONE_AFTER", 1.0)
    asked: list[str] = []
    ask = bus.api

    async def note(name: str, request: object = None, *, timeout: float = 5.0) -> dict[str, object]:
        asked.append(name)
        return await ask(name, request, timeout=timeout)

    monkeypatch.setattr(bus, "api", note)
    epoch = bus.link.epoch
    async with leaving_minorities(bus):
        await until(lambda: len(asked) > 100)

    assert bus.link.epoch == epoch
