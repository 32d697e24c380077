"""Compares what a store holds with what it is known to have held, before anything is taken.

The server itself only logs a warning when it drops what it had acknowledged. What to do then
is in runtime/store/repair.py.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runtime.bus import Bus
from runtime.errors import FORBIDDEN, DataMissing, Denied, Unknown
from runtime.loads import list_consumers
from runtime.store.blind import Info, find_blind, reached, stays_blind
from runtime.store.marks import BUCKET, Kept, Mark, MarkFile, newest, read_marks
from runtime.streams import described, find_stream, incarnation

CURE = (
    "Nothing was changed. Restore the store from a backup; or go on with what can still be found"
    " by `--accept-data-loss`: what cannot is lost for good then"
)
SAMPLES = 16
"""Reads that are spread over a stream: each loads a block of some megabytes into the server."""
MOST_READ = 50_000
"""Sequences up to which every message is read where one is thorough."""
SURE_AFTER = 1.0
"""Seconds after which a second look must find the same: a cluster may just be starting."""


@dataclass
class Found:
    """What was seen of a store."""

    streams: dict[str, Info] = field(default_factory=dict)
    consumers: list[Info] | None = None
    """None if we may not see them."""
    marks: dict[str, Mark] = field(default_factory=dict)
    damages: list[str] = field(default_factory=list)
    """Sentences: what is missing, and how that is known."""
    unreadable: list[int] = field(default_factory=list)
    """Single messages that cannot be read."""

    def last_seq(self, stream: str) -> int:
        """Where a stream ends; 0 if it is not there."""
        info = self.streams.get(stream)
        return int(info["state"]["last_seq"]) if info else 0


async def inspect(bus: Bus, kept: Kept | None = None, *, thorough: bool = False) -> Found:
    """Look at a store, at the marks in it, and at those that were kept elsewhere.

    Raises BusFault.

    `thorough` reads every message, unless there are very many.
    """
    found, kept = Found(), kept or Kept()
    # Marks first, then consumers, then streams: each may only move on while we look.
    nodes = await find_stream(bus, f"KV_{BUCKET}")
    found.marks = newest(kept.marks, await read_marks(bus) if nodes else {})
    found.consumers = await _consumers(bus)
    for wanted in described(1):
        if info := await find_stream(bus, wanted["name"]):
            found.streams[wanted["name"]] = info
    found.damages = [*_missing(found), *_shortened(found), *_ahead(found, bus.stream)]
    if not found.damages and bus.stream in found.streams:
        found.damages = [
            *await _headless(bus, found),
            *await _blind(bus, found),
            *await _unreadable(bus, found, kept.given_up if thorough else None),
        ]
    return found


async def check_store(bus: Bus, file: MarkFile | None = None, *, thorough: bool = False) -> Found:
    """Inspect a store and return what was found; raises DataMissing if anything is missing."""
    kept = file.read() if file else None
    found = await inspect(bus, kept, thorough=thorough)
    if found.damages:
        await asyncio.sleep(SURE_AFTER)
        found = await inspect(bus, kept, thorough=thorough)
    refuse(found.damages, kept.complaints if kept else ())
    return found


def refuse(damages: Sequence[str], complaints: Sequence[str] = ()) -> None:
    """Raise DataMissing if there are any."""
    if damages or complaints:
        said = [*damages, *(f"nats-server said of its store: {each}" for each in complaints)]
        raise DataMissing(f"{'; '.join(said)}. {CURE}")


async def _consumers(bus: Bus) -> list[Info] | None:
    try:
        return await list_consumers(bus)
    except Denied as denied:
        return None if denied.code == FORBIDDEN else []


def _missing(found: Found) -> list[str]:
    """A stream that is gone leaves its marks, and the other streams that were made with it."""
    lost = [name for name in found.marks if name not in found.streams]
    if found.streams and described(1)[0]["name"] not in found.streams:
        lost.append(described(1)[0]["name"])
    said = []
    for name in dict.fromkeys(lost):
        mark = found.marks.get(name)
        held = f", which held messages up to {mark.last_seq} at {_when(mark)}," if mark else ""
        said.append(f"the stream {name}{held} is not there any more")
    return said


def _shortened(found: Found) -> list[str]:
    said = []
    for name, mark in found.marks.items():
        info = found.streams.get(name)
        if info is None:
            continue
        last = found.last_seq(name)
        if incarnation(info) != mark.created:
            said.append(
                f"the stream {name} was created anew at {incarnation(info)} in place of the one"
                f" that held messages up to {mark.last_seq} at {_when(mark)}"
            )
        elif last < mark.last_seq:
            said.append(
                f"the stream {name} ends at {last}, but it had got to {mark.last_seq} at"
                f" {_when(mark)}: {mark.last_seq - last} acknowledged messages are missing"
            )
    return said


def _ahead(found: Found, stream: str) -> list[str]:
    """What is stored now would have a number that such a consumer has passed already."""
    last = found.last_seq(stream)
    if stream not in found.streams:
        return []
    ahead = {str(one["name"]): reached(one) for one in found.consumers or []}
    ahead = {name: seq for name, seq in ahead.items() if seq > last}
    if not ahead:
        return []
    furthest = max(ahead.values())
    return [
        f"the stream {stream} ends at {last}, but {len(ahead)} of its consumers had read up to"
        f" {furthest} ({', '.join(sorted(ahead)[:3])}{', …' if len(ahead) > 3 else ''}):"
        " acknowledged messages are missing, and new ones would not be delivered"
    ]


async def _blind(bus: Bus, found: Found) -> list[str]:
    seeming = await find_blind(bus, found.consumers or [], found.last_seq(bus.stream))
    sure = await asyncio.gather(*(stays_blind(bus, one) for one in seeming))
    blind = [one for one, stays in zip(seeming, sure, strict=True) if stays]
    if not blind:
        return []
    said = [f"{one.name} (at {one.reached}, not seeing {one.seq})" for one in blind[:3]]
    return [
        f"{len(blind)} consumers of {bus.stream} do not see messages that are there:"
        f" {', '.join(said)}{', …' if len(blind) > 3 else ''}"
    ]


async def _headless(bus: Bus, found: Found) -> list[str]:
    """The last message cannot go but by its own time to live: whatever else ends it is stored."""
    mark, last = found.marks.get(bus.stream), found.last_seq(bus.stream)
    if mark is None or mark.last_seq != last or not mark.stays(datetime.now(UTC)):
        return []
    if await bus.at(last) is not None:
        return []
    return [f"the last message of the stream {bus.stream}, {last}, is gone"]


async def _unreadable(bus: Bus, found: Found, given_up: list[int] | None) -> list[str]:
    state = found.streams[bus.stream]["state"]
    first, last = int(state["first_seq"]), int(state["last_seq"])
    damages = await _sample(bus)
    if damages or given_up is None or last - first > MOST_READ:
        return damages
    found.unreadable = await _walk(bus, first, last)
    lost = sorted(set(found.unreadable).difference(given_up))
    if not lost:
        return []
    return [
        f"{len(lost)} message(s) of the stream {bus.stream} cannot be read, the first is {lost[0]}:"
        " a block of its store is damaged"
    ]


async def _walk(bus: Bus, first: int, last: int) -> list[int]:
    """Read everything. What is neither there nor deleted, as the server knows, is damaged."""
    absent = set(range(first, last + 1))
    async for page in bus.pages(">", after=first - 1):
        absent.difference_update(stored.seq for stored in page)
    state = (await bus.api(f"STREAM.INFO.{bus.stream}", {"deleted_details": True}))["state"]
    absent.difference_update(state.get("deleted") or ())
    return sorted(seq for seq in absent if int(state["first_seq"]) <= seq)


async def _sample(bus: Bus) -> list[str]:
    """Read here and there: from inside a damaged block the server finds nothing any more."""
    newest_one = await bus.last(">")
    end = newest_one.seq if newest_one else 0
    for sequence in range(1, end + 1, max(1, end // SAMPLES)):
        # From the leader: a replica that is behind has not got so far, and is not damaged.
        try:
            stored = await bus.first(after=sequence - 1)
        except Unknown:
            stored = None
        if stored is None:
            return [
                f"the stream {bus.stream} cannot be read from {sequence} on, although it has"
                f" messages up to {end}: a block of its store is damaged"
            ]
    return []


def _when(mark: Mark) -> str:
    return f"{mark.at:%Y-%m-%d %H:%M:%S} UTC"
