"""A node whose copy of the stream is behind: no loss, and nobody waits for it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.errors import BusFault
from runtime.laggards import Laggards
from runtime.pull import ensure_consumer
from runtime.store import blind
from runtime.store.inspection import check_store
from runtime.streams import ensure_streams, read_behind
from tests.cluster import Cluster, login
from tests.integration.waiting import until_known
from tests.proxy import Sieve

CONSUMER = "mail_a_0"
PATIENCE = 30.0


@pytest.fixture
async def cluster(nats_server_binary: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nodes that may be kept from hearing of the stream."""
    cluster = Cluster(tmp_path, nats_server_binary, piped=True, pipe=Sieve)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


@pytest.fixture
async def bus(cluster: Cluster) -> AsyncIterator[Bus]:
    """A host's, with its streams and a consumer."""
    link = Connection(cluster.urls, **login("host"))
    await link.open()
    try:
        bus = Bus(link)
        await until_known(lambda: is_ready(bus), PATIENCE)
        yield bus
    finally:
        await link.close()


async def is_ready(bus: Bus) -> bool:
    try:
        await ensure_streams(bus, replicas=3)
        await ensure_consumer(bus, CONSUMER, filter_subject="mail.*.a.*")
    except BusFault:
        return False
    return True


async def leads(bus: Bus, node: str) -> bool:
    """Whether a node leads the consumer; it is told to, if another does."""
    preferred = {"placement": {"preferred": node}}
    try:
        info = await bus.api(f"CONSUMER.INFO.BUS.{CONSUMER}", timeout=1)
        if info["cluster"]["leader"] == node:
            return True
        await bus.api(f"CONSUMER.LEADER.STEPDOWN.BUS.{CONSUMER}", preferred, timeout=1)
    except BusFault:
        pass  # nobody answers in the middle of a change
    return False


async def waiting(bus: Bus) -> int:
    """How many messages the consumer has to deliver, by the word of whoever leads it."""
    try:
        return int((await bus.api(f"CONSUMER.INFO.BUS.{CONSUMER}", timeout=1))["num_pending"])
    except BusFault:
        return 0


@pytest.mark.timeout(120)
async def test_what_a_node_that_is_behind_does_not_deliver_is_neither_lost_nor_waited_for(
    cluster: Cluster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blind, "MORE_LOOKS", (0.5,))
    stream = (await bus.api("STREAM.INFO.BUS"))["cluster"]
    behind = next(node for node in cluster.nodes if node.name != stream["leader"])
    await until_known(lambda: leads(bus, behind.name), PATIENCE)
    cluster.starve(cluster.nodes.index(behind), stream["raft_group"])
    for _ in range(10):
        await bus.publish("mail.a.k", b"{}")
    await until_known(lambda: read_behind(bus), PATIENCE)
    found = await check_store(bus)
    seen = await bus.api(f"CONSUMER.INFO.BUS.{CONSUMER}")
    watch = Laggards(bus)
    while not await waiting(bus):
        await watch.look()
        await asyncio.sleep(0.05)

    assert found.damages == []
    assert seen["num_pending"] == 0, "the consumer was not blind, so this shows nothing"
    assert await leads(bus, stream["leader"])
