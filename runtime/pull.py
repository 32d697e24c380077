"""How messages are taken from consumers: what a delivery is, and how a crowd shares one.

One owner's pull, pinned to it, is in runtime/pinned.py; who does jobs in runtime/worker.py.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec
import structlog

from runtime.bus import DEADLINE, Bus
from runtime.errors import BusFault
from runtime.packet import Packet

log = structlog.get_logger()

ACK_WAIT = 30.0
NANOSECONDS = 1_000_000_000

_encode = msgspec.json.encode


class Care(Protocol):
    """How to handle a message that may end its host."""

    def handling(self, seq: int) -> AbstractAsyncContextManager[None]:
        """Be known to handle it for as long as the block lasts; raises BusFault."""
        ...


class Delivery:
    """A message that comes back until it is acknowledged.

    `seq` is its stream sequence, `number` the consumer's own count of deliveries, `tries`
    how often it was delivered since the consumer was last reset. `care` is needed for one that
    was in a lost owner's hands; one that has `ended` its host so often is not handled any more.
    """

    __slots__ = ("_bus", "care", "ended", "number", "packet", "seq", "tries")

    def __init__(self, bus: Bus, packet: Packet) -> None:
        self._bus = bus
        self.packet = packet
        self.care: Care | None = None
        self.ended = 0
        # $JS.ACK.<stream>.<consumer>.<tries>.<seq>.<number>.<time>.<pending>; the newer form
        # has a domain and an account before the stream.
        fields = packet.reply.split(".")
        at = 4 if len(fields) == 9 else 6
        self.tries, self.seq, self.number = (int(field) for field in fields[at : at + 3])

    @property
    def stored(self) -> float:
        """When the server stored the message, in seconds since 1970."""
        fields = self.packet.reply.split(".")
        return int(fields[7 if len(fields) == 9 else 9]) / NANOSECONDS

    def ack(self) -> None:
        """Done. Lost acks are harmless: what was done is remembered elsewhere."""
        self._say(b"")

    def nak(self, delay: float) -> None:
        """Not now: deliver it again after `delay` seconds."""
        self._say(b'-NAK {"delay":%d}' % int(delay * NANOSECONDS) if delay else b"-NAK")

    def in_progress(self) -> None:
        """Still at it: wait another `ACK_WAIT`."""
        self._say(b"+WPI")

    def _say(self, what: bytes) -> None:
        try:
            self._bus.notify(self.packet.reply, what)
        except BusFault as fault:
            log.debug("ack_not_sent", seq=self.seq, error=str(fault))


async def ensure_consumer(bus: Bus, name: str, **config: Any) -> None:
    """Create a durable, or leave it as it is if it is there; raises Denied otherwise."""
    wanted = {
        "durable_name": name,
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT * NANOSECONDS),
        "max_deliver": -1,
        "max_ack_pending": 10_000,
        "max_waiting": 512,
        "num_replicas": 0,
        **config,
    }
    subject = f"CONSUMER.CREATE.{bus.stream}.{name}.{config['filter_subject']}"
    await bus.api(subject, {"stream_name": bus.stream, "config": wanted})


class SharedPull:
    """Asks one consumer for messages in portions; any number of hosts may do the same.

    One request is outstanding at a time, so that whatever comes is counted as its.
    """

    def __init__(self, bus: Bus, consumer: str, take: Callable[[Delivery], None]) -> None:
        self.bus = bus
        self.consumer = consumer
        self.gone = False
        """The consumer is not there (any more)."""
        self._take = take
        self._inbox = bus.link.new_inbox()
        self._sid = bus.subscribe(f"{self._inbox}.*", self._receive)
        self._number = 0
        self._batch = 0
        self._got = 0
        self._outstanding: asyncio.Future[int] | None = None

    def request(self, batch: int, *, wait: float = 0.0) -> asyncio.Future[int]:
        """Ask for up to `batch` messages, waiting up to `wait` seconds for the first.

        The future ends with how many came; it also ends when the connection is lost. While a
        request is outstanding it is returned instead.
        """
        if self._outstanding is not None:
            return self._outstanding
        request: dict[str, Any] = {"batch": batch}
        if wait:
            request["expires"] = int(wait * NANOSECONDS)
        else:
            request["no_wait"] = True
        self._number += 1
        self._batch, self._got = batch, 0
        loop = asyncio.get_running_loop()
        future = self._outstanding = loop.create_future()
        # The server says when a request has ended; what it says may be lost.
        loop.call_later(wait + DEADLINE, self._overdue, self._number)
        try:
            self.bus.link.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self.bus.stream}.{self.consumer}",
                _encode(request),
                reply=f"{self._inbox}.{self._number}",
            )
        except BusFault:
            self.lose()
        return future

    def lose(self) -> None:
        """The connection was lost: nothing that was asked for will come."""
        future, self._outstanding = self._outstanding, None
        if future is not None and not future.done():
            future.set_result(self._got)

    def mute(self) -> None:
        """Have nothing more sent; what is on its way is still taken."""
        self.bus.link.unsubscribe(self._sid, deaf=False)

    def stop(self) -> None:
        """Take nothing more."""
        self.bus.unsubscribe(self._sid)
        self.lose()

    def _overdue(self, number: int) -> None:
        if number == self._number:
            self.lose()

    def _receive(self, packet: Packet) -> None:
        if packet.status:
            if packet.subject.rpartition(".")[2] == str(self._number):
                self.gone = packet.status == "503" or b"Deleted" in packet.raw_headers
                self.lose()
            return
        self._got += 1
        self._take(Delivery(self.bus, packet))
        if self._got >= self._batch:
            self.lose()
