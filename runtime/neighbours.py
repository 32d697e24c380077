"""Which hosts are alive, as one host hears it: from heartbeats (runtime/heartbeat.py).

Who can hear nothing, not even itself, believes nothing new about anybody.
"""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from runtime.bus import Bus
from runtime.errors import BusFault
from runtime.heartbeat import BUCKET, EVERY, TTL
from runtime.kv import Bucket
from schemas.base import token
from schemas.envelope import UNREADABLE
from schemas.node import PREFIX, Node

log = structlog.get_logger()

SILENCE = 2.5 * EVERY
"""Seconds without a word of our own after which we take ourselves for deaf."""
LAPSE = TTL.total_seconds()

_decode = msgspec.json.Decoder(Node).decode


class Neighbours:
    """The other hosts that were heard of in the last seconds, and what they said."""

    def __init__(self, bus: Bus, me: str, process: int) -> None:
        """`me` is our own name, `process` our id: somebody else may go by the same name."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a host came, left, runs other types, or gave up shards."""
        self.on_lapse: Callable[[str], None] = lambda host: None
        """Called with the name of a host that was silent for too long."""
        self.given_up: set[tuple[str, int]] = set()
        """Shards that somebody gave up since this was last emptied."""
        self._bus = bus
        self._me = PREFIX + token(me)
        self._process = process
        self._nodes: dict[str, Node] = {}
        self._heard: dict[str, float] = {}
        self._own = 0.0
        self._namesake = False
        self._sid = 0

    async def open(self) -> None:
        """Learn who is there, then listen."""
        self._own = asyncio.get_running_loop().time()
        self._sid = Bucket(self._bus, BUCKET).follow(self._hear)
        try:
            found = await Bucket(self._bus, BUCKET).all()
        except BusFault as fault:
            log.warning("hosts_not_known", error=str(fault))
            return
        for key, stored in found.items():
            if key != self._me and key not in self._nodes:
                self._hear(key, stored.data)

    def close(self) -> None:
        """Listen no more."""
        self._bus.unsubscribe(self._sid)

    @property
    def deaf(self) -> bool:
        """Whether not even our own words come back."""
        return asyncio.get_running_loop().time() - self._own > SILENCE

    @property
    def namesake(self) -> bool:
        """Whether another process was heard that goes by our name."""
        return self._namesake

    @property
    def alone(self) -> bool:
        """Whether there is nobody else."""
        return not self._nodes

    def running(self, actor: str) -> set[str]:
        """The other hosts that take messages of a type."""
        return {
            node.name
            for node in self._nodes.values()
            if actor in node.actors and actor not in node.paused
        }

    def heard_since(self, host: str, moment: float) -> bool:
        """Whether a host said something after a moment of the loop's clock."""
        return self._heard.get(PREFIX + token(host), 0.0) > moment

    def sweep(self) -> None:
        """Take for gone whoever was silent too long while we could hear."""
        if self.deaf:
            return
        now = asyncio.get_running_loop().time()
        lapsed = [key for key, heard in self._heard.items() if now - heard > LAPSE]
        for key in lapsed:
            name = self._nodes[key].name
            log.warning("host_lapsed", host=name)
            self._forget(key)
            self.on_lapse(name)
        if lapsed:
            self.on_change()

    def _hear(self, key: str, value: bytes | None) -> None:
        if not key.startswith(PREFIX):
            return
        if key == self._me:
            self._hear_own(value)
        elif value is None:
            if key in self._nodes:
                log.info("host_left", host=self._nodes[key].name)
                self._forget(key)
                self.on_change()
        else:
            self._hear_other(key, value)

    def _hear_other(self, key: str, value: bytes) -> None:
        try:
            node = _decode(value)
        except UNREADABLE as error:
            log.warning("heartbeat_unreadable", key=key, error=str(error))
            return
        before = self._nodes.get(key)
        self._nodes[key] = node
        self._heard[key] = asyncio.get_running_loop().time()
        if before is None:
            log.info("host_joined", host=node.name, actors=node.actors)
        gave_up = _owned(before) - _owned(node) if before else set()
        self.given_up |= gave_up
        if before is None or gave_up or _runs(before) != _runs(node):
            self.on_change()

    def _hear_own(self, value: bytes | None) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._own > SILENCE:
            # What we could not hear is not held against the others.
            self._heard = dict.fromkeys(self._heard, now)
        self._own = now
        if value is None or self._namesake:
            return
        try:
            process = _decode(value).pid
        except UNREADABLE:
            return
        if process != self._process:
            self._namesake = True
            log.error("host_name_taken", key=self._me, by_pid=process, fix="set another host.name")

    def _forget(self, key: str) -> None:
        del self._nodes[key], self._heard[key]


def _runs(node: Node) -> tuple[list[str], set[str]]:
    return node.actors, set(node.paused)


def _owned(node: Node) -> set[tuple[str, int]]:
    return {(actor, shard) for actor, shards in node.owned.items() for shard in shards}
