"""What is deployed: one value of the bucket `config`, replaced whole by compare-and-set.

Seeded from the configuration file; what is deployed or removed live wins over the file.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import structlog

from runtime.bus import Bus
from runtime.errors import ConfigError, Conflict, Unknown
from runtime.kv import Bucket
from schemas.deployment import Deployment, Entry, Roster, is_same
from schemas.envelope import UNREADABLE

log = structlog.get_logger()

BUCKET = "config"
KEY = "deployments"
MOST_BYTES = 512 * 1024

_decode = msgspec.json.Decoder(Roster).decode
_encode = msgspec.json.encode


class Kept(NamedTuple):
    """A roster as the bucket keeps it; `seq` is what a compare-and-set compares."""

    roster: Roster
    seq: int


async def read_deployments(bus: Bus) -> dict[str, Deployment]:
    """All that is deployed, by name."""
    kept = await read_roster(bus)
    return kept.roster.deployments() if kept else {}


async def read_roster(bus: Bus) -> Kept | None:
    """What is deployed, or None if nothing ever was; raises ConfigError if nobody can read it."""
    stored = await Bucket(bus, BUCKET).get(KEY)
    return Kept(_read(stored.data), stored.seq) if stored else None


async def read_history(bus: Bus) -> list[Roster]:
    """The last rosters that the bucket keeps, oldest first."""
    return [_read(stored.data) for stored in await Bucket(bus, BUCKET).history(KEY)]


async def replace_roster(
    bus: Bus, before: Kept | None, entries: Iterable[Entry], *, by: str, note: str
) -> Roster:
    """Deploy `entries` instead of `before`, all or nothing; returns the new roster.

    Raises Conflict if somebody else deployed meanwhile, ConfigError if it is too large.
    """
    revision = before.roster.revision + 1 if before else 1
    listed = tuple(sorted(entries, key=lambda one: one.deployment.name))
    roster = Roster(revision=revision, at=datetime.now(UTC), by=by, note=note, entries=listed)
    data = _encode(roster)
    if len(data) > MOST_BYTES:
        raise ConfigError(
            f"all deployments together take {len(data)} bytes, at most {MOST_BYTES};"
            " shorten their options"
        )
    bucket = Bucket(bus, BUCKET)
    try:
        await bucket.replace(KEY, data, before.seq if before else 0)
    except Unknown:
        stored = await bucket.get(KEY)
        if stored is None or stored.data != data:
            raise
    return roster


async def seed_deployments(bus: Bus, deployments: Iterable[Deployment]) -> None:
    """Deploy what a file names, unless it was deployed or removed live."""
    wanted = list(deployments)
    while True:
        before = await read_roster(bus)
        entries = {one.deployment.name: one for one in before.roster.entries} if before else {}
        seeded = {one.name: _renew(entries.get(one.name), one) for one in wanted}
        news = {name: entry for name, entry in seeded.items() if entry is not None}
        if not news:
            return
        entries |= news
        note = f"from a configuration file: {', '.join(news)}"
        try:
            await replace_roster(bus, before, entries.values(), by="host", note=note)
        except Conflict:
            continue
        for name, entry in news.items():
            log.info("actor_deployed", actor=name, type=entry.deployment.type)
        return


def _renew(there: Entry | None, wanted: Deployment) -> Entry | None:
    """What a file's deployment makes of what is there; None if that stays as it is."""
    if there is None:
        return Entry(source="file", deployment=wanted)
    if there.removed:
        log.warning("live_removal_kept", actor=wanted.name, cure="callboard deploy FILE")
        return None
    wanted = _as_stored(wanted)
    if there.deployment == wanted:
        return None
    if there.source == "live" and not is_same(there.deployment, wanted):
        log.warning("live_deployment_kept", actor=wanted.name, cure="callboard deploy FILE")
        return None
    return Entry(source=there.source, deployment=wanted)


def _as_stored(deployment: Deployment) -> Deployment:
    """As it will be read: what is a tuple here is a list there."""
    return msgspec.json.decode(_encode(deployment), type=Deployment)


def _read(data: bytes) -> Roster:
    try:
        return _decode(data)
    except UNREADABLE as error:
        raise ConfigError(
            f"what is deployed cannot be read ({error}): bucket {BUCKET!r}, key {KEY!r} was"
            " written by another version, or by hand; put an earlier value back"
        ) from None
