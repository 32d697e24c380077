"""State that nobody can read: its type stands still, and nothing else."""

import asyncio
from typing import Any

import msgspec

from runtime import Actor, Turn, handler
from runtime.bus import Bus
from runtime.terminal.overview import read_nodes
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address, Message, Request
from schemas.deployment import Deployment
from schemas.record import Record
from tests.integration.rosters import Put, Sum, adder, deploy, followed
from tests.integration.waiting import until_known

A = Address("shelf", "a")


class Kept(Message, tag="shelf.kept"):
    things: list[Any]


class Keep(Request[Kept], tag="shelf.keep"):
    thing: int


class Numbers(msgspec.Struct):
    things: list[int] = []


class Anything(msgspec.Struct):
    things: list[Any] = []


class Shelf(Actor):
    """Keeps numbers."""

    state: Numbers

    @handler
    def keep(self, message: Keep, ctx: Turn) -> Kept:
        self.state.things.append(message.thing)
        return Kept(things=self.state.things)


class WideShelf(Actor):
    """Keeps anything."""

    state: Anything

    @handler
    def keep(self, message: Keep, ctx: Turn) -> Kept:
        self.state.things.append(message.thing)
        return Kept(things=self.state.things)


def shelf(cls: type[Actor]) -> Deployment:
    return Deployment(name="shelf", type=f"{__name__}:{cls.__name__}", kind="keyed")


async def break_state(bus: Bus) -> None:
    """Store what only the other shelf can read."""
    record = Record(stream=bus.created, done=0, key="a", data=msgspec.Raw(b'{"things":["x"]}'))
    headers = {"Nats-Rollup": "sub"}
    await bus.publish(subjects.state("shelf", "a"), msgspec.json.encode(record), headers=headers)


async def paused(kit: Kit) -> list[str]:
    """The hosts on which shelves stand still."""
    return [node.name for node in await read_nodes(kit.bus) if "shelf" in node.paused]


async def test_undecodable_state_pauses_its_type_everywhere_until_it_is_deployed_right() -> None:
    async with running() as kit:
        before = await deploy(kit.bus, shelf(Shelf), adder(1))
        await break_state(kit.bus)
        first = kit.host
        await followed(first, before)
        await kit.start_host()
        second = kit.host
        await kit.tell(A, Keep(thing=1))

        async def both() -> bool:
            return len(await paused(kit)) == 2

        await until_known(both)
        added = await kit.ask(Address("adder", "a"), Put())
        letters = await kit.dead_letters()
        mended = await deploy(kit.bus, shelf(WideShelf), adder(1))
        await asyncio.gather(followed(first, mended), followed(second, mended))
        kept = await kit.ask(A, Keep(thing=2))
        await first.stop(1)
        await first.bus.link.close()

    assert added == Sum(n=1, count=1)
    assert letters == []
    assert kept.things == ["x", 1, 2]
    assert first.paused == second.paused == {}
