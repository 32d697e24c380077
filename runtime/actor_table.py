"""The table `[[actor]]` of a configuration: what it may say, and what is wrong with one."""

import math
import re
from collections.abc import Iterator
from datetime import date, time, timedelta
from typing import Annotated, Any

import msgspec

from runtime.lines import Place
from runtime.source import quote
from schemas.subjects import ACTOR_NAME

DURATIONS = ("mail_ttl", "lifetime", "deadline")
SHORTEST_TTL = timedelta(seconds=1)
"""JetStream counts the time that a message may live in whole seconds."""

NAME_WANTED = "expected a lower-case letter, then up to 31 lower-case letters, digits, _ or -"
_TYPE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)

Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class ActorTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One `[[actor]]`: deploys one type under one name."""

    name: str
    type: str
    concurrency: Count = 16
    options: dict[str, Any] = {}
    mail_ttl: timedelta = timedelta(hours=24)
    lifetime: timedelta = timedelta(days=30)
    deadline: timedelta = timedelta(minutes=10)
    attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5


def check_actor_name(name: str) -> None:
    """Raise ValueError unless an actor may be called so."""
    if not ACTOR_NAME.fullmatch(name):
        raise ValueError(f"{quote(name)}: {NAME_WANTED}")


def find_faults(actor: ActorTable) -> Iterator[tuple[Place, str]]:
    """Everything that is wrong with an `[[actor]]`, as far as its types cannot say, and where."""
    if not ACTOR_NAME.fullmatch(actor.name):
        yield ("name",), f"{quote(actor.name)}: {NAME_WANTED}"
    if not _TYPE.fullmatch(actor.type):
        yield ("type",), f'{quote(actor.type)}: expected "package.module:Class"'
    for key in ("mail_ttl", "lifetime"):
        if getattr(actor, key) < SHORTEST_TTL:
            yield (key,), "is shorter than a second; expected 1s or more"
    yield from _find_unfit(actor.options, ("options",))


def _find_unfit(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Where in options TOML says what JSON, in which they are kept, cannot."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _find_unfit(inner, (*place, key))
    elif isinstance(value, list):
        for inner in value:
            yield from _find_unfit(inner, place)
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, f"{value!r}: expected a number"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield place, "a whole number beyond 64 bits; write it in quotes"
    elif isinstance(value, date | time):
        yield place, "a date or time; write it in quotes"
