"""One shard of a keyed type: its owner hands each message to the instance it is for.

Which host is to be the owner is reckoned in runtime/placement.py.
"""

import asyncio
import enum
from collections.abc import Callable
from functools import partial

import structlog

from runtime.careful import Careful
from runtime.errors import BusFault
from runtime.instance import Instance
from runtime.pinned import GROUP, PIN_TIMEOUT, PinnedPull
from runtime.pull import NANOSECONDS, Delivery, ensure_consumer
from runtime.streams import learn_incarnation
from runtime.system import ActorType, System
from schemas import subjects

log = structlog.get_logger()

DRAIN = 0.5
"""Seconds that what is held may take when a shard is given away: new messages wait meanwhile."""
AGAIN = 4.0
MOST_AGAIN = 60.0
"""Seconds until a shard is offered again to a host that did not take it, first and at most."""


class Role(enum.Enum):
    """What this host is to a shard."""

    NOTHING = 0
    STANDBY = 1
    OWNER = 2

    @property
    def pulls(self) -> bool:
        """Whether one in this role asks for messages."""
        return self is not Role.NOTHING


class Shard:
    """Holds the instances of one shard while this host owns it."""

    def __init__(
        self,
        kind: ActorType,
        number: int,
        system: System,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """`moved` is called after this shard was given away."""
        self.kind = kind
        self.number = number
        self.system = system
        self.instances: dict[str, Instance] = {}
        self._held: dict[int, int] = {}
        """The size of each message in hand, by its sequence."""
        self.consumer = subjects.shard_consumer(kind.name, number)
        self.careful = Careful(system, self.consumer)
        self.pull = PinnedPull(system.bus, self.consumer, self, self._create)
        self._moved = moved
        self._role = Role.NOTHING
        self._heir = ""
        """Whom to give it to, if that is not us and he is alive."""
        self._moving: asyncio.Task[None] | None = None
        self._offered = ("", 0.0, AGAIN)

    # -- roles -----------------------------------------------------------------------------

    async def begin(self, role: Role) -> None:
        """Pull, as the owner or as who is next."""
        self._role = role
        await self.pull.start(waits=role is Role.STANDBY)

    def assign(self, role: Role, heir: str) -> None:
        """Become what we are to be, in our own time; say it again and again."""
        self._role, self._heir = role, heir
        if self._moving is None and self._is_to_move():
            self._moving = asyncio.create_task(self._move(), name=f"move {self.consumer}")

    @property
    def is_ours(self) -> bool:
        """Whether we own it: because it is pinned to us, or would be if a message came."""
        return bool(self.pull.pin) or self._role is Role.OWNER

    def doubt_role(self) -> None:
        """Nobody knows who is alive: keep what we have, and win nothing back."""
        self.pull.insists = False
        if self.pull.lost_pin and not self.pull.pin:
            self.pull.waits = True

    def look(self) -> None:
        """Somebody gave it up: if it is to be ours, see what is left in hand."""
        if self._role is Role.OWNER:
            self.pull.look_soon()

    def _is_to_move(self) -> bool:
        if self._role is Role.OWNER:
            return not (self.pull.active and self.pull.insists)
        if self.pull.pin:
            return bool(self._heir) and self._may_offer()
        if self._role is Role.STANDBY:
            return not self.pull.active or self.pull.insists
        return self.pull.active

    async def _move(self) -> None:
        try:
            while self._is_to_move():
                await self._take_step()
        except BusFault as fault:  # the next heartbeat brings us here again
            log.warning("shard_not_moved", consumer=self.consumer, error=str(fault))
        finally:
            self._moving = None

    async def _take_step(self) -> None:
        if self._role is Role.OWNER and self.pull.active:
            self.pull.insist()
        elif self._role.pulls and not self.pull.active:
            await self.begin(self._role)
        elif self.pull.pin:
            await self._hand_over()
        elif self._role is Role.STANDBY:
            self.pull.step_back()
        else:
            self.pull.cease()
            self.drop()

    async def _hand_over(self) -> None:
        heir = self._heir
        before, _, wait = self._offered
        wait = min(wait * 2, MOST_AGAIN) if before == heir else AGAIN
        self._offered = (heir, asyncio.get_running_loop().time() + wait, wait)
        log.info("shard_handed_over", consumer=self.consumer, to=heir, held=self.held)
        await self._leave(DRAIN)
        if self._role.pulls:
            await self.begin(self._role)
        self._moved()

    def _may_offer(self) -> bool:
        heir, not_before, _ = self._offered
        return heir != self._heir or asyncio.get_running_loop().time() > not_before

    async def stop(self, grace: float = 0.0) -> None:
        """Give the shard away, after `grace` seconds at most for what is held.

        What is not finished by then is delivered again to the next owner.
        """
        self._role = Role.NOTHING
        if self._moving:
            self._moving.cancel()
        await self._leave(min(grace, DRAIN))

    async def _leave(self, grace: float) -> None:
        self.pull.cease()
        busy = [one.task for one in self.instances.values() if one.task is not None]
        if busy and grace:
            await asyncio.wait(busy, timeout=grace)
        await self.careful.leave()
        await self.pull.release()
        self.drop()

    # -- messages --------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Messages taken and not yet acknowledged."""
        return len(self._held)

    @property
    def room(self) -> int:
        """Bytes that may be asked for; 0 while the whole host has its hands full."""
        return self.system.held.room(self.system.bus.link.max_payload)

    def take(self, delivery: Delivery) -> None:
        """Hand a message to its instance; a redelivery of what is still held is dropped."""
        if delivery.seq in self._held:
            return
        size = delivery.packet.size
        self._held[delivery.seq] = size
        self.system.held.bytes += size
        self.careful.examine(delivery)
        self._find(subjects.key_token(delivery.packet.subject)).push(delivery)

    def call(self, key: str) -> None:
        """Have the instance of a key, a token, look at what operators have said about it."""
        self._find(key).call()

    def _find(self, key: str) -> Instance:
        instance = self.instances.get(key)
        if instance is None:
            instance = Instance(self.kind, key, self.system, self._settle, self._rest)
            self.instances[key] = instance
        else:
            self.system.idle.wake(instance)
        return instance

    def drop(self) -> None:
        """Forget everything: it will be delivered again."""
        self.careful.drop()
        for instance in self.instances.values():
            self.system.idle.wake(instance)
            instance.stop()
        self.instances.clear()
        self.system.held.bytes -= sum(self._held.values())
        self._held.clear()

    async def take_over(self, floor: int, upto: int) -> None:
        """Be the owner now; another one had been given messages up to `upto`."""
        await self.careful.take_over(floor, upto)

    async def note_orphans(self, upto: int) -> None:
        """Messages up to `upto` were given to an owner who has gone."""
        await self.careful.note_orphans(upto)

    def _settle(self, delivery: Delivery) -> None:
        self.system.held.bytes -= self._held.pop(delivery.seq, 0)
        self.pull.refill()

    def _rest(self, instance: Instance, key: str, cost: int) -> None:
        """It has nothing to do; it stays as long as there is room for its `cost` in bytes."""
        if self.instances.get(key) is instance:
            self.system.idle.rest(instance, cost, partial(self._let_go, key))

    def _let_go(self, key: str) -> None:
        del self.instances[key]

    async def _create(self) -> None:
        # A consumer goes with its stream: the one that is there may be another.
        await learn_incarnation(self.system.bus)
        await ensure_consumer(
            self.system.bus,
            self.consumer,
            filter_subject=subjects.shard_mail(self.kind.name, self.number),
            priority_groups=[GROUP],
            priority_policy="pinned_client",
            priority_timeout=int(PIN_TIMEOUT * NANOSECONDS),
        )
