"""What the chaos test runs on: one embedded server, or three nodes; and how they are broken.

Servers are broken one at a time: the next only when they are whole again.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import httpx

from runtime.store.server import EmbeddedServer
from tests.cluster import PASSWORDS, Cluster, Node, login
from tests.integration.waiting import until_known

Fault = Callable[[], Awaitable[None]]
Log = Callable[[str], None]

WHOLE_WITHIN = 60.0
LOOK_EVERY = 0.2
LEADERLESS = (5.0, 9.0)
"""Seconds for which a node stands still or alone: about as long as the others need to choose."""


class Servers(Protocol):
    """Servers that keep their ports, whatever becomes of them."""

    faults: Mapping[str, Fault]
    """What can be done to them, by name. Each returns when they are as before."""
    replicas: int
    healed: int
    """Nodes that were restarted because they did not recover by themselves."""
    environment: Mapping[str, str]
    """The passwords, for processes that log in."""

    @property
    def ports(self) -> list[int]:
        """Where clients connect."""
        ...

    async def start(self) -> None:
        """Start whatever does not run."""
        ...

    async def kill(self) -> None:
        """End them all at once, as a power cut would."""
        ...

    async def stop(self) -> None:
        """End them for good."""
        ...

    async def roll(self) -> None:
        """Restart one after another, as whoever installs a new version does."""
        ...

    def login(self, user: str) -> dict[str, Any]:
        """How a kind of process connects."""
        ...


class OneServer:
    """The embedded server."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.replicas = 1
        self.healed = 0
        self.environment: Mapping[str, str] = {}
        self.faults: Mapping[str, Fault] = {"server_kill": self._kill_and_start}
        self._chance = chance
        self._server = EmbeddedServer(folder / "store")

    @property
    def ports(self) -> list[int]:
        """Where clients connect."""
        return [self._server.port]

    async def start(self) -> None:
        """Start it."""
        if not self._server.pid:
            await self._server.start()

    async def kill(self) -> None:
        """End it."""
        await self._server.kill()

    async def stop(self) -> None:
        """End it for good."""
        await self._server.stop()

    async def roll(self) -> None:
        """Restart it, in order."""
        await self._server.stop()
        await self._server.start()

    def login(self, user: str) -> dict[str, Any]:
        """It knows no users."""
        return {}

    async def _kill_and_start(self) -> None:
        await self._server.kill()
        await asyncio.sleep(self._chance.uniform(0.05, 0.8))
        await self._server.start()


class ThreeNodes:
    """A cluster that keeps three copies of everything."""

    def __init__(self, folder: Path, binary: str, chance: random.Random) -> None:
        self.replicas = 3
        self.healed = 0
        self.environment: Mapping[str, str] = {
            f"{name.upper()}_PASSWORD": word for name, word in PASSWORDS.items()
        }
        self.faults: Mapping[str, Fault] = {
            "leader_kill": lambda: self._end(signal.SIGKILL, leader=True),
            "leader_term": lambda: self._end(signal.SIGTERM, leader=True),
            "leader_freeze": lambda: self._freeze(leader=True),
            "leader_partition": lambda: self._isolate(leader=True),
            "follower_kill": lambda: self._end(signal.SIGKILL, leader=False),
            "follower_freeze": lambda: self._freeze(leader=False),
            "follower_partition": lambda: self._isolate(leader=False),
        }
        self._chance = chance
        self._cluster = Cluster(folder, binary, piped=True)
        self._started = False

    @property
    def ports(self) -> list[int]:
        """Where clients connect."""
        return [node.port for node in self._cluster.nodes]

    async def start(self) -> None:
        """Start the nodes that do not run, and wait until all are whole."""
        if not self._started:
            self._started = True
            await self._cluster.start()
            return
        for node in self._cluster.nodes:
            if not node.running:
                node.start()
        await self.whole()

    async def kill(self) -> None:
        """End all nodes at once."""
        await asyncio.gather(*(node.end(signal.SIGKILL) for node in self._cluster.nodes))

    async def stop(self) -> None:
        """End them for good."""
        await self._cluster.stop()

    def login(self, user: str) -> dict[str, Any]:
        """Each kind of process has a user of its own."""
        return login(user)

    async def whole(self) -> None:
        """Wait until every node says that it has all it should have.

        One that does not come to that is restarted, as whoever watches over nodes does: its
        share of a stream may never catch up (nats-server 2.15.1). Raises TimeoutError with what
        they say if that does not help.
        """
        if await self._is_whole_within(WHOLE_WITHIN):
            return
        for node in self._cluster.nodes:
            if not await _is_healthy(node):
                self.healed += 1
                await node.end(signal.SIGKILL)
                node.start()
        if not await self._is_whole_within(WHOLE_WITHIN):
            said = {node.name: await _ask(node, "healthz") for node in self._cluster.nodes}
            raise TimeoutError(f"not whole within {WHOLE_WITHIN:g} s: {said}")

    async def _is_whole_within(self, seconds: float) -> bool:
        try:
            await until_known(self._is_whole, seconds)
        except TimeoutError:
            return False
        return True

    async def _is_whole(self) -> bool:
        await asyncio.sleep(LOOK_EVERY)
        return all([await _is_healthy(node) for node in self._cluster.nodes])

    async def roll(self) -> None:
        """Restart one node after another, as whoever installs a new version does."""
        for node in self._cluster.nodes:
            await node.end(signal.SIGTERM)
            node.start()
            await self.whole()

    # -- what is done to them --------------------------------------------------------------

    async def _end(self, number: int, *, leader: bool) -> None:
        node = await self._choose(leader=leader)
        await node.end(number)
        await asyncio.sleep(self._chance.uniform(0.05, 3))
        node.start()
        await self.whole()

    async def _freeze(self, *, leader: bool) -> None:
        node = await self._choose(leader=leader)
        node.send(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(*LEADERLESS))
        node.send(signal.SIGCONT)
        await self.whole()

    async def _isolate(self, *, leader: bool) -> None:
        number = self._cluster.nodes.index(await self._choose(leader=leader))
        self._cluster.isolate(number, hard=self._chance.random() < 0.5)
        await asyncio.sleep(self._chance.uniform(*LEADERLESS))
        self._cluster.join(number)
        await self.whole()

    async def _choose(self, *, leader: bool) -> Node:
        name = await self._leader()
        return self._chance.choice(
            [node for node in self._cluster.nodes if (node.name == name) == leader]
        )

    async def _leader(self) -> str:
        """The name of the node that leads the stream BUS, by the word of any node."""
        for node in self._cluster.nodes:
            for account in (await _ask(node, "jsz?streams=true")).get("account_details", []):
                for stream in account.get("stream_detail", []):
                    if stream["name"] == "BUS" and (name := stream["cluster"].get("leader")):
                        return str(name)
        return self._cluster.nodes[0].name


async def _is_healthy(node: Node) -> bool:
    return (await _ask(node, "healthz")).get("status") == "ok"


async def _ask(node: Node, what: str) -> dict[str, Any]:
    """What a node's monitor says; nothing if it does not."""
    with suppress(httpx.HTTPError):
        async with httpx.AsyncClient(timeout=1, trust_env=False) as client:
            answer: dict[str, Any] = (await client.get(f"{node.monitor}/{what}")).json()
            return answer
    return {}
