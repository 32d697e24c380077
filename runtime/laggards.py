"""Takes consumers from a node of a cluster whose copy of the stream is behind.

Whoever pulls from such a node waits for what is stored meanwhile: for minutes, or until the node is
restarted (nats-server 2.15.1). The stream's leader has all of it.
"""

import asyncio

import structlog

from runtime.bus import Bus
from runtime.errors import BusFault, Denied
from runtime.loads import list_consumers
from runtime.store.blind import Blind, find_blind, led_by
from runtime.streams import read_behind

log = structlog.get_logger()

LOOK_EVERY = 2.0
SURE = 3
"""Looks in a row at which a node is behind; one that is fine may be so at any one under load.

At every third, then: of a node that is gone for hours, too, which leads nothing.
"""


class Laggards:
    """The nodes that were behind at the last looks, and how often in a row."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._behind: dict[str, int] = {}
        self._told: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled; where there is one server there is nobody to compare it with."""
        while self._bus.replicas > 1:
            try:
                await self.look()
            except BusFault as fault:
                log.debug("replicas_not_seen", error=str(fault))
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Look once; raises BusFault."""
        behind = await read_behind(self._bus)
        self._behind = {node: self._behind.get(node, 0) + 1 for node in behind}
        self._told &= behind.keys()
        slow = {node for node, looks in self._behind.items() if looks % SURE == 0}
        if slow:
            await self._relieve(slow, next(iter(behind.values())))

    async def _relieve(self, slow: set[str], leader: str) -> None:
        info = await self._bus.api(f"STREAM.INFO.{self._bus.stream}")
        led = [one for one in await list_consumers(self._bus) if led_by(one) in slow]
        blind = await find_blind(self._bus, led, int(info["state"]["last_seq"]))
        for node in sorted({one.node for one in blind} - self._told):
            log.warning("node_behind", node=node, fix="restart it if that lasts for minutes")
            self._told.add(node)
        await asyncio.gather(*(self._move(one, leader) for one in blind))

    async def _move(self, one: Blind, leader: str) -> None:
        """Several hosts may say so at once: all of them name the same node."""
        preferred = {"placement": {"preferred": leader}}
        try:
            await self._bus.api(
                f"CONSUMER.LEADER.STEPDOWN.{self._bus.stream}.{one.name}", preferred
            )
            log.info("consumer_moved", consumer=one.name, **{"from": one.node}, to=leader)
        except Denied as denied:
            log.info("consumer_not_moved", consumer=one.name, error=str(denied))
