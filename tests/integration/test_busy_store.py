"""A store that is written to while it is inspected is not taken for a damaged one."""

import asyncio
import itertools

from runtime.bus import Bus
from runtime.pull import ensure_consumer
from runtime.store.inspection import inspect
from schemas import subjects
from schemas.base import Address
from tests.integration.waiting import until_known

SHARDS = range(16)
LOOKS = 40


async def keep_writing(bus: Bus) -> None:
    for number in itertools.count():
        to = Address("counter", f"key-{number % 97}")
        await bus.publish(subjects.mail(to), b"{}")


async def test_messages_that_come_meanwhile_are_not_missing(bus: Bus) -> None:
    for shard in SHARDS:
        name = subjects.shard_consumer("counter", shard)
        await ensure_consumer(bus, name, filter_subject=subjects.shard_mail("counter", shard))
    writers = [asyncio.create_task(keep_writing(bus)) for _ in range(8)]
    readers = [asyncio.create_task(keep_reading(bus, shard)) for shard in SHARDS]
    try:
        await until_known(lambda: has_messages(bus))
        found = [await inspect(bus) for _ in range(LOOKS)]
    finally:
        for task in (*writers, *readers):
            task.cancel()
        await asyncio.gather(*writers, *readers, return_exceptions=True)

    assert [one.damages for one in found if one.damages] == []


async def keep_reading(bus: Bus, shard: int) -> None:
    """Take messages as fast as they come, so that none is left to be delivered."""
    inbox = bus.link.new_inbox()
    taken = asyncio.Event()
    bus.subscribe(inbox, lambda _: taken.set())
    consumer = f"{bus.stream}.{subjects.shard_consumer('counter', shard)}"
    while True:
        taken.clear()
        bus.link.publish(f"$JS.API.CONSUMER.MSG.NEXT.{consumer}", b'{"batch":1000}', reply=inbox)
        await taken.wait()


async def has_messages(bus: Bus) -> bool:
    info = await bus.api(f"STREAM.INFO.{bus.stream}")
    return int(info["state"]["last_seq"]) > 1000
