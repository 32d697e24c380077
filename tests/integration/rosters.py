"""Short words for tests about deploying: actors that can be changed, and how to deploy them."""

import asyncio
from typing import Any, ClassVar

import msgspec

from runtime import Actor, Turn, Work, Worker, handler
from runtime.bus import Bus
from runtime.deployments import read_roster, replace_roster
from runtime.host import Host
from schemas.base import Address, Job, Message, Request
from schemas.deployment import Deployment, Entry, Kind, Roster
from tests.integration.waiting import until


class Sum(Message, tag="adder.sum"):
    n: int
    count: int = 0


class Put(Request[Sum], tag="adder.put"): ...


class Weighed(Message, tag="weigher.weighed"):
    number: int
    unit: str


class Weigh(Job[Weighed], tag="weigher.weigh"):
    number: int
    held: bool = False


class Order(Request[Sum], tag="adder.order"):
    number: int
    held: bool = False


class Seen(Request[Sum], tag="adder.seen"): ...


class AdderState(msgspec.Struct):
    n: int = 0
    count: int = 0
    weighed: list[Weighed] = []


class AdderOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    step: int = 1


class Adder(Actor):
    """Adds its step for each message, and has things weighed."""

    Options: ClassVar[Any] = AdderOptions
    state: AdderState

    @handler
    def put(self, message: Put, ctx: Turn) -> Sum:
        self.state.n += self.options.step
        self.state.count += 1
        return self._sum()

    @handler
    def order(self, message: Order, ctx: Turn) -> Sum:
        weigher = Address("weigher", ctx.key)
        ctx.start(weigher, Weigh(number=message.number, held=message.held))
        return self._sum()

    @handler
    def seen(self, message: Seen, ctx: Turn) -> Sum:
        return self._sum()

    @handler
    def note(self, message: Weighed, ctx: Turn) -> None:
        self.state.weighed.append(message)

    def _sum(self) -> Sum:
        return Sum(n=self.state.n, count=self.state.count)


class Subtracter(Adder):
    """The same the other way round."""

    @handler
    def put(self, message: Put, ctx: Turn) -> Sum:
        self.state.n -= self.options.step
        self.state.count += 1
        return self._sum()


class KeeperOptions(msgspec.Struct, frozen=True):
    token: str = ""
    token_env: str = ""


class Keeper(Adder):
    """Has something to hide."""

    Options: ClassVar[Any] = KeeperOptions


class WeigherOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    unit: str = "g"
    broken: str = ""


class Weigher(Worker):
    """Says its unit. A job that is held waits until `release` is set."""

    Options: ClassVar[Any] = WeigherOptions
    release: ClassVar[asyncio.Event]
    begun: ClassVar[list[int]]
    stopped: ClassVar[list[str]]

    @classmethod
    def reset(cls) -> None:
        """Before each test: an event belongs to a loop."""
        cls.release, cls.begun, cls.stopped = asyncio.Event(), [], []

    async def on_start(self) -> None:
        if self.options.broken:
            raise OSError(self.options.broken)

    async def on_stop(self) -> None:
        self.stopped.append(self.options.unit)

    @handler
    async def weigh(self, job: Weigh, ctx: Work) -> Weighed:
        self.begun.append(job.number)
        if job.held:
            await self.release.wait()
        return Weighed(number=job.number, unit=self.options.unit)


HERE = "tests.integration.rosters"


def adder(step: int = 1, *, cls: str = "Adder", name: str = "adder", **rest: Any) -> Deployment:
    return Deployment(name=name, type=f"{HERE}:{cls}", kind="keyed", options={"step": step}, **rest)


def weigher(unit: str = "g", *, broken: str = "", **rest: Any) -> Deployment:
    options = {"unit": unit, "broken": broken}
    kind: Kind = "worker"
    return Deployment(name="weigher", type=f"{HERE}:Weigher", kind=kind, options=options, **rest)


async def deploy(bus: Bus, *deployments: Deployment, remove: str = "") -> Roster:
    """Deploy live: these are added or changed, and one may be removed."""
    before = await read_roster(bus)
    entries = {one.deployment.name: one for one in before.roster.entries} if before else {}
    entries |= {one.name: Entry(source="live", deployment=one) for one in deployments}
    if remove:
        entries[remove] = msgspec.structs.replace(entries[remove], source="live", removed=True)
    return await replace_roster(bus, before, entries.values(), by="test", note="test")


async def followed(host: Host, roster: Roster) -> None:
    """Wait until a host runs what was deployed."""
    await until(lambda: host.revision >= roster.revision)
