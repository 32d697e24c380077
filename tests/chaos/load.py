"""Puts entries into the accounts, in lanes that wait for each acknowledgement before the next."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from runtime.bus import Bus, expiry
from runtime.errors import Unavailable, Unknown
from schemas import subjects
from schemas.base import Address
from schemas.envelope import encode, seal
from tests.chaos.history import History, Operation
from tests.chaos.ledger import KEYS, Enter, key_of

LANES = 40
HOT_KEYS = 3
HOT_LANES = 6
"""Lanes that put entries into each hot key at the same time."""
BURST = 200
BURST_LANE = 999
POISONED = 6
FAILS_ONCE = 17
GIVES_UP = 0.1
"""How many leave it at the first unknown outcome; the others say it again until it is known."""
AT_LEAST = 0.02
TRY_AGAIN = 0.05


@dataclass(frozen=True)
class Amount:
    """How much is put in: at least so many entries, spread over so many seconds."""

    entries: int
    seconds: float


class Load:
    """All lanes. They go on beyond what was planned until they are told that it is enough.

    Unless some are to be `failing`, no entry fails: those behind one that does would wait.
    """

    def __init__(
        self,
        bus: Bus,
        history: History,
        chance: random.Random,
        amount: Amount,
        *,
        failing: bool = True,
    ) -> None:
        self.enough = asyncio.Event()
        self._bus = bus
        self._history = history
        self._chance = chance
        self._amount = amount
        self._numbers: Counter[str] = Counter()
        self._made = 0
        self._confirmed = 0
        self._failing = failing
        every = max(1, amount.entries // (POISONED + 1))
        self._poisoned = {every * (n + 1) for n in range(POISONED if failing else 0)}

    async def run(self) -> None:
        """Put in what was planned, and more until it is enough."""
        lanes = LANES + HOT_KEYS * HOT_LANES
        async with asyncio.TaskGroup() as group:
            for lane in range(LANES):
                keys = [key_of(index) for index in range(HOT_KEYS, KEYS) if index % LANES == lane]
                group.create_task(self._lane(lane, keys, lanes))
            for hot in range(HOT_KEYS):
                for lane in range(HOT_LANES):
                    number = LANES + hot * HOT_LANES + lane
                    group.create_task(self._lane(number, [key_of(hot)], lanes))

    async def burst(self) -> None:
        """Put in many at once, a part of them into the hot keys, so that mail piles up."""
        keys = [key_of(self._chance.randrange(KEYS)) for _ in range(BURST)]
        keys[: BURST // 2] = [key_of(place % HOT_KEYS) for place in range(BURST // 2)]
        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(self._enter(BURST_LANE, key))

    async def _lane(self, lane: int, keys: list[str], lanes: int) -> None:
        pause = self._amount.seconds * lanes / self._amount.entries
        loop = asyncio.get_running_loop()
        due = loop.time() + pause * self._chance.random()
        while self._confirmed < self._amount.entries or not self.enough.is_set():
            await asyncio.sleep(max(AT_LEAST, due - loop.time()))
            # What was missed while the server was away is made up for, but not all at once.
            due = max(due + pause, loop.time() - pause)
            await self._enter(lane, self._chance.choice(keys))

    async def _enter(self, lane: int, key: str) -> None:
        self._made += 1
        self._numbers[key] += 1
        if not self._failing and self._numbers[key] % FAILS_ONCE == 0:
            self._numbers[key] += 1
        operation = Operation(
            id=f"tell-{lane}-{self._made}",
            key=key,
            number=-1 if self._made in self._poisoned else self._numbers[key],
            amount=self._chance.randrange(1, 100),
            how="tell",
            lane=lane,
        )
        patient = self._chance.random() >= GIVES_UP
        self._history.invoke(operation)
        await self._store(operation, patient=patient)

    async def _store(self, operation: Operation, *, patient: bool) -> None:
        to = Address("ledger", operation.key)
        entry = Enter(number=operation.number, amount=operation.amount)
        data = encode(seal(entry, id=operation.id, source="chaos", subject=operation.key))
        headers = {"Nats-Msg-Id": operation.id, **expiry(timedelta(hours=24))}
        while True:
            try:
                ack = await self._bus.publish(subjects.mail(to), data, headers=headers, timeout=2)
            except Unavailable:
                await asyncio.sleep(TRY_AGAIN)
            except Unknown:
                self._history.doubt(operation)
                if not patient:
                    return
                # In a cluster this may be said at once, while the first copy is being stored.
                await asyncio.sleep(TRY_AGAIN)
            else:
                self._confirmed += 1
                self._history.end(operation, seq=ack.seq)
                return
