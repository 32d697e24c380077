"""The same job done by FastStream's JetStream pull subscriber: durable pull, result, ack."""

from typing import Any

from fast_depends.msgspec import MsgSpecSerializer
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

from bench.letters import Do
from bench.plain import DURABLE, MOST_UNACKNOWLEDGED, STREAM, connect, is_settled
from bench.role import Role
from schemas.envelope import Envelope

AT_ONCE = 64
"""How many jobs are taken, and done, at once; more made it slower."""


class FastStreamWorker(Role):
    """One subscriber as its documentation shows it, silent, with the faster serializer."""

    async def open(self, url: str) -> None:
        self.handled = 0
        self.client, self.stream = await connect(url)
        stream = JStream(STREAM, declare=False)
        serializer = MsgSpecSerializer(use_fastdepends_errors=False)
        self.broker: Any = NatsBroker(url, logger=None, serializer=serializer)
        subscribe = self.broker.subscriber(
            "job.*",
            stream=stream,
            durable=DURABLE,
            pull_sub=PullSub(batch_size=AT_ONCE, timeout=5.0),
            config=ConsumerConfig(max_ack_pending=MOST_UNACKNOWLEDGED),
        )
        subscribe(self.broker.publisher("result.a", stream=STREAM)(self._make_handler()))
        await self.broker.start()

    def _make_handler(self) -> Any:
        async def do(job: Envelope[Do]) -> Envelope[Do]:
            self.handled += 1
            return job

        return do

    def count_handled(self) -> int:
        return self.handled

    async def is_settled(self) -> bool:
        return await is_settled(self.stream)

    async def close(self) -> None:
        await self.broker.stop()
        await self.client.close()
