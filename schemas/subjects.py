"""The only place that spells a subject or names a stream.

mail.<actor>.<key>             to one instance; stored as mail.<shard>.<actor>.<key>
work.<actor>.<priority>.<key>  a job for any instance of a worker type
state.<actor>.<key>            an instance's record
event.<kind>.<id>              facts of one topic; republished as live.event.<kind>.<id>
run.<id>                       one job's execution
timer.<actor>.<key>.<name>     a message to its own address, later; a name is used once
dead.<actor>.<key>             what nobody could handle
dead.SETTLED.<sequence>        that a dead letter was replayed or discarded; no actor is called so
seen.<kind>.<id>               who is there and who is typing; not of the stream, never stored
"""

import re
from typing import Literal

from schemas.base import Address, Topic, token

BUS = "BUS"
SHARDS = 16
PRIORITIES = 3

ACTOR_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""What an actor may be called: its name is a subject token and part of a consumer's name."""
_ACTOR_AT = {"mail": (1, 3), "work": (0, 3), "dead": (0, 2)}
"""By kind: which token after it is the actor, of how many."""


def mail(address: Address) -> str:
    """The subject that reaches one instance."""
    return f"mail.{address.actor}.{token(address.key)}"


def shard_mail(actor: str, shard: int) -> str:
    """The filter for one shard of a keyed type, after the stream's subject transform."""
    return f"mail.{shard}.{actor}.*"


def stored_at(address: Address) -> str:
    """Where the messages to one instance are stored."""
    return f"mail.{shard_of(address.actor, address.key)}.{address.actor}.{token(address.key)}"


def stored_mail(actor: str, key: str) -> str:
    """The filter for what one instance was sent; `key` is already a token."""
    return f"mail.*.{actor}.{key}"


def work(actor: str, priority: int, key: str) -> str:
    """The subject of a job; priority 0 is the most urgent."""
    return f"work.{actor}.{priority}.{token(key)}"


def all_work(actor: str, priority: int) -> str:
    """The filter for one priority of a worker type."""
    return f"work.{actor}.{priority}.*"


def work_of(actor: str) -> str:
    """The filter for all jobs of a worker type."""
    return f"work.{actor}.*.*"


def state(actor: str, key: str) -> str:
    """The subject that holds an instance's record; `key` is already a token."""
    return f"state.{actor}.{key}"


def event(topic: Topic) -> str:
    """The subject of a topic's facts."""
    return f"event.{token(topic.kind)}.{token(topic.id)}"


def events_of(kind: str) -> str:
    """The filter for the facts of all topics of a kind."""
    return f"event.{token(kind)}.*"


def live(topic: Topic) -> str:
    """Where the broker repeats a topic's facts once they are stored."""
    return f"live.{event(topic)}"


def seen(topic: Topic) -> str:
    """Where it is said who is there and who is typing; nothing of it is stored."""
    return f"seen.{token(topic.kind)}.{token(topic.id)}"


def all_seen(kind: str) -> str:
    """The filter for the same of all topics of a kind."""
    return f"seen.{token(kind)}.*"


def run(run_id: str) -> str:
    """The subject that holds the record of a run."""
    return f"run.{token(run_id)}"


def timer(address: Address, name: str) -> str:
    """The subject that holds a reminder of an instance."""
    return f"timer.{address.actor}.{token(address.key)}.{token(name)}"


def timers(actor: str, key: str) -> str:
    """The filter for all reminders of an instance; `key` is already a token."""
    return f"timer.{actor}.{key}.*"


def dead(actor: str, key: str) -> str:
    """The subject of an address's dead letters; `key` is already a token."""
    return f"dead.{actor}.{key}"


def settled(sequence: int | Literal["*"]) -> str:
    """The subject that says what became of the dead letter at a sequence, or of all."""
    return f"dead.SETTLED.{sequence}"


def parts(subject: str) -> tuple[str, str, str]:
    """The kind, actor and key token of where mail or a job is stored, or a dead letter.

    Raises ValueError for anything else.
    """
    kind, *rest = subject.split(".")
    place = _ACTOR_AT.get(kind)
    if place is None or len(rest) != place[1] or not ACTOR_NAME.fullmatch(rest[place[0]]):
        raise ValueError(f"{subject!r} holds neither mail nor a job nor a dead letter")
    return kind, rest[place[0]], rest[-1]


def again(stored: str) -> str:
    """Where to publish what is stored on a subject, for it to be stored there again.

    Raises ValueError for what is neither mail nor a job.
    """
    kind, actor, key = parts(stored)
    if kind == "mail":
        return f"mail.{actor}.{key}"
    if kind == "work":
        return stored
    raise ValueError(f"{stored!r} holds neither mail nor a job")


def key_token(subject: str) -> str:
    """The key's token in a mail, work or state subject."""
    return subject.rsplit(".", 1)[-1]


def shard_consumer(actor: str, shard: int) -> str:
    """The durable of one shard of a keyed type."""
    return f"mail_{actor}_{shard}"


def work_consumer(actor: str, priority: int) -> str:
    """The durable of one priority of a worker type."""
    return f"work_{actor}_{priority}"


def shard_of(actor: str, key: str) -> int:
    """The shard of a key, as the server computes it."""
    return shard_of_token(actor, token(key))


def shard_of_token(actor: str, key: str) -> int:
    """The same for a key that is a token already: FNV-1a (32 bit) of the tokens."""
    digest = 0x811C9DC5
    for byte in f"{actor}{key}".encode():
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return digest % SHARDS
