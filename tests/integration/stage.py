"""Several hosts on one server, in this process or in their own, and somebody who writes to them.

Every message to a key carries the next number, so that what was handled shows what was lost,
doubled or reordered.
"""

import asyncio
import contextlib
from collections import Counter as Count
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec

from runtime.bus import Bus, expiry, new_id
from runtime.connection import Connection
from runtime.deployments import seed_deployments
from runtime.errors import BusFault
from runtime.host import Host
from runtime.placement import place
from runtime.system import kind_of, load_class
from runtime.terminal.overview import read_nodes
from schemas import subjects
from schemas.base import Address, Topic
from schemas.deployment import Deployment
from schemas.envelope import decode_any, encode, seal
from schemas.node import Node
from tests.chaos.processes import Process
from tests.integration.counter import Wake
from tests.integration.waiting import PATIENCE, until, until_known

KEYS = [f"k{n}" for n in range(48)]
TYPE = "tests.integration.counter:Counter"
ALL = list(range(subjects.SHARDS))

CONFIG = """
[log]
format = "json"
[host]
name = "{name}"
{more}
[[actor]]
name = "counter"
type = "tests.integration.counter:Counter"
"""


class Stage:
    """What a test starts on one server; `close` ends all of it."""

    def __init__(self, bus: Bus, url: str, folder: Path) -> None:
        self.bus = bus
        self.url = url
        self.sent: Count[str] = Count()
        self.hosts: dict[str, Host] = {}
        self._folder = folder
        self._processes: list[Process] = []

    async def deploy(self, *names: str) -> None:
        """Deploy `Counter` under each name."""
        cls = load_class("counter", TYPE)
        deployments = [Deployment(name=one, type=TYPE, kind=kind_of(cls)) for one in names]
        await seed_deployments(self.bus, deployments)

    async def host(self, name: str, *run: str, url: str = "") -> Host:
        """Run a host here, on a connection of its own."""
        link = Connection([url or self.url])
        await link.open()
        host = self.hosts[name] = Host(Bus(link), name=name)
        await host.start(run)
        return host

    async def leave(self, name: str) -> None:
        """Stop a host as SIGTERM would."""
        host = self.hosts.pop(name)
        await host.stop()
        await host.bus.link.close()

    async def process(self, name: str, more: str = "") -> Process:
        """Run a host in a process of its own."""
        config = self._folder / f"{name}.toml"
        config.write_text(CONFIG.format(name=name, more=more))
        arguments = ["runtime", "host", "--config", str(config), "--nats", self.url]
        process = Process(name, self._folder / f"{name}.log", arguments)
        self._processes.append(process)
        await process.start()
        return process

    async def close(self) -> None:
        """End everything."""
        for process in self._processes:
            await process.kill()
        for host in self.hosts.values():
            await host.stop(0)
            await host.bus.link.close()

    # -- writing ---------------------------------------------------------------------------

    async def write(self, key: str, actor: str = "counter") -> None:
        """Send a key its next message, again and again until it is stored."""
        number = self.sent[key] = self.sent[key] + 1
        sealed = seal(Wake(text=str(number)), id=new_id(), source="test", subject=key)
        headers = {"Nats-Msg-Id": new_id(), **expiry(timedelta(hours=1))}
        while True:
            with contextlib.suppress(BusFault):
                await self.bus.publish(
                    subjects.mail(Address(actor, key)), encode(sealed), headers=headers
                )
                return

    async def write_all(self, actor: str = "counter") -> None:
        """Send every key its next message."""
        await asyncio.gather(*(self.write(key, actor) for key in KEYS))

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Write all the time, to every key in turn."""

        async def go_on() -> None:
            while True:
                for key in KEYS:
                    await self.write(key)
                    await asyncio.sleep(0.001)

        writing = asyncio.create_task(go_on())
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            # The last one may or may not be stored.
            await self.write_all()

    # -- seeing ----------------------------------------------------------------------------

    async def heard(self, key: str) -> list[int]:
        """The numbers that were handled, in order."""
        stored = await self.bus.read_all(subjects.event(Topic("counter", key)), after=0)
        envelopes = [decode_any(one.data) for one in stored]
        return [int(msgspec.json.decode(e.data, type=Wake).text) for e in envelopes]

    async def all_heard(self, timeout: float = PATIENCE) -> None:
        """Wait until the last message to each key was handled; fail unless each was, in order."""
        for key in KEYS:

            async def is_done(key: str = key) -> bool:
                return (await self.heard(key))[-1:] == [self.sent[key]]

            await until_known(is_done, timeout)
            assert await self.heard(key) == list(range(1, self.sent[key] + 1))

    async def nodes(self) -> dict[str, Node]:
        """What the living hosts say of themselves."""
        return {node.name: node for node in await read_nodes(self.bus)}

    async def at_rest(self, *hosts: str, actor: str = "counter", timeout: float = 20) -> None:
        """Wait until each of these owns what it should, as far as it is written to."""
        due: dict[str, list[int]] = {name: [] for name in hosts}
        for shard, where in enumerate(place(actor, frozenset(hosts))):
            due[where.owner].append(shard)

        async def is_so() -> bool:
            # A pin is given with a message.
            await self.write_all(actor)
            nodes = await self.nodes()
            return set(hosts) <= nodes.keys() and all(
                nodes[name].owned.get(actor) == due[name] for name in hosts
            )

        await until_known(is_so, timeout)


async def until_owned(host: Host, shards: list[int], actor: str = "counter") -> None:
    """Wait until a host of this process has just these shards."""
    await until(lambda: host.holdings.owned().get(actor) == shards)
