"""A small world in memory: sessions and batches, their mail, and models that do as they are told.

Each message is one turn and one commit, as the runtime has it; only the order is the test's.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec

from actors.batch import Batch
from actors.session import Session
from actors.session_options import SessionOptions
from runtime.errors import Reject
from runtime.record import encode_state
from runtime.turn import Effects, Turn
from schemas.base import Address, Message, tag_of
from schemas.conversation import BatchState
from schemas.deployment import Deployment
from schemas.envelope import Envelope, decode_any, encode, seal
from schemas.model import Generate, Generated
from schemas.record import RunFailed, RunRecord
from schemas.session import SessionState

CLASSES: dict[str, Any] = {"session": Session, "batch": Batch}
OPTIONS: dict[str, Any] = {"session": SessionOptions(), "batch": None}
MODELS = ("one", "two", "three", "four")


def deployments(*models: str) -> dict[str, Deployment]:
    keyed = [Deployment(name=name, type="x:Y", kind="keyed") for name in CLASSES]
    handles = (tag_of(Generate),)
    workers = [Deployment(name=n, type="x:Y", kind="worker", handles=handles) for n in models]
    return {one.name: one for one in (*keyed, *workers)}


@dataclass
class Instance:
    """What is stored of one instance, and the mail that it has not seen."""

    state: bytes = b""
    timers: Any = field(default_factory=dict)
    mail: deque[tuple[int, bytes]] = field(default_factory=deque)
    seen: list[bytes] = field(default_factory=list)


class World:
    """`runs` are the jobs whose runs are open, `jobs` all by their runs, in order; `events` is all
    that followers were told."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.deployed = deployments(*MODELS)
        self.options = dict(OPTIONS)
        self.instances: dict[Address, Instance] = defaultdict(Instance)
        self.runs: dict[str, Envelope[Generate]] = {}
        self.events: list[tuple[Message, Envelope[Any]]] = []
        self.jobs: dict[str, Generate] = {}
        self.reminders: list[tuple[datetime, Address, bytes]] = []
        self.facts: list[tuple[str, Message]] = []
        """All that was told, on any topic, in order."""
        self.letters: list[tuple[Address, Message]] = []
        """Mail to those who do not live here."""
        self._sequence = 0

    # -- what tests do ---------------------------------------------------------------------

    def say(self, to: Address, message: Message, **facts: Any) -> None:
        """Put a message into an instance's mail."""
        facts = {"id": f"m{self._next()}", "source": "test", "time": self.now, **facts}
        self.put(to, encode(seal(message, subject=to.key, **facts)))

    def ask(self, to: Address, message: Message, **facts: Any) -> Any:
        """Say something and return the answer; what waits before it is handled first."""
        self.say(to, message, **facts)
        answer = None
        while self.instances[to].mail:
            answer = self.handle(to)
        return answer

    def waiting(self) -> list[Address]:
        """Who has mail."""
        return [address for address, one in self.instances.items() if one.mail]

    def handle(self, to: Address) -> Any:
        """One turn: the next message is applied, and what is sent is stored."""
        instance = self.instances[to]
        sequence, data = instance.mail.popleft()
        instance.seen.append(data)
        cls = CLASSES[to.actor]
        envelope = cls.decode_mail(data)
        effects = Effects(instance.timers)
        if envelope.reminder and not effects.come(envelope.reminder, envelope.generation):
            return None
        actor = cls(self.options[to.actor])
        actor.state = self.state(to)
        turn = Turn(
            self.deployed[to.actor],
            self.deployed,
            envelope,
            effects,
            sequence=sequence,
            now=self.now,
        )
        try:
            answer = getattr(actor, cls.handlers[type(envelope.data)])(envelope.data, turn)
        except Reject as reject:
            return reject.refusal
        instance.state, instance.timers = bytes(encode_state(actor.state)), effects.timers
        self._store(to, effects)
        return answer

    def end(self, run: str, result: Message) -> None:
        """A run ends with a result, in one commit."""
        job = self.runs.pop(run)
        actor, _, key = (job.resultto or job.source).partition("/")
        self.say(Address(actor, key), result, runid=run, source=f"model/{job.subject}")

    def advance(self, by: timedelta) -> None:
        """Let time go by; what was to be reminded of comes as mail."""
        self.now += by
        due = [one for one in self.reminders if one[0] <= self.now]
        self.reminders = [one for one in self.reminders if one[0] > self.now]
        for _, to, data in sorted(due, key=lambda one: one[0]):
            self.put(to, data)

    # -- what tests look at ----------------------------------------------------------------

    def state(self, of: Address) -> Any:
        data = self.instances[of].state
        kind = CLASSES[of.actor].state_type
        return msgspec.json.decode(data, type=kind) if data else kind()

    def write(self, of: Address, state: msgspec.Struct) -> None:
        """Give an instance a state, as if it had come to it by itself."""
        self.instances[of].state = bytes(encode_state(state))

    def sessions(self) -> Iterator[tuple[Address, SessionState]]:
        return ((a, self.state(a)) for a in list(self.instances) if a.actor == "session")

    def batches(self) -> Iterator[tuple[Address, BatchState]]:
        return ((a, self.state(a)) for a in list(self.instances) if a.actor == "batch")

    def told(self, kind: type[Any]) -> list[Any]:
        return [event for event, _ in self.events if isinstance(event, kind)]

    # -- storing ---------------------------------------------------------------------------

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def put(self, to: Address, data: bytes) -> None:
        self.instances[to].mail.append((self._next(), data))

    def _store(self, sender: Address, effects: Effects) -> None:
        for message in effects.sent:
            kind, *rest = message.subject.split(".")
            getattr(self, f"_store_{kind}")(rest, message.data)
        for message in effects.scheduled.values():
            due = decode_any(message.data).due
            assert due is not None
            self.reminders.append((due, sender, message.data))

    def _store_mail(self, rest: list[str], data: bytes) -> None:
        to = Address(rest[0], rest[1])
        if to.actor in CLASSES:
            self.put(to, data)
        else:
            self.letters.append((to, _read(decode_any(data))))

    def _store_event(self, rest: list[str], data: bytes) -> None:
        envelope = decode_any(data)
        event = _read(envelope)
        self.facts.append((rest[0], event))
        if rest[0] == "conversation":
            self.events.append((event, envelope))

    def _store_work(self, rest: list[str], data: bytes) -> None:
        job = msgspec.json.decode(data, type=Envelope[Generate])
        self.runs[job.runid] = job
        self.jobs[job.runid] = job.data

    def _store_run(self, rest: list[str], data: bytes) -> None:
        if msgspec.json.decode(data, type=RunRecord).state == "stopped":
            self.runs.pop(rest[0], None)


def turn_of(world: World, address: Address) -> Turn:
    """A turn in which nothing was said."""
    sealed = seal(RunFailed(run="", reason="", attempts=0), id="m", source="t", subject=address.key)
    deployed = world.deployed
    return Turn(deployed[address.actor], deployed, sealed, Effects({}), sequence=1, now=world.now)


def _read(envelope: Envelope[msgspec.Raw]) -> Message:
    """A message of any kind that there is."""
    return msgspec.json.decode(envelope.data, type=_kinds()[envelope.type])


@cache
def _kinds() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    classes: list[type[Message]] = [Message]
    while classes:
        below = [sub for cls in classes for sub in cls.__subclasses__()]
        found |= {tag_of(cls): cls for cls in below}
        classes = below
    return found


def answer_of(job: Generate, how: str, number: int = 1) -> Message:
    """A result of a job: answered, refused, failed, or given up."""
    if how == "given_up":
        return RunFailed(run="", reason="no result within 0:10:00", attempts=5)
    return Generated(
        task=job.task,
        batch=job.batch,
        outcome=how,  # type: ignore[arg-type]  # one of three words
        excerpt=f"number {number}",
        reason="" if how == "answered" else f"it {how}",
    )
