"""How the one owner of a shard takes its messages: pinned to it, all of them, in order.

nats-py has no pinned pulls and drops what `MSG.NEXT` delivers, so this speaks the server's
protocol raw. Who holds a shard is in runtime/shard.py.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from runtime.bus import UNKNOWN_CONSUMER, Bus
from runtime.errors import BusFault, Denied
from runtime.packet import Packet
from runtime.pull import NANOSECONDS, Delivery

log = structlog.get_logger()

GROUP = "owner"
PIN_TIMEOUT = 2.0
"""Seconds after its last pull for which the server keeps an owner."""
PULL_EVERY = 0.6
PULL_EXPIRES = 1.2
LOOK_EVERY = 2
"""Pulls after which one who waits for a pin looks whether somebody died with messages in hand."""

_PIN = b"\r\nNats-Pin-Id: "
_encode = msgspec.json.encode


class Owner(Protocol):
    """Who receives what a pinned pull brings."""

    def take(self, delivery: Delivery) -> None:
        """Receive the next message; they come in order, without gaps."""
        ...

    def drop(self) -> None:
        """Forget everything held: it will be delivered again, here or elsewhere."""
        ...

    @property
    def held(self) -> int:
        """How many messages are held and not yet acknowledged."""
        ...


class PinnedPull:
    """Takes everything of one consumer while the server pins it to us.

    What reaches the owner is contiguous: after a new pin, a gap in the consumer's count, or
    any doubt about the connection, the consumer is reset to its ack floor and told again.
    """

    def __init__(
        self, bus: Bus, consumer: str, owner: Owner, create: Callable[[], Any], *, limit: int = 256
    ) -> None:
        self.bus = bus
        self.consumer = consumer
        self.pin = ""
        self._owner = owner
        self._create = create
        self._limit = limit
        self._sid = 0
        self._inbox = ""
        self._expected = 0
        self._asked = 0
        self._pulls = 0
        self._renewing: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Create the consumer if need be and begin to pull."""
        await self._create()
        self._renew()
        self._ticking = asyncio.create_task(self._tick(), name=f"pull {self.consumer}")

    def cease(self) -> None:
        """Take nothing more."""
        for task in (self._ticking, self._renewing):
            if task:
                task.cancel()
        self.bus.unsubscribe(self._sid)
        self._sid = 0

    async def release(self) -> None:
        """Let a standby have the consumer at once."""
        if self.pin:
            try:
                holder, _ = await self._holder()
                if holder == self.pin:
                    await self.bus.unpin(self.consumer, GROUP)
            except BusFault as fault:
                log.debug("unpin_failed", consumer=self.consumer, error=str(fault))
        self.pin = ""

    def doubt(self) -> None:
        """Deliveries may have been lost: start again from the ack floor."""
        self._owner.drop()
        self._renew()

    def _listen(self) -> None:
        self.bus.unsubscribe(self._sid)
        self._inbox = self.bus.link.new_inbox()
        self._sid = self.bus.subscribe(f"{self._inbox}.*", self._receive)
        self._expected = 1
        self._asked = 0

    async def _tick(self) -> None:
        for count in itertools.count(1):
            await asyncio.sleep(PULL_EVERY)
            # The pin lives from pull to pull, so one is sent even when nothing more fits.
            self._asked = 0
            try:
                if self._renewing is None:
                    self._pull()
                if not self.pin and count % LOOK_EVERY == 0:
                    await self._look()
            except Exception:  # whatever it is, this must go on, or the shard stands still
                log.exception("pull_failed", consumer=self.consumer)

    async def _look(self) -> None:
        """Start over if what nobody holds was delivered to somebody who is gone.

        A pin is given with a message, and those would come again only after `ACK_WAIT`.
        """
        try:
            holder, unacked = await self._holder()
        except BusFault as fault:
            log.debug("consumer_not_seen", consumer=self.consumer, error=str(fault))
            return
        if unacked and not holder and not self.pin:
            log.info("messages_taken_over", consumer=self.consumer, unacked=unacked)
            self.doubt()

    def refill(self) -> None:
        """Ask for more if little is on its way and there is room for it."""
        room = self._owner.held < self._limit // 2
        if room and self._asked < self._limit // 4 and self._renewing is None:
            self._pull()

    def _pull(self) -> None:
        if not self._sid:
            return  # it has ceased, and would only prolong the pin
        batch = max(1, self._limit - self._owner.held - self._asked)
        request: dict[str, Any] = {
            "batch": batch,
            "expires": int(PULL_EXPIRES * NANOSECONDS),
            "group": GROUP,
        }
        if self.pin:
            request["id"] = self.pin
        self._pulls += 1
        self._asked += batch
        try:
            self.bus.link.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self.bus.stream}.{self.consumer}",
                _encode(request),
                reply=f"{self._inbox}.{self._pulls}",
            )
        except BusFault:
            self._asked = 0

    def _receive(self, packet: Packet) -> None:
        if self._renewing is not None:
            return
        if packet.status:
            self._heed(packet)
            return
        delivery = Delivery(self.bus, packet)
        pin = _pin_of(packet)
        if pin != self.pin or delivery.number != self._expected:
            if pin == self.pin:
                log.info("deliveries_lost", consumer=self.consumer, expected=self._expected)
            self.pin = pin
            self.doubt()
            return
        self._expected += 1
        self._asked -= 1
        self._owner.take(delivery)
        self.refill()

    def _heed(self, packet: Packet) -> None:
        status = packet.status
        if status == "423":
            log.info("pin_lost", consumer=self.consumer)
            self.pin = ""
            self._owner.drop()
        elif status == "503" or (status == "409" and b"Deleted" in packet.raw_headers):
            self.doubt()

    def _renew(self) -> None:
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._reset(), name=f"reset {self.consumer}")
            self._renewing.add_done_callback(self._renewed)

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewing = None
        if not task.cancelled():
            self._pull()

    async def _reset(self) -> None:
        self.bus.unsubscribe(self._sid)
        while True:
            await self.bus.link.connected.wait()
            try:
                await self._start_over()
                break
            except Denied as denied:
                if denied.code == UNKNOWN_CONSUMER:
                    await self._recreate()
                    continue
                log.warning("reset_refused", consumer=self.consumer, error=str(denied))
            except BusFault as fault:
                log.debug("reset_failed", consumer=self.consumer, error=str(fault))
            except Exception:  # a shard that stands still for ever would be worse
                log.exception("reset_failed", consumer=self.consumer)
            await asyncio.sleep(0.1)
        self._listen()

    async def _start_over(self) -> None:
        """Go back to the ack floor, unless somebody else holds the consumer."""
        holder, unacked = await self._holder()
        if holder not in ("", self.pin):
            self.pin = ""
            return
        self.pin = holder
        if holder or unacked:
            await self.bus.reset(self.consumer)

    async def _recreate(self) -> None:
        log.warning("consumer_missing", consumer=self.consumer)
        self.pin = ""
        try:
            await self._create()
        except BusFault as fault:
            log.warning("consumer_not_created", consumer=self.consumer, error=str(fault))
            await asyncio.sleep(0.5)

    async def _holder(self) -> tuple[str, int]:
        """Whose pin the consumer has, if any, and how many messages are not acknowledged."""
        name = f"CONSUMER.INFO.{self.bus.stream}.{self.consumer}"
        answer = await self.bus.api(name, timeout=2.0)
        groups = answer.get("priority_groups") or [{}]
        return str(groups[0].get("pinned_client_id", "")), int(answer.get("num_ack_pending", 0))


def _pin_of(packet: Packet) -> str:
    # The server's own headers stand last; what a stranger stored stands before them.
    start = packet.raw_headers.rfind(_PIN)
    if start < 0:
        return ""
    start += len(_PIN)
    end = packet.raw_headers.find(b"\r\n", start)
    return packet.raw_headers[start:end].decode("utf-8", "replace")
