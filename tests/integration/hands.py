"""Who takes what a pull brings: it keeps a list, and acknowledges if it is told to."""

from runtime.bus import Bus
from runtime.pinned import GROUP, PinnedPull
from runtime.pull import Delivery, ensure_consumer

CONSUMER = "mail_a_x"


class Hands:
    """An owner that remembers all it ever took; `held` is what it has not acknowledged."""

    def __init__(self, *, acks: bool = True) -> None:
        self.acks = acks
        self.taken: list[int] = []
        """The sequences of everything, in the order it came."""
        self.numbers: list[int] = []
        self.drops = 0
        self.taken_over: list[tuple[int, int]] = []
        self.orphans: list[int] = []
        self.waiting: dict[int, Delivery] = {}
        self.most_bytes = 1_000_000

    def take(self, delivery: Delivery) -> None:
        self.taken.append(delivery.seq)
        self.numbers.append(delivery.number)
        self.waiting[delivery.seq] = delivery
        if self.acks:
            self.ack(delivery.seq)

    def drop(self) -> None:
        self.drops += 1
        self.waiting.clear()

    async def take_over(self, floor: int, upto: int) -> None:
        self.taken_over.append((floor, upto))

    async def note_orphans(self, upto: int) -> None:
        self.orphans.append(upto)

    def ack(self, seq: int) -> None:
        self.waiting.pop(seq).ack()

    @property
    def held(self) -> int:
        return len(self.waiting)

    @property
    def room(self) -> int:
        return self.most_bytes

    @property
    def since_drop(self) -> list[int]:
        """What came since the deliveries were last counted from 1."""
        started = len(self.numbers) - 1 - self.numbers[::-1].index(1)
        return self.taken[started:]


def pinned(bus: Bus, hands: Hands, *, timeout: float, limit: int) -> PinnedPull:
    """A pull of all mail of the type `a`, pinned for `timeout` seconds."""

    async def create() -> None:
        await ensure_consumer(
            bus,
            CONSUMER,
            filter_subject="mail.*.a.*",
            priority_groups=[GROUP],
            priority_policy="pinned_client",
            priority_timeout=int(timeout * 1_000_000_000),
        )

    return PinnedPull(bus, CONSUMER, hands, create, limit=limit)


async def mail(bus: Bus, count: int) -> list[int]:
    """Send so many messages; their sequences."""
    return [(await bus.publish(f"mail.a.k{n % 7}", b"%d" % n)).seq for n in range(count)]


async def unacked(bus: Bus, consumer: str = CONSUMER) -> int:
    """How many messages the server has delivered and heard nothing of."""
    return int((await bus.api(f"CONSUMER.INFO.{bus.stream}.{consumer}"))["num_ack_pending"])
