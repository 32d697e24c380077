"""Our side: actors that do the least there is to do, hosts that run them, drivers that ask.

Every key is sent to once before it is timed and once while it is, so no two messages share a turn.
"""

import asyncio
import contextlib
from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar

import msgspec

from bench.letters import Begin, Count, Counted, Did, Do, Noted, letter
from bench.role import Role, send_many
from runtime import Actor, Turn, Work, Worker, handler
from runtime.ask import MAIL_TTL, ask
from runtime.bus import Bus, Outgoing, expect, expiry, new_id
from runtime.committer import Committer
from runtime.connection import Connection, Packet
from runtime.deployments import seed_deployments
from runtime.holdings import LOOK_EVERY
from runtime.host import Host
from runtime.loads import list_consumers
from runtime.streams import ensure_streams
from runtime.terminal.overview import read_nodes
from schemas import subjects
from schemas.base import Address, Message, Topic
from schemas.deployment import Deployment
from schemas.envelope import encode
from schemas.record import RunRecord

AT_ONCE = 3000
"""How many jobs a host does at once: what takes no time is limited by how much is on its way."""

handled: Counter[str] = Counter()
"""What the actors of this process have done, by actor."""


class TallyState(msgspec.Struct):
    """How often it was told to count."""

    n: int = 0


class Tally(Actor):
    """State, one message and one event, for each message that comes."""

    state: TallyState

    @handler
    def count(self, message: Count, ctx: Turn) -> Counted:
        handled["tally"] += 1
        self.state.n += 1
        ctx.tell(Address("sink", ctx.key), Noted(text=message.text))
        ctx.emit(Topic("tally", ctx.key), Noted(text=message.text))
        return Counted(n=self.state.n)


class Sender(Actor):
    """Starts a job, takes its result, and says so."""

    state: TallyState

    @handler
    def begin(self, message: Begin, ctx: Turn) -> None:
        self.state.n += 1
        ctx.start(Address("doer", ctx.key), Do(text=message.text))

    @handler
    def hear(self, message: Did, ctx: Turn) -> None:
        handled["sender"] += 1
        self.state.n -= 1
        ctx.emit(Topic("sender", ctx.key), Noted(text=message.text))


class Doer(Worker):
    """Gives back what came."""

    @handler
    async def do(self, job: Do, ctx: Work) -> Did:
        handled["doer"] += 1
        return Did(text=job.text)


class Sink(Actor):
    """Only there to be told things: no host of the contest runs it."""

    state: TallyState

    @handler
    def note(self, message: Noted, ctx: Turn) -> None:
        self.state.n += 1


DEPLOYMENTS = [
    Deployment(name="tally", type="bench.ours:Tally", kind="keyed"),
    Deployment(name="sender", type="bench.ours:Sender", kind="keyed"),
    Deployment(name="sink", type="bench.ours:Sink", kind="keyed"),
    Deployment(name="doer", type="bench.ours:Doer", kind="worker", concurrency=AT_ONCE),
]


async def open_bus(url: str) -> Bus:
    """A bus with its streams, which the other side may have made."""
    link = Connection([url])
    await link.open()
    bus = Bus(link)
    await ensure_streams(bus)
    return bus


class HostRole(Role):
    """A host that runs some of the actors; done when `counted` has handled what was sent."""

    run: ClassVar[tuple[str, ...]]
    counted: ClassVar[str]
    hosts: ClassVar[int] = 1

    async def open(self, url: str) -> None:
        self.bus = await open_bus(url)
        await seed_deployments(self.bus, DEPLOYMENTS)
        self.host = Host(self.bus)
        await self.host.start(self.run)
        while True:
            if len(await read_nodes(self.bus)) >= self.hosts:
                break
            await asyncio.sleep(LOOK_EVERY)
        # By the second look each has what is its own.
        await asyncio.sleep(2 * LOOK_EVERY * (self.hosts - 1))

    def count_handled(self) -> int:
        if self.host.failed.done():
            self.host.failed.result()
        return handled[self.counted]

    async def is_settled(self) -> bool:
        return all(
            one["num_pending"] == 0 and one["num_ack_pending"] == 0
            for one in await list_consumers(self.bus)
        )

    async def close(self) -> None:
        await self.host.stop(grace=0)
        await self.bus.link.close()


class TurnHost(HostRole):
    run, counted = ("tally",), "tally"


class JobHost(HostRole):
    run, counted = ("doer",), "doer"


class WholeJobHost(HostRole):
    run, counted = ("sender", "doer"), "sender"


class TurnHostOfTwo(TurnHost):
    hosts = 2


class WholeJobHostOfTwo(WholeJobHost):
    hosts = 2


class Driver(Role):
    """Another process with a bus and a committer, as a host that sends is."""

    async def open(self, url: str) -> None:
        self.bus = await open_bus(url)
        self.committer = Committer(self.bus)
        self.task = asyncio.create_task(self.committer.run())

    async def flood(self, count: int) -> None:
        await send_many(count, self.send)

    async def send(self, number: int) -> "asyncio.Future[Any]":
        """Queue one for the next group."""
        raise NotImplementedError

    def mail(self, actor: str, number: int, kind: type[Message]) -> Outgoing:
        """A message as one actor sends it to another."""
        to = Address(actor, f"k{number:04}")
        data = letter(kind, id=f"1.{number % 10}", source="sink/k0001", subject=to.key)
        return Outgoing(subjects.mail(to), data, expiry(MAIL_TTL))

    async def close(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        await self.bus.link.close()


class TurnDriver(Driver):
    """Sends `Count`; asks it where the answer is waited for."""

    async def send(self, number: int) -> "asyncio.Future[Any]":
        message = self.mail("tally", number, Count)
        return self.committer.submit([message], message.subject)

    async def trip(self, number: int) -> None:
        await ask(self.bus, Address("tally", f"k{number % 10:04}"), Count(text="x"), timeout=10)


class JobDriver(Driver):
    """Starts jobs as a sender's commit does: the run, and right after it the job."""

    async def send(self, number: int) -> "asyncio.Future[Any]":
        run, key = new_id(), f"k{number:04}"
        record = RunRecord(job=f"doer/{key}")
        facts = {"id": f"1.{number % 10}", "source": "sink/k0001", "subject": key, "runid": run}
        opened = Outgoing(subjects.run(run), encode(record), {**expect(0), **expiry(KEEP)})
        job = Outgoing(subjects.work("doer", 1, key), letter(Do, **facts), expiry(MAIL_TTL))
        return self.committer.submit([opened, job], opened.subject)


KEEP = timedelta(days=2)


class PlainJobDriver(Driver):
    """Sends jobs that have no run; a round trip ends when the result is heard."""

    async def open(self, url: str) -> None:
        await super().open(url)
        self.heard = asyncio.Event()
        self.ear = 0

    async def flood(self, count: int) -> None:
        self.bus.unsubscribe(self.ear)
        self.ear = 0
        await super().flood(count)

    def job(self, number: int) -> Outgoing:
        """A job of which only the result comes back."""
        key = f"k{number:04}"
        data = letter(Do, id=f"1.{number % 10}", source="sink/k0001", subject=key)
        return Outgoing(subjects.work("doer", 1, key), data, expiry(MAIL_TTL))

    async def send(self, number: int) -> "asyncio.Future[Any]":
        return self.committer.submit([self.job(number)])

    async def trip(self, number: int) -> None:
        self.ear = self.ear or self.bus.subscribe("mail.sink.*", lambda _: self.heard.set())
        self.heard.clear()
        job = self.job(number)
        await self.bus.publish(job.subject, job.data, headers=job.headers)
        async with asyncio.timeout(10):
            await self.heard.wait()


class WholeJobDriver(Driver):
    """Sends `Begin`; a round trip ends with the event of the sender's second turn."""

    async def open(self, url: str) -> None:
        await super().open(url)
        self.heard = asyncio.Event()
        self.ear = 0

    def _hear(self, packet: Packet) -> None:
        self.heard.set()

    async def flood(self, count: int) -> None:
        # To hear all events would cost the driver, and nobody looks at them.
        self.bus.unsubscribe(self.ear)
        self.ear = 0
        await super().flood(count)

    async def send(self, number: int) -> "asyncio.Future[Any]":
        message = self.mail("sender", number, Begin)
        return self.committer.submit([message], message.subject)

    async def trip(self, number: int) -> None:
        self.ear = self.ear or self.bus.subscribe("live.event.sender.*", self._hear)
        self.heard.clear()
        message = self.mail("sender", number % 10, Begin)
        await self.bus.publish(message.subject, message.data, headers=message.headers)
        async with asyncio.timeout(10):
            await self.heard.wait()
