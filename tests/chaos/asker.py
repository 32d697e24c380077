"""A process that asks accounts and journals what it was answered; it may be killed.

    python -m tests.chaos.asker URL JOURNAL SEED COUNT SECONDS [REPLICAS]

Started again on the same journal, it repeats what was not answered under the same ids. It logs
in as an edge if EDGE_PASSWORD is set.
"""

import asyncio
import contextlib
import os
import random
import sys
import time
from pathlib import Path

from runtime.ask import MAIL_TTL, Origin, ask
from runtime.bus import Bus, expiry
from runtime.connection import Connection
from runtime.errors import BusFault, Refused, RuntimeFault
from runtime.log import configure
from runtime.streams import ensure_streams
from schemas import subjects
from schemas.base import Address
from schemas.envelope import encode, seal
from tests.chaos.history import Journal
from tests.chaos.ledger import KEYS, Enter, key_of

AT_ONCE = 12
REPEATED = 10
"""Every tenth is asked once more when it has been answered."""
FORGOTTEN = 7
"""Every seventh is stored once more, as if the broker had forgotten its id meanwhile."""


class Asker:
    """Asks so many entries, spread over so many seconds."""

    def __init__(self, bus: Bus, journal: Journal, seed: int, count: int, seconds: float) -> None:
        self._bus = bus
        self._journal = journal
        self._seed = seed
        self._count = count
        self._pause = seconds / count
        lines = journal.read()
        self._began = lines[0]["at"] if lines else time.monotonic()
        self._invoked = {line["id"] for line in lines if line["what"] == "invoke"}
        self._answered = {line["id"] for line in lines if line["what"] == "ok"}

    async def run(self) -> None:
        """Ask what is not answered yet."""
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for index in range(self._count):
                name = f"ask-{self._seed}-{index}"
                if name in self._answered:
                    continue
                await slots.acquire()
                task = group.create_task(self._enter(name, index))
                task.add_done_callback(lambda _: slots.release())
                await asyncio.sleep(max(0, self._began + index * self._pause - time.monotonic()))

    async def _enter(self, name: str, index: int) -> None:
        chance = random.Random(f"{self._seed}/{index}")
        key = key_of(chance.randrange(KEYS))
        entry = Enter(number=chance.randrange(1, 5000), amount=chance.randrange(1, 100))
        if name not in self._invoked:
            self._journal.write(
                "invoke", id=name, key=key, number=entry.number, amount=entry.amount, how="ask"
            )
        for _ in range(2 if index % REPEATED == 0 else 1):
            answer = await self._ask(name, Address("ledger", key), entry)
            self._journal.write("ok", id=name, answer=answer)
        if index % FORGOTTEN == 0:
            await self._store_again(name, Address("ledger", key), entry)

    async def _ask(self, name: str, to: Address, entry: Enter) -> object:
        while True:
            try:
                entered = await ask(self._bus, to, entry, timeout=5, origin=Origin(id=name))
            except Refused as refused:
                return refused.refusal.code
            except (BusFault, RuntimeFault):
                self._journal.write("doubt", id=name)
                await asyncio.sleep(0.1)
            else:
                return {"applied": entered.applied, "balance": entered.balance}

    async def _store_again(self, name: str, to: Address, entry: Enter) -> None:
        self._journal.write("again", id=name)
        inbox = self._bus.link.new_inbox()
        sealed = seal(entry, id=name, source="edge", subject=to.key, replyto=inbox)
        headers = {"Nats-Msg-Id": f"{name} again", **expiry(MAIL_TTL)}
        with contextlib.suppress(BusFault):
            await self._bus.publish(subjects.mail(to), encode(sealed), headers=headers, timeout=2)


async def main(
    url: str, path: str, seed: str, count: str, seconds: str, replicas: str = "1"
) -> None:
    """Ask until everything is answered."""
    configure(format="json", level="info")
    password = os.environ.get("EDGE_PASSWORD")
    login = {"inbox": "_INBOX_edge", "user": "edge", "password": password} if password else {}
    link = Connection(url.split(","), **login)
    await link.open()
    bus = Bus(link)
    while True:
        try:
            await ensure_streams(bus, replicas=int(replicas))
            break
        except BusFault:
            await asyncio.sleep(0.2)
    await Asker(bus, Journal(Path(path)), int(seed), int(count), float(seconds)).run()
    await link.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
