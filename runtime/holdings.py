"""The shards of one host: which it is to own, to stand by for, or to leave to others."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain, islice

import structlog

from runtime.neighbours import Neighbours
from runtime.placement import Place, place
from runtime.shard import Role, Shard
from runtime.system import ActorType, System
from schemas.node import Failing
from schemas.subjects import SHARDS, shard_of_token

log = structlog.get_logger()

LOOK_EVERY = 0.5
MOST_FAILING = 20

Patiently = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]


class Holdings:
    """Every keyed type of this host, 16 shards each, in the roles that follow from who is alive."""

    def __init__(self, system: System, neighbours: Neighbours, moved: Callable[[], None]) -> None:
        """`moved` is called when others should hear what we own or run now."""
        self.shards: dict[str, list[Shard]] = {}
        self._system = system
        self._neighbours = neighbours
        self._moved = moved
        self._resting: set[str] = set()
        neighbours.on_change = self.apply

    def all(self) -> list[Shard]:
        """Every shard of every type."""
        return [shard for shards in self.shards.values() for shard in shards]

    def owned(self) -> dict[str, list[int]]:
        """By type, the shards that are pinned to us."""
        return {
            name: [shard.number for shard in shards if shard.pull.pin]
            for name, shards in self.shards.items()
        }

    def failing(self) -> list[Failing]:
        """Some of our keys that wait: because their first message fails, or they are paused."""
        paused = (
            Failing(address=one.address, seq=0, tries=0, reason=one.says)
            for (name, key), one in self._system.controls.keys.items()
            if one.paused
            and name in self.shards
            and self.shards[name][shard_of_token(name, key)].is_ours
        )
        return list(islice(chain(self._system.failing.values(), paused), MOST_FAILING))

    async def add(self, kind: ActorType, patiently: Patiently) -> None:
        """Take part for a type; returns once what is ours is pulled."""
        shards = [Shard(kind, n, self._system, self._moved) for n in range(SHARDS)]
        self.shards[kind.name] = shards
        self._resting.discard(kind.name)
        places = self._places(kind.name)
        mine = [(shard, self._role(places[shard.number])) for shard in shards]
        await asyncio.gather(
            *(patiently(partial(shard.begin, role)) for shard, role in mine if role.pulls)
        )
        self._moved()

    async def remove(self, name: str, grace: float) -> None:
        """Take part no more."""
        shards = self.shards.pop(name, [])
        self._moved()
        await asyncio.gather(*(shard.stop(grace) for shard in shards))

    async def rest(self, name: str, grace: float = 0.0) -> None:
        """Take nothing more of a type, until it is added again."""
        self._resting.add(name)
        await asyncio.gather(*(shard.stop(grace) for shard in self.shards.get(name, ())))

    async def stop(self, grace: float) -> None:
        """Give everything away, after `grace` seconds at most."""
        self._resting.update(self.shards)
        await asyncio.gather(*(shard.stop(grace) for shard in self.all()))

    async def keep(self) -> None:
        """Look again and again whether anything is to change, until cancelled."""
        while True:
            self._neighbours.sweep()
            self.apply()
            await asyncio.sleep(LOOK_EVERY)

    def apply(self) -> None:
        """Give every shard the role that is ours by what is known now."""
        given_up, self._neighbours.given_up = self._neighbours.given_up, set()
        for name, shards in self.shards.items():
            if name in self._resting:
                continue
            if self._neighbours.deaf:
                for shard in shards:
                    shard.doubt_role()
                continue
            for shard, where in zip(shards, self._places(name), strict=True):
                self._assign(shard, where)
                if (name, shard.number) in given_up:
                    shard.look()

    def call(self, name: str, key: str) -> bool:
        """Have an instance look at what operators have said about it; False if it is not ours.

        Where a type rests nobody owns it: all may try, and the broker lets one have it.
        """
        if not (shards := self.shards.get(name)):
            return False
        shard = shards[shard_of_token(name, key)]
        if not (shard.is_ours or name in self._resting):
            return False
        shard.call(key)
        return True

    def _places(self, name: str) -> tuple[Place, ...]:
        return place(name, frozenset({*self._neighbours.running(name), self._system.name}))

    def _role(self, where: Place) -> Role:
        if where.owner == self._system.name:
            return Role.OWNER
        return Role.STANDBY if where.standby == self._system.name else Role.NOTHING

    def _assign(self, shard: Shard, where: Place) -> None:
        # To give a shard to one who has died meanwhile, or is frozen, would be an outage.
        alive = self._neighbours.heard_since(where.owner, shard.pull.pinned_at)
        shard.assign(self._role(where), where.owner if alive else "")
