"""What a handler of a keyed actor may do besides return. Next: runtime/instance.py.

Nothing here leaves at once: effects are collected, and stored with the new state or not at all.
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import structlog

from runtime.bus import GROUP_MESSAGES, Outgoing, expect, expiry
from runtime.connection import Packet
from runtime.errors import TurnError
from schemas import subjects
from schemas.base import Address, Job, Message, Topic, tag_of
from schemas.deployment import Deployment, Kind
from schemas.envelope import JSON, VERSION, Envelope, encode, seal
from schemas.record import DeadLetter, RunRecord

EVENT_TTL = timedelta(days=30)
DEAD_TTL = timedelta(days=30)
DAY = timedelta(days=1)
MOST_EFFECTS = GROUP_MESSAGES - 10
MOST_BYTES = 512 * 1024
"""Of one message."""
TURN_BYTES = 900 * 1024
MOST_TIMERS = 500
MOST_REASON = 1000

ROLLUP = {"Nats-Rollup": "sub"}

Deployments = Mapping[str, Deployment]
Value = TypeVar("Value")


def run_ttl(deployment: Deployment) -> timedelta:
    """How long a run's record is kept: its job's TTL, its deadline, and a day."""
    return deployment.mail_ttl + deployment.deadline + DAY


class Effects:
    """All that one or several messages of a key have sent, in order, not yet stored.

    `timers` are the current generations by name, `stored` those that the stream may hold a
    schedule of. A reminder is stored once per name, whatever became of it in between.
    """

    # What is changed is replaced, never altered in place, except that `sent` grows: so a mark
    # is a few references, however many reminders there are.

    def __init__(self, timers: Mapping[str, int]) -> None:
        self.sent: list[Outgoing] = []
        self.timers = timers
        self.stored = timers
        self.scheduled: dict[str, Outgoing] = {}
        self.size = 0
        """Bytes of it all, about."""

    def send(self, message: Outgoing) -> None:
        """Add a message."""
        self.sent.append(message)
        self.size += message.size

    def schedule(self, name: str, message: Outgoing) -> None:
        """Add a reminder, in place of its namesake."""
        self.scheduled = {**self.scheduled, name: message}
        self.size += message.size

    def mark(self) -> tuple[Any, ...]:
        """Remember this point, to come back to it when a message is refused."""
        return self.sent, len(self.sent), self.timers, self.stored, self.scheduled, self.size

    def undo(self, mark: tuple[Any, ...]) -> None:
        """Forget what was sent since."""
        self.sent, length, self.timers, self.stored, self.scheduled, self.size = mark
        del self.sent[length:]

    def remind(self, name: str, generation: int) -> None:
        """Make a generation of a reminder the current one."""
        self.timers = {**self.timers, name: generation}

    def forget(self, name: str) -> None:
        """Let no generation of a reminder be the current one."""
        self.timers = _without(self.timers, name)
        self.scheduled = _without(self.scheduled, name)

    def come(self, name: str, generation: int) -> bool:
        """Note that a reminder has come; False if it is not the current one of its name."""
        if self.timers.get(name) != generation:
            return False
        self.timers = _without(self.timers, name)
        self.stored = _without(self.stored, name)
        return True

    def withdraw(self, subject: str) -> None:
        """Take back what was sent about a run in this commit: a subject is written once.

        A run that was started here goes together with its job, as if never started.
        """
        for index, message in enumerate(self.sent):
            if message.subject == subject:
                started = message.headers.get("Nats-Expected-Last-Subject-Sequence") == "0"
                self.sent = self.sent[:index] + self.sent[index + (2 if started else 1) :]
                return

    def outgoing(self, state: Outgoing, address: Address) -> list[Outgoing]:
        """Everything to store, `state` first; replaced and forgotten timers are cancelled.

        The server cancels one schedule per message. What finds no room stays, fires, and is
        dropped for its generation.
        """
        messages = [state, *self.sent]
        if self.timers is self.stored and not self.scheduled:  # none came, and none was set
            return messages
        old = [
            timer(address, name, generation)
            for name, generation in sorted(self.stored.items())
            if self.timers.get(name) != generation
        ]
        for index, subject in enumerate(old[: len(messages)]):
            message = messages[index]
            headers = {**message.headers, **cancel(subject)}
            messages[index] = Outgoing(message.subject, message.data, headers)
        return [*messages, *self.scheduled.values()]

    def __len__(self) -> int:
        return len(self.sent) + len(self.scheduled)


def _without(found: Mapping[str, Value], name: str) -> dict[str, Value]:
    return {key: value for key, value in found.items() if key != name}


def timer(address: Address, name: str, generation: int) -> str:
    """The subject of one generation of a reminder.

    Each has its own: when a schedule fires, the server purges the whole subject a moment
    later, and with it whatever has replaced it there by then.
    """
    return subjects.timer(address, f"{name}-{generation}")


def cancel(timer: str) -> dict[str, str]:
    """The headers that make the broker drop a schedule together with the message's commit."""
    return {"Nats-Schedule-Next": "purge", "Nats-Scheduler": timer}


class Turn:
    """One message being applied: its facts, and what its handler may send.

    `now` is when the turn began; together with `new_id` it is the only source of time and
    chance, so that a turn can be played again.
    """

    def __init__(
        self,
        deployment: Deployment,
        deployments: Deployments,
        envelope: Envelope[Any],
        effects: Effects,
        *,
        sequence: int,
        now: datetime,
    ) -> None:
        self.envelope = envelope
        self.key = envelope.subject
        self.address = Address(deployment.name, self.key)
        self.now = now
        self.sequence = sequence
        self._deployment = deployment
        self._deployments = deployments
        self._effects = effects
        self._ids = 0
        self._said = 0

    def deployed(self, name: str, *kinds: Kind, handling: type[Message] | None = None) -> bool:
        """Whether an actor of that name is deployed, as one of `kinds` if any are given.

        With `handling` it must also be known to handle that message, where that is known.
        """
        found = self._deployments.get(name)
        if found is None or (kinds and found.kind not in kinds):
            return False
        return handling is None or not found.handles or tag_of(handling) in found.handles

    def furthest(self, name: str) -> timedelta:
        """How far ahead instances of a deployed type can be reminded of something."""
        return self._find(name, "keyed").furthest

    @cached_property
    def log(self) -> Any:
        """A logger that knows the message. Made when asked for: most handlers never log."""
        return structlog.get_logger().bind(actor=str(self.address), message=self.envelope.id)

    def tell(self, to: Address, message: Message) -> None:
        """Send a message to a keyed actor. Raises TurnError if no such type is deployed."""
        target = self._find(to.actor, "keyed")
        self._send(subjects.mail(to), self._seal(message, to.key), expiry(target.mail_ttl))

    def emit(self, topic: Topic, event: Message, *, ttl: timedelta = EVENT_TTL) -> None:
        """Tell everyone who follows a topic, now or later."""
        sealed = self._seal(event, topic.id)
        self._send(subjects.event(topic), sealed, expiry(ttl))

    def start(
        self,
        worker: Address,
        job: Job[Any],
        *,
        priority: int = 1,
        topic: Topic | None = None,
        expires: datetime | None = None,
        answer_to: Address | None = None,
    ) -> str:
        """Start a job; returns its run. The result comes back as a message, or to `answer_to`.

        `priority` is 0 (first), 1 or 2. `topic` is where its deltas are heard. Past `expires`
        it is not done any more, and `RunFailed` comes back.
        Raises TurnError if no such worker is deployed.
        """
        target = self._find(worker.actor, "worker", "remote")
        if not 0 <= priority < subjects.PRIORITIES:
            raise TurnError(f"priority {priority!r}: expected 0, 1 or 2")
        run = self.new_id()
        record = RunRecord(job=f"{worker}")
        # No rollup: there is nothing before it, and the server would look.
        headers = {**expect(0), **expiry(run_ttl(target))}
        self._send(subjects.run(run), encode(record), headers)
        sealed = self._seal(
            job,
            worker.key,
            runid=run,
            topic=str(topic) if topic else "",
            expires=expires,
            resultto=str(answer_to) if answer_to else "",
        )
        subject = subjects.work(worker.actor, priority, worker.key)
        self._send(subject, sealed, expiry(target.mail_ttl))
        return run

    def stop(self, run: str, reason: str) -> None:
        """Stop a run: from this turn's commit on the broker refuses whoever holds it."""
        record = RunRecord(job="", state="stopped", reason=reason[:MOST_REASON])
        keep = self._deployment.mail_ttl + DAY
        self._effects.withdraw(subjects.run(run))
        self._send(subjects.run(run), encode(record), {**ROLLUP, **expiry(keep)})

    def remind(self, name: str, message: Message, *, after: timedelta) -> None:
        """Send this instance a message later; replaces the reminder of the same name.

        Raises TurnError for one later than the instance's lifetime, or one too many.
        """
        if after > self._deployment.furthest:
            raise TurnError(
                f"a reminder after {after}: nobody would know of it any more, for the instance"
                f" lives {self._deployment.furthest} from its last turn; give the type a longer"
                " lifetime"
            )
        # The sequence of the input never repeats, so no earlier reminder can pass for this one.
        generation = self.sequence
        at = self.now + max(after, timedelta())
        sealed = self._seal(message, self.key, reminder=name, generation=generation, due=at)
        headers = {
            "Nats-Schedule": f"@at {at.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}",
            "Nats-Schedule-Target": subjects.mail(self.address),
            "Nats-Schedule-TTL": expiry(self._deployment.mail_ttl)["Nats-TTL"],
        }
        subject = timer(self.address, name, generation)
        self._effects.schedule(name, Outgoing(subject, sealed, headers))
        self._effects.remind(name, generation)
        if len(self._effects.timers) > MOST_TIMERS:
            raise TurnError(f"more than {MOST_TIMERS} reminders; forget those that are not needed")
        self._check_size()

    def forget(self, name: str) -> None:
        """Cancel a reminder. Harmless if there is none; one on its way is dropped."""
        self._effects.forget(name)

    def new_id(self) -> str:
        """A new id of 128 bits: the same again if this turn is played again."""
        self._ids += 1
        seed = f"{self.envelope.id}/{self.sequence}/{self.address}/{self._ids}"
        return hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _find(self, name: str, *kinds: str) -> Deployment:
        found = self._deployments.get(name)
        if found is None:
            raise TurnError(f"no actor {name!r} is deployed; deploy it, or correct the name")
        if found.kind not in kinds:
            raise TurnError(f"actor {name!r} is {found.kind}, expected {' or '.join(kinds)}")
        return found

    def _send(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        if len(data) > MOST_BYTES:
            raise TurnError(f"{subject}: a message of {len(data)} bytes, at most {MOST_BYTES}")
        self._effects.send(Outgoing(subject, data, headers))
        self._check_size()

    def _check_size(self) -> None:
        if len(self._effects) > MOST_EFFECTS:
            raise TurnError(
                f"a turn may send at most {MOST_EFFECTS} messages;"
                " send a part, and tell yourself to go on"
            )
        if self._effects.size > TURN_BYTES:
            raise TurnError(
                f"a turn may send at most {TURN_BYTES} bytes; send a part, and tell yourself"
                " to go on"
            )

    def _seal(self, message: Message, subject: str, **facts: Any) -> bytes:
        came = self.envelope
        self._said += 1
        # Not by `seal`, which takes twice as long: this is done for all that actors say.
        return encode(
            Envelope(
                specversion=VERSION,
                datacontenttype=JSON,
                type=tag_of(message),
                data=message,
                id=f"{self.sequence}.{self._said}",
                source=str(self.address),
                subject=subject,
                time=self.now,
                correlationid=came.correlationid or came.id,
                causationid=came.id,
                traceparent=came.traceparent,
                principal=came.principal,
                **facts,
            )
        )


def dead_letter(
    actor: str, key: str, packet: Packet, sequence: int, reason: str, attempts: int
) -> Outgoing:
    """The message that keeps what nobody could handle; `key` is the subject's token."""
    letter = DeadLetter(
        subject=packet.subject,
        sequence=sequence,
        reason=reason[: 2 * MOST_REASON],
        attempts=attempts,
        **_body(packet.data),
    )
    sealed = seal(letter, id=f"{sequence}.dead", source=f"{actor}/{key}", subject=key)
    return Outgoing(subjects.dead(actor, key), encode(sealed), expiry(DEAD_TTL))


def _body(data: bytes) -> dict[str, str]:
    """A body as a dead letter keeps it: as text, in base64 where that is shorter, or cut.

    What the edge or an actor can send always fits whole; the rest of anything larger stays in
    the stream, at the letter's sequence, until its TTL.
    """
    try:
        text = data.decode()
        if len(encode(text)) <= TURN_BYTES * 3 // 4:
            return {"body": text}
    except UnicodeDecodeError:
        pass
    return {"body_base64": base64.b64encode(data[:MOST_BYTES]).decode()}
