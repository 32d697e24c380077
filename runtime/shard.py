"""One shard of a keyed type: its owner hands each message to the instance it is for."""

import asyncio
from collections import OrderedDict

from runtime.instance import Instance
from runtime.pinned import GROUP, PIN_TIMEOUT, PinnedPull
from runtime.pull import Delivery, ensure_consumer
from runtime.streams import learn_incarnation
from runtime.system import ActorType, System
from schemas import subjects

MOST_IDLE = 2_000
"""Instances of one shard that stay in memory with nothing to do."""


class Shard:
    """Holds the instances of one shard while this host owns it."""

    def __init__(self, kind: ActorType, number: int, system: System) -> None:
        self.kind = kind
        self.number = number
        self.system = system
        self.instances: OrderedDict[str, Instance] = OrderedDict()
        self._held: set[int] = set()
        self.consumer = subjects.shard_consumer(kind.name, number)
        self.pull = PinnedPull(system.bus, self.consumer, self, self._create)

    async def start(self) -> None:
        """Begin to take this shard's messages, as soon as the server gives them to us."""
        await self.pull.start()

    async def stop(self, grace: float = 0.0) -> None:
        """Give the shard away, after `grace` seconds at most for what is held.

        What is not finished by then is delivered again to the next owner.
        """
        self.pull.cease()
        busy = [one.task for one in self.instances.values() if one.task is not None]
        if busy and grace:
            await asyncio.wait(busy, timeout=grace)
        await self.pull.release()
        self.drop()

    @property
    def held(self) -> int:
        """Messages taken and not yet acknowledged."""
        return len(self._held)

    def take(self, delivery: Delivery) -> None:
        """Hand a message to its instance; a redelivery of what is still held is dropped."""
        if delivery.seq in self._held:
            return
        self._held.add(delivery.seq)
        key = subjects.key_token(delivery.packet.subject)
        instance = self.instances.get(key)
        if instance is None:
            instance = Instance(self.kind, key, self.system, self._settle)
            self.instances[key] = instance
        else:
            self.instances.move_to_end(key)
        instance.push(delivery)
        self._evict()

    def drop(self) -> None:
        """Forget everything: it will be delivered again."""
        for instance in self.instances.values():
            instance.stop()
        self.instances.clear()
        self._held.clear()

    def _settle(self, delivery: Delivery) -> None:
        self._held.discard(delivery.seq)
        self.pull.refill()

    def _evict(self) -> None:
        """Let go of the instance that was idle longest, if there are too many."""
        if len(self.instances) <= MOST_IDLE:
            return
        for key, instance in self.instances.items():
            if instance.task is None and not instance.waiting:
                del self.instances[key]
                return

    async def _create(self) -> None:
        # A consumer goes with its stream: the one that is there may be another.
        await learn_incarnation(self.system.bus)
        await ensure_consumer(
            self.system.bus,
            self.consumer,
            filter_subject=subjects.shard_mail(self.kind.name, self.number),
            priority_groups=[GROUP],
            priority_policy="pinned_client",
            priority_timeout=int(PIN_TIMEOUT * 1_000_000_000),
        )
