"""Leaves a node of a cluster that is cut off from the others: it answers, and stores nothing.

A connection only proves that its own server is alive; who leads the stream may be out of its
reach. Where a single server is known there is nothing better to go to.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from runtime.bus import Bus
from runtime.codes import UNKNOWN_STREAM
from runtime.errors import BusFault, Denied

log = structlog.get_logger()

LOOK_EVERY = 2.0
ALONE_AFTER = 9.0
"""Seconds without the stream's leader. A new one is chosen in up to eight, wherever one is."""


@asynccontextmanager
async def leaving_minorities(bus: Bus) -> AsyncIterator[None]:
    """Go to another node, for as long as this lasts, whenever ours is out of the leader's reach."""
    watch = asyncio.create_task(_watch(bus), name="quorum") if len(bus.link.urls) > 1 else None
    try:
        yield
    finally:
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


async def _watch(bus: Bus) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await bus.link.connected.wait()
        since, epoch = loop.time(), bus.link.epoch
        while not await _is_led(bus) and epoch == bus.link.epoch:
            if loop.time() - since > ALONE_AFTER:
                log.warning("leader_out_of_reach", server=bus.link.server)
                bus.link.doubt()
                break
        await asyncio.sleep(LOOK_EVERY)


async def _is_led(bus: Bus) -> bool:
    """Whether the stream's leader answers, and most of its replicas follow it.

    Takes a while if not.
    """
    began = asyncio.get_running_loop().time()
    try:
        info = await bus.api(f"STREAM.INFO.{bus.stream}", timeout=LOOK_EVERY)
        if "cluster" not in info or _has_majority(info["cluster"]):
            return True
    except Denied as denied:
        if denied.code == UNKNOWN_STREAM:
            return True  # which only those can tell who lead the cluster
    except BusFault as fault:
        log.debug("leader_not_heard", error=str(fault))
    # What is refused at once must not be asked for again at once.
    await asyncio.sleep(max(0.0, began + LOOK_EVERY - asyncio.get_running_loop().time()))
    return False


def _has_majority(cluster: dict[str, Any]) -> bool:
    """A leader that is cut off goes on saying that it leads, but not that others are current."""
    replicas = cluster.get("replicas") or []
    current = sum(bool(replica.get("current")) for replica in replicas)
    return bool(cluster.get("leader")) and 2 * (current + 1) > len(replicas) + 1
