"""How the one owner of a shard takes its messages: pinned to it, all of them, in order.

nats-py has no pinned pulls and drops what `MSG.NEXT` delivers, so this speaks the server's
protocol raw. Who holds a shard is in runtime/shard.py.
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from runtime.bus import Bus
from runtime.codes import UNKNOWN_CONSUMER
from runtime.errors import BusFault, Denied
from runtime.packet import Packet
from runtime.pull import NANOSECONDS, Delivery
from runtime.seen import Seen, see

log = structlog.get_logger()

GROUP = "owner"
PIN_TIMEOUT = 2.0
"""Seconds after its last pull for which the server keeps an owner."""
PULL_EVERY = 0.6
PULL_EXPIRES = 1.2
LOOK_EVERY = 2
"""Pulls after which one who waits for a pin looks whether somebody died with messages in hand."""
CONTEST_AFTER = 5.0
MOST_CONTEST = 60.0
"""Seconds that an owner waits for another to give up his pin before he is made to: at first, and
at most, for each time is twice as long as the last."""

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

    async def take_over(self, floor: int, upto: int) -> None:
        """Be told of being pinned; others had been given what is above `floor`, up to `upto`."""
        ...

    async def note_orphans(self, upto: int) -> None:
        """Be told that somebody who is gone had been given messages up to `upto`."""
        ...

    @property
    def held(self) -> int:
        """How many messages are held and not yet acknowledged."""
        ...

    @property
    def room(self) -> int:
        """How many bytes may be asked for; 0 for none."""
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
        self.pinned_at = 0.0
        """When, by the loop's clock."""
        self.lost_pin = False
        """Whether the last pin was taken from us, and there was none since."""
        self.insists = False
        """Whether this is ours by right: one who keeps it all the same is made to give it up."""
        self.waits = False
        """Whether we ask for nothing, until it is seen that somebody is pinned or nobody comes."""
        self._owner = owner
        self._create = create
        self._limit = limit
        self._sid = 0
        self._inbox = ""
        self._expected = 0
        self._asked = 0
        self._pulls = 0
        self._before: int | None = None
        """The last sequence that had been delivered before we were pinned, where that is known."""
        self._renewing: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._vacant = 0
        """How often in a row messages were seen that nobody takes."""
        self._rival = ("", 0.0)
        self._patience = CONTEST_AFTER

    @property
    def active(self) -> bool:
        """Whether it was started, and has not ceased."""
        return self._ticking is not None

    async def start(self, *, waits: bool = False) -> None:
        """Create the consumer if need be and begin to pull; or, first, to wait for one's turn."""
        await self._create()
        self.waits, self._vacant = waits, 0
        self._renew()
        self._ticking = asyncio.create_task(self._tick(), name=f"pull {self.consumer}")

    def cease(self) -> None:
        """Take nothing more."""
        for task in (self._ticking, self._renewing, self._looking):
            if task:
                task.cancel()
        self._ticking = self._renewing = self._looking = None
        self.insists = False
        self.bus.unsubscribe(self._sid)
        self._sid = 0

    def insist(self) -> None:
        """It is ours by right from now on."""
        self.insists, self._rival, self._patience = True, ("", 0.0), CONTEST_AFTER
        if self.waits:
            self._ask()
        self.look_soon()

    def step_back(self) -> None:
        """Leave it to another, as long as he takes what comes."""
        self.insists, self.waits, self._vacant = False, not self.pin, 0

    def look_soon(self) -> None:
        """See at once what is in hand, and whose it is."""
        if self.active and not self.pin and self._looking is None:
            self._looking = asyncio.create_task(self._look(), name=f"look {self.consumer}")
            self._looking.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        if self._looking is task:
            self._looking = None

    async def release(self) -> None:
        """Let a standby have the consumer at once."""
        if self.pin:
            try:
                if (await see(self.bus, self.consumer)).holder == self.pin:
                    await self.bus.unpin(self.consumer, GROUP)
            except BusFault as fault:
                log.debug("unpin_failed", consumer=self.consumer, error=str(fault))
        self.pin = ""

    def doubt(self) -> None:
        """Deliveries may have been lost: start again from the ack floor."""
        if self.active:
            self._owner.drop()
            self._renew()

    def _listen(self) -> None:
        self.bus.unsubscribe(self._sid)
        self._inbox = self.bus.link.new_inbox()
        self._sid = self.bus.subscribe(f"{self._inbox}.*", self._receive)
        self._expected = 1
        self._asked = 0

    async def _tick(self) -> None:
        # Not all shards of a host at the same moment.
        await asyncio.sleep(PULL_EVERY * random.random())
        for count in itertools.count(1):
            await asyncio.sleep(PULL_EVERY)
            # The pin lives from pull to pull, so one is sent even when nothing more fits.
            self._asked = 0
            try:
                if self._renewing is None and (self.pin or not self.waits):
                    self._pull()
                if count % LOOK_EVERY == 0:
                    self.look_soon()
            except Exception:  # whatever it is, this must go on, or the shard stands still
                log.exception("pull_failed", consumer=self.consumer)

    async def _look(self) -> None:
        """See to it that what is there is taken by somebody.

        A pin is given with a message, and what was delivered to somebody who is gone would come
        again only after `ACK_WAIT`.
        """
        try:
            seen = await see(self.bus, self.consumer)
        except BusFault as fault:
            log.debug("consumer_not_seen", consumer=self.consumer, error=str(fault))
            return
        if self.pin or self._renewing is not None:
            return
        if seen.holder:
            await self._mind(seen.holder)
        elif self.waits and (seen.unacked or seen.pending):
            # The first time its owner may be on his way.
            self._vacant += 1
            if self._vacant > 1:
                self._take_over(seen)
        elif seen.unacked:
            self._take_over(seen)
        else:
            self._vacant = 0

    def _take_over(self, seen: Seen) -> None:
        log.info("messages_taken_over", consumer=self.consumer, unacked=seen.unacked)
        self.waits, self._vacant = False, 0
        self.doubt()

    async def _mind(self, holder: str) -> None:
        """Somebody else has the pin: be next in line, and insist if it is ours by right."""
        if self.waits:
            self._ask()
        now = asyncio.get_running_loop().time()
        rival, since = self._rival
        if rival != holder or not self.insists:
            self._rival = (holder, now)
        elif now - since > self._patience:
            self._rival, self._patience = ("", 0.0), min(self._patience * 2, MOST_CONTEST)
            log.warning("pin_contested", consumer=self.consumer, after=round(now - since, 1))
            try:
                await self.bus.unpin(self.consumer, GROUP)
            except BusFault as fault:
                log.debug("unpin_failed", consumer=self.consumer, error=str(fault))

    def _ask(self) -> None:
        self.waits, self._vacant = False, 0
        if self._renewing is None:
            self._pull()

    def refill(self) -> None:
        """Ask for more if little is on its way and there is room for it."""
        room = self._owner.held < self._limit // 2
        if room and self._asked < self._limit // 4 and self._renewing is None and self._owner.room:
            self._pull()

    def _pull(self) -> None:
        if not self._sid:
            return  # it has ceased, and would only prolong the pin
        batch = max(1, self._limit - self._owner.held - self._asked)
        request: dict[str, Any] = {
            "batch": batch,
            # Nothing has no more than one byte: such a pull only keeps the pin.
            "max_bytes": self._owner.room or 1,
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
            self._become_pinned(pin, delivery)
            self.doubt()
            return
        self._expected += 1
        self._asked -= 1
        self._owner.take(delivery)
        self.refill()

    def _become_pinned(self, pin: str, first: Delivery) -> None:
        if pin != self.pin:
            self.pin, self.pinned_at = pin, asyncio.get_running_loop().time()
            # Around one that comes again, others may have been delivered already.
            self._before = first.seq - 1 if first.tries == 1 else None
        self.waits = self.lost_pin = False

    def _heed(self, packet: Packet) -> None:
        status = packet.status
        if status == "423":
            if self.pin:
                log.info("pin_lost", consumer=self.consumer)
                self.pin, self.lost_pin = "", True
                self._owner.drop()
                self._pull()
        elif status == "503" or (status == "409" and b"Deleted" in packet.raw_headers):
            self.doubt()
        elif status == "409" and b"MaxBytes" in packet.raw_headers:
            # This pull has ended; unless all hands are full, the next may begin.
            self._asked = 0
            self.refill()

    def _renew(self) -> None:
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._reset(), name=f"reset {self.consumer}")
            self._renewing.add_done_callback(self._renewed)

    def _renewed(self, task: asyncio.Task[None]) -> None:
        if self._renewing is task:
            self._renewing = None
            if not self.waits:
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
        seen = await see(self.bus, self.consumer)
        if seen.holder != self.pin:
            self.pin = ""
        if self.pin:
            upto = seen.delivered if self._before is None else self._before
            # Together: the pin does not live for long without a pull.
            await asyncio.gather(
                self._owner.take_over(seen.floor, upto), self.bus.reset(self.consumer)
            )
        elif seen.unacked and not seen.holder and not self.waits:
            await self._owner.note_orphans(seen.delivered)
            await self.bus.reset(self.consumer)

    async def _recreate(self) -> None:
        log.warning("consumer_missing", consumer=self.consumer)
        self.pin = ""
        try:
            await self._create()
        except BusFault as fault:
            log.warning("consumer_not_created", consumer=self.consumer, error=str(fault))
            await asyncio.sleep(0.5)


def _pin_of(packet: Packet) -> str:
    # The server's own headers stand last; what a stranger stored stands before them.
    start = packet.raw_headers.rfind(_PIN)
    if start < 0:
        return ""
    start += len(_PIN)
    end = packet.raw_headers.find(b"\r\n", start)
    return packet.raw_headers[start:end].decode("utf-8", "replace")
