"""A store is looked at while others use it: what comes meanwhile is not taken for lost."""

import asyncio

from runtime.bus import Bus
from runtime.pull import SharedPull, ensure_consumer
from runtime.store.inspection import inspect


async def test_a_consumer_under_load_is_not_taken_for_blind(bus: Bus) -> None:
    await ensure_consumer(bus, "mail_a_x", filter_subject="mail.*.a.*")
    pull = SharedPull(bus, "mail_a_x", lambda delivery: delivery.ack())
    enough = asyncio.Event()

    async def write() -> None:
        while not enough.is_set():
            await asyncio.gather(
                bus.publish("mail.a.k", b"x"), *(bus.publish("event.a.k", b"x") for _ in range(9))
            )

    async def read() -> None:
        while not enough.is_set():
            await pull.request(50, wait=0.1)

    busy = [asyncio.create_task(one) for one in (write(), write(), read())]
    found = [await inspect(bus) for _ in range(100)]
    enough.set()
    await asyncio.gather(*busy)
    pull.stop()

    assert [each.damages for each in found] == [[]] * 100
