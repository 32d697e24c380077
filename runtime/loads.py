"""What waits for whom, and for how long, by the consumers' own counts and the records of keys."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from runtime.bus import Bus, Stored
from runtime.controls import Controls
from runtime.record import read_record
from schemas import subjects
from schemas.control import Control
from schemas.deployment import Deployment
from schemas.envelope import UNREADABLE
from schemas.record import Record


class Load(msgspec.Struct):
    """What the consumers of one actor say, added up; `since` is when the oldest message came."""

    waiting: int = 0
    in_hand: int = 0
    retried: int = 0
    seq: int = 0
    since: datetime | None = None

    def note(self, stored: Stored | None) -> None:
        """Count a message that waits, if it is the oldest."""
        if stored is not None and (self.since is None or stored.time < self.since):
            self.seq, self.since = stored.seq, stored.time


class Held(msgspec.Struct, kw_only=True):
    """A key that operators have said something about, and what waits for it."""

    control: Control
    waiting: int = 0
    seq: int = 0
    since: datetime | None = None


async def read_loads(bus: Bus, deployments: Iterable[Deployment]) -> dict[str, Load]:
    """What waits for each actor; what was put aside for paused keys is in `read_held`.

    Of those too that no host has ever run, which have no consumers yet.
    """
    loads: dict[str, Load] = {}
    for consumer in await list_consumers(bus):
        kind, _, rest = str(consumer["name"]).partition("_")
        if kind not in ("mail", "work"):
            continue
        load = loads.setdefault(rest.rpartition("_")[0], Load())
        load.waiting += int(consumer["num_pending"])
        load.in_hand += int(consumer["num_ack_pending"])
        load.retried += int(consumer["num_redelivered"])
        if consumer["num_pending"] or consumer["num_ack_pending"]:
            # All up to the floor was acknowledged, so the next one was not.
            floor = int(consumer["ack_floor"]["stream_seq"])
            load.note(await bus.at(floor + 1, str(consumer["config"]["filter_subject"])))
    for one in deployments:
        if one.name not in loads:
            loads[one.name] = await _never_taken(bus, one)
    return loads


async def _never_taken(bus: Bus, one: Deployment) -> Load:
    work = subjects.work_of(one.name)
    subject = subjects.stored_mail(one.name, "*") if one.kind == "keyed" else work
    page = await bus.read(subject, after=0, limit=1)
    load = Load(waiting=page[0].pending + 1 if page else 0)
    load.note(page[0] if page else None)
    return load


async def read_held(bus: Bus) -> list[Held]:
    """Every key that operators have said something about, by its address."""
    controls = Controls(bus)
    await controls.look()
    found = [await _held(bus, *key, control) for key, control in controls.keys.items()]
    return sorted(found, key=lambda one: one.control.address)


async def _held(bus: Bus, actor: str, key: str, control: Control) -> Held:
    _, record = await record_of(bus, actor, key)
    after = record.done if record else 0
    waiting, first = await waiting_mail(bus, actor, key, after)
    if first is None:
        return Held(control=control)
    return Held(control=control, waiting=waiting, seq=first.seq, since=first.time)


async def waiting_mail(bus: Bus, actor: str, key: str, done: int) -> tuple[int, Stored | None]:
    """How many messages an instance has not applied, and the first; `key` is a token."""
    page = await bus.read(subjects.stored_mail(actor, key), after=done, limit=1)
    return (page[0].pending + 1, page[0]) if page else (0, None)


async def record_of(bus: Bus, actor: str, key: str) -> tuple[Stored | None, Record | None]:
    """An instance's record as it is stored, and read if it can be; `key` is a token."""
    stored = await bus.last(subjects.state(actor, key))
    try:
        return stored, read_record(stored.data, bus) if stored else None
    except UNREADABLE:
        return stored, None


async def list_consumers(bus: Bus) -> list[dict[str, Any]]:
    """Every consumer of the stream, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        page = await bus.api(f"CONSUMER.LIST.{bus.stream}", {"offset": len(found)})
        consumers = page.get("consumers") or []
        found += consumers
        if not consumers or len(found) >= int(page["total"]):
            return found
