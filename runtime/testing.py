"""A kit for testing actors on a real embedded server, with time that can be moved.

async with running(tally=Tally) as kit:
    assert await kit.ask(Address("tally", "a"), Add(n=1)) == Total(n=1)
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from runtime.actor import Actor, Worker
from runtime.ask import Origin, ask
from runtime.bus import Bus, expiry, new_id
from runtime.clock import ManualClock
from runtime.connection import Connection, Packet
from runtime.deployments import seed_deployments
from runtime.host import Host
from runtime.store.server import EmbeddedServer
from runtime.streams import ensure_streams
from runtime.system import handled_by, kind_of
from schemas import subjects
from schemas.base import Address, Message, Request, Topic, token
from schemas.deployment import Deployment
from schemas.envelope import Envelope, decode_any, encode, seal
from schemas.record import DeadLetter, Record

Definition = type[Actor] | type[Worker]
Deployed = Definition | tuple[Definition, Mapping[str, Any]] | tuple[Definition, Deployment]
Reply = TypeVar("Reply", bound=Message)
Event = TypeVar("Event", bound=Message)

TIMEOUT = 10.0


@asynccontextmanager
async def running(**actors: Deployed) -> AsyncIterator["Kit"]:
    """Run actors, each under the name it is given as; everything ends with the block.

    An actor is its class, or the class with its options, or with a whole `Deployment`.
    """
    with tempfile.TemporaryDirectory(prefix="callboard-") as folder:
        kit = Kit(Path(folder), actors)
        try:
            await kit.start()
            yield kit
        finally:
            await kit.stop()


class Kit:
    """One server, one host, and a hand for tests to drive and watch them with."""

    def __init__(self, folder: Path, actors: Mapping[str, Deployed]) -> None:
        self.clock = ManualClock()
        self.server = EmbeddedServer(folder, port=0)
        self.bus: Bus
        self.host: Host
        self._deployments, self._classes = _read(actors)
        self._cursors: dict[Topic, int] = {}
        self._stirred = asyncio.Event()

    async def start(self) -> None:
        """Start the server, then a host on it."""
        await self.server.start()
        link = Connection([self.server.url])
        await link.open()
        self.bus = Bus(link)
        self.bus.subscribe("live.event.>", self._stir)
        await ensure_streams(self.bus)
        await seed_deployments(self.bus, self._deployments)
        await self.start_host()

    async def start_host(self) -> None:
        """Start a host on a connection of its own, as another process would."""
        link = Connection([self.server.url])
        await link.open()
        bus = Bus(link)
        await ensure_streams(bus)
        self.host = Host(bus, clock=self.clock, classes=self._classes)
        self.host.system.first_backoff = 0.001
        await self.host.start()

    async def stop_host(self, grace: float = 5.0) -> None:
        """Stop the host as SIGTERM would."""
        await self.host.stop(grace)
        await self.host.bus.link.close()

    async def stop(self) -> None:
        """Stop everything that was started."""
        with contextlib.suppress(AttributeError):  # it may not have got that far
            await self.stop_host(grace=0.5)
        with contextlib.suppress(AttributeError):
            await self.bus.link.close()
        await self.server.stop()

    # -- saying ----------------------------------------------------------------------------

    async def ask(
        self,
        to: Address,
        request: Request[Reply],
        *,
        timeout: float = TIMEOUT,
        origin: Origin | None = None,
    ) -> Reply:
        """Ask an actor; raises as `runtime.ask.ask` does."""
        return await ask(self.bus, to, request, timeout=timeout, origin=origin)

    async def tell(self, to: Address, message: Message, **facts: Any) -> int:
        """Send a message; returns its sequence. `facts` go into its envelope."""
        facts = {"id": new_id(), "source": "test", "subject": to.key, **facts}
        data = encode(seal(message, **facts))
        ack = await self.bus.publish(subjects.mail(to), data, headers=expiry(timedelta(hours=24)))
        return ack.seq

    async def advance(self, by: timedelta) -> None:
        """Move time, and let every reminder come that is due by then, in order.

        Once time was moved, later reminders come only when it is moved again.
        """
        self.clock.advance(by)
        due = []
        for stored in await self.bus.lasts("timer.>"):
            envelope = decode_any(stored.data)
            if envelope.due is not None and envelope.due <= self.clock.now():
                due.append((envelope.due, stored))
        for _, stored in sorted(due, key=lambda pair: (pair[0], pair[1].seq)):
            _, actor, key, _ = stored.subject.split(".")
            await self.bus.publish(f"mail.{actor}.{key}", stored.data)
            await self.bus.api(f"STREAM.PURGE.{self.bus.stream}", {"filter": stored.subject})

    # -- watching --------------------------------------------------------------------------

    async def event(self, topic: Topic, wanted: type[Event], timeout: float = TIMEOUT) -> Event:
        """Wait for the next event of a type on a topic, after the last one returned."""
        found = await self.envelope(topic, wanted, timeout)
        return msgspec.json.decode(found.data, type=wanted)

    async def envelope(
        self, topic: Topic, wanted: type[Message], timeout: float = TIMEOUT
    ) -> Envelope[msgspec.Raw]:
        """As `event`, with the facts around it."""
        tag = wanted.__struct_config__.tag
        async with asyncio.timeout(timeout):
            while True:
                self._stirred.clear()
                after = self._cursors.get(topic, 0)
                for stored in await self.bus.read(subjects.event(topic), after=after):
                    self._cursors[topic] = stored.seq
                    envelope = decode_any(stored.data)
                    if envelope.type == tag:
                        return envelope
                await self._stirred.wait()

    async def events(self, topic: Topic, kind: type[Event]) -> list[Event]:
        """Every event of a type that a topic holds, oldest first."""
        tag = kind.__struct_config__.tag
        found = [
            decode_any(s.data) for s in await self.bus.read_all(subjects.event(topic), after=0)
        ]
        return [msgspec.json.decode(e.data, type=kind) for e in found if e.type == tag]

    async def state(self, address: Address) -> Any:
        """The state of an instance as it is stored; a new one if it has none."""
        cls = self._classes[address.actor]
        assert issubclass(cls, Actor), f"{address.actor} keeps no state"
        record = await self.record(address)
        if record is None or not record.data:
            return cls.state_type()
        return msgspec.json.decode(record.data, type=cls.state_type)

    async def record(self, address: Address) -> Record | None:
        """The whole record of an instance, or None if it has none."""
        subject = subjects.state(address.actor, token(address.key))
        stored = await self.bus.last(subject)
        return None if stored is None else msgspec.json.decode(stored.data, type=Record)

    async def dead_letters(self) -> list[DeadLetter]:
        """Every dead letter, oldest first, whatever became of it."""
        stored = [
            one
            for one in await self.bus.read_all("dead.>", after=0)
            if not one.subject.startswith("dead.SETTLED.")
        ]
        return [msgspec.json.decode(decode_any(one.data).data, type=DeadLetter) for one in stored]

    async def settled(self, timeout: float = TIMEOUT) -> None:
        """Wait until every message and job that is there has been dealt with."""
        async with asyncio.timeout(timeout):
            # The server tells nobody when a consumer has caught up, so it is asked.
            while not await self._is_settled():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _is_settled(self) -> bool:
        answer = await self.bus.api(f"CONSUMER.LIST.{self.bus.stream}", {"offset": 0})
        return all(
            one["num_pending"] == 0 and one["num_ack_pending"] == 0
            for one in answer.get("consumers") or []
        )

    def _stir(self, packet: Packet) -> None:
        self._stirred.set()


def _read(actors: Mapping[str, Deployed]) -> tuple[list[Deployment], dict[str, Definition]]:
    deployments: list[Deployment] = []
    classes: dict[str, Definition] = {}
    for name, given in actors.items():
        cls, more = given if isinstance(given, tuple) else (given, {})
        classes[name] = cls
        if not isinstance(more, Deployment):
            path = f"{cls.__module__}:{cls.__qualname__}"
            more = Deployment(name=name, type=path, kind=kind_of(cls), options=dict(more))
        deployments.append(msgspec.structs.replace(more, handles=handled_by(cls)))
    return deployments, classes
