"""nats-py as it comes: what the client can do with a durable on a file stream, and no more."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
from nats.errors import TimeoutError as NothingCame
from nats.js.api import ConsumerConfig

from bench.letters import plain_letter
from bench.role import Role, send_many

STREAM = "JOBS"
DURABLE = "worker"
BATCH = 256
MOST_UNACKNOWLEDGED = 10_000

Future = asyncio.Future[Any]


async def connect(url: str) -> tuple[Any, Any]:
    """A client, its JetStream context, and the stream, which the other side may have made."""
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(name=STREAM, subjects=["job.*", "result.*"], storage="file")
    return client, stream


async def is_settled(stream: Any) -> bool:
    """Whether the durable's every message was delivered and acknowledged."""
    info = await stream.consumer_info(STREAM, DURABLE)
    return bool(info.num_pending == 0 and info.num_ack_pending == 0)


class Producer(Role):
    """Publishes jobs, pipelined; hears their results as they are published."""

    async def open(self, url: str) -> None:
        self.client, self.stream = await connect(url)
        self.data = plain_letter()
        self.results: Any = None

    async def flood(self, count: int) -> None:
        # To hear all results would cost the producer, and nobody looks at them.
        if self.results is not None:
            await self.results.unsubscribe()
            self.results = None
        await send_many(count, self._send)

    async def _send(self, number: int) -> Future:
        future: Future = await self.stream.publish_async("job.a", self.data)
        return future

    async def trip(self, number: int) -> None:
        if self.results is None:
            self.results = await self.client.subscribe("result.*")
        await self.stream.publish("job.a", self.data)
        await self.results.next_msg(timeout=10)

    async def close(self) -> None:
        await self.client.close()


class LoopWorker(Role):
    """One subscription for ever, its next batch asked for before this one ends; acks."""

    def __init__(self) -> None:
        self.handled = 0

    async def open(self, url: str) -> None:
        self.client, self.stream = await connect(url)
        config = ConsumerConfig(max_ack_pending=MOST_UNACKNOWLEDGED)
        self.pull = await self.stream.pull_subscribe("job.*", DURABLE, config=config)
        self.task = asyncio.create_task(self.work())

    def count_handled(self) -> int:
        if self.task.done():
            self.task.result()
        return self.handled

    async def is_settled(self) -> bool:
        return await is_settled(self.stream)

    async def close(self) -> None:
        self.task.cancel()
        await self.client.close()

    async def work(self) -> None:
        """Take messages until cancelled."""
        async for message in self.messages():
            await message.ack()
            self.handled += 1

    async def messages(self) -> AsyncIterator[Any]:
        """Every message of the durable, as it comes."""
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        request = json.dumps({"batch": BATCH, "expires": 600 * 1_000_000_000}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{DURABLE}"
        due = 0
        while True:
            if due < BATCH // 2:
                await self.client.publish(subject, request, reply=inbox)
                due += BATCH
            yield await subscription.next_msg(timeout=None)
            due -= 1


class FetchWorker(LoopWorker):
    """Batches by `fetch`; acks."""

    async def work(self) -> None:
        while True:
            try:
                batch = await self.pull.fetch(BATCH, timeout=5)
            except NothingCame:
                continue
            for message in batch:
                await message.ack()
            self.handled += len(batch)


class JobWorker(LoopWorker):
    """Takes a job, publishes its result to the stream, and acks once that is stored."""

    async def open(self, url: str) -> None:
        self.stored: asyncio.Queue[tuple[Future, Any]] = asyncio.Queue()
        await super().open(url)
        self.acks = asyncio.create_task(self._acknowledge())

    async def work(self) -> None:
        async for message in self.messages():
            job = json.loads(message.data)
            result = json.dumps(job).encode()
            self.stored.put_nowait((await self.stream.publish_async("result.a", result), message))

    async def _acknowledge(self) -> None:
        while True:
            stored, message = await self.stored.get()
            await stored
            await message.ack()
            self.handled += 1

    async def close(self) -> None:
        self.acks.cancel()
        await super().close()
