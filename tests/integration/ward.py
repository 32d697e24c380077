"""Two hosts and two agents, each on a connection of their own, and conversations at full speed."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from actors.batch import Batch
from actors.session import Session
from runtime.ask import ask
from runtime.bus import Bus
from runtime.connection import Packet
from runtime.deployments import seed_deployments
from runtime.errors import Refused
from runtime.host import Host
from runtime.system import handled_by, kind_of
from schemas import subjects
from schemas.base import Address, Topic
from schemas.conversation import BatchOpened
from schemas.deployment import Deployment
from schemas.envelope import decode_any
from schemas.model import conversation_topic, history_topic
from schemas.ownership import Assignee, Escalate, Held, TakeOver
from schemas.record import Record, Refusal
from schemas.session import SessionState
from tests.integration.answering import Answering, opening
from tests.integration.torrent import Torrent, begun, silenced
from tests.integration.waiting import until

AGENTS = (Assignee(id="ann", name="Ann"), Assignee(id="bob", name="Bob"))
CLASSES: dict[str, Any] = {
    "session": Session,
    "batch": Batch,
    "torrent": Torrent,
    "one": Answering,
}
OF_THE_BOT = ("run.started", "run.superseded", "run.delta", "run.finished", "message.answered")
AT_ONCE = 0.001
"""Seconds within which both agents ask."""
TIMEOUT = 60.0

Open = Callable[[str], Awaitable[Bus]]


@dataclass
class Told:
    """An event of a conversation, as it stands in the log."""

    seq: int
    type: str
    data: dict[str, Any]


@dataclass
class Tally:
    """What came of all rounds."""

    rounds: int = 0
    before: int = 0
    """Pieces of the bot that stand before the change, in all rounds."""
    winners: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.before} pieces before the change and none after it,"
            f" won by {dict(self.winners)}"
        )


class Ward:
    """What a test drives; `hands` are the connections of two agents."""

    def __init__(self, bus: Bus, hands: list[Bus], seed: int = 1) -> None:
        self.bus = bus
        self.tally = Tally()
        self._hands = hands
        self._random = Random(seed)
        self._heard: Counter[str] = Counter()
        bus.subscribe("live.event.conversation.>", self._hear)

    async def ask(self, conversation: str, message: Any, hand: Bus | None = None) -> Any:
        """Ask a session; a refusal is an answer, too."""
        to = Address("session", conversation)
        try:
            return await ask(hand or self.bus, to, message, timeout=TIMEOUT)
        except Refused as refused:
            return refused.refusal

    async def round(self, number: int) -> None:
        """Two models speak, perhaps somebody calls for a person, and two agents take it."""
        conversation = f"c{number}"
        opened = await self.ask(conversation, opening("torrent", "torrent"))
        assert isinstance(opened, BatchOpened)
        most = self._random.randint(3, 30)
        await until(lambda: self._heard[conversation] >= most, TIMEOUT)
        if number % 2:
            await self.ask(conversation, Escalate(details="help"))
        answers = await self._race(conversation)
        self._look_at_answers(*answers)
        case = (await self.state(conversation)).hold
        winner = next(one for one in answers if isinstance(one, Held)).case.assignee
        assert winner is not None
        assert (case.mode, case.assignee, case.epoch) == ("manual_live", winner, 2)
        # One that was stopped before it began never will.
        runs = {task.run for task in opened.tasks}
        await until(lambda: runs & begun <= silenced.keys(), TIMEOUT)
        await self.look_at(conversation)
        self.tally.rounds += 1
        self.tally.winners[winner.id] += 1

    async def _race(self, conversation: str) -> list[Any]:
        async def take(agent: Assignee, hand: Bus) -> Any:
            await asyncio.sleep(self._random.uniform(0, AT_ONCE))
            return await self.ask(conversation, TakeOver(agent=agent), hand)

        pairs = list(zip(AGENTS, self._hands, strict=True))
        self._random.shuffle(pairs)
        return await asyncio.gather(*(take(agent, hand) for agent, hand in pairs))

    @staticmethod
    def _look_at_answers(*answers: Any) -> None:
        """One has it, and the other is told who."""
        (won,) = (one for one in answers if isinstance(one, Held))
        (lost,) = (one for one in answers if isinstance(one, Refusal))
        winner = won.case.assignee

        assert winner is not None
        assert (won.changed, lost.code, lost.status) == (True, "ALREADY_TAKEN", 409)
        assert lost.told["assignee"] == {"id": winner.id, "name": winner.name}

    async def look_at(self, conversation: str) -> None:
        """Nothing of the bot stands after the first step away from it."""
        log = await self.log(conversation)
        steps = [one for one in log if one.type == "session.mode_changed"]
        bot = [one.seq for one in log if one.type in OF_THE_BOT]
        changed = steps[0].seq
        self.tally.before += sum(seq < changed for seq in bot)

        assert [one.data["mode"] for one in steps] == ["pending_manual", "manual_live"]
        assert [seq for seq in bot if seq > changed] == []
        assert bot

    async def log(self, conversation: str) -> list[Told]:
        """All that was told in a conversation, in the order of the log."""
        topics = conversation_topic(conversation), history_topic(conversation)
        return sorted(
            [one for topic in topics for one in await read_topic(self.bus, topic)],
            key=lambda one: one.seq,
        )

    async def state(self, conversation: str) -> SessionState:
        """A session as it is stored."""
        stored = await self.bus.last(subjects.state("session", conversation))
        assert stored is not None
        record = msgspec.json.decode(stored.data, type=Record)
        return msgspec.json.decode(record.data, type=SessionState)

    def _hear(self, packet: Packet) -> None:
        if b'"run.delta"' in packet.data:
            self._heard[packet.subject.rpartition(".")[2]] += 1


async def read_topic(bus: Bus, topic: Topic) -> list[Told]:
    """The facts of a topic."""
    stored = await bus.read_all(subjects.event(topic), after=0)
    found = [(one.seq, decode_any(one.data)) for one in stored]
    return [Told(seq, one.type, msgspec.json.decode(one.data)) for seq, one in found]


@contextlib.asynccontextmanager
async def ward(connect: Open) -> AsyncIterator[Ward]:
    """Deploy what it takes, on two hosts; `connect` opens a connection for a kind of process."""
    await seed_deployments(await connect("host"), [deployed(name) for name in CLASSES])
    hosts = [Host(await connect("host"), name=f"ward-{n}", classes=CLASSES) for n in range(2)]
    try:
        for host in hosts:
            await host.start()
        yield Ward(await connect("edge"), [await connect("edge") for _ in AGENTS])
    finally:
        for host in hosts:
            await host.stop(0)


def deployed(name: str) -> Deployment:
    """One of these types, under its name."""
    cls = CLASSES[name]
    path = f"{cls.__module__}:{cls.__qualname__}"
    return Deployment(name=name, type=path, kind=kind_of(cls), handles=handled_by(cls))
