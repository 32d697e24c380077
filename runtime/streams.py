"""Creates the streams of nats/streams.json, or checks that they are as it says.

A stream that differs is refused, never changed: what it holds was promised to somebody.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from runtime.bus import Bus
from runtime.codes import UNKNOWN_STREAM
from runtime.errors import FORBIDDEN, Denied, StreamMismatch, Unavailable
from schemas import subjects

log = structlog.get_logger()

INCARNATION = "created"
_IN_USE = 10058
_NO_STORE = "error creating store for stream"
"""What the server says whatever it was; its code (10049) is that of any stream it cannot create."""
_PAUSES = (0.05, 0.2, 0.5)
_LOOKS = 100
_LOOK_EVERY = 0.1

DESCRIPTION = Path(__file__).parent.parent / "nats" / "streams.json"


def described(replicas: int) -> list[dict[str, Any]]:
    """The streams that must exist, as the server's API wants them."""
    found: dict[str, Any] = msgspec.json.decode(DESCRIPTION.read_bytes())
    # A node that was killed may not be able to truncate a compressed block when it starts again;
    # if all were, the stream is gone with them (nats-server 2.15.1).
    differs = {"num_replicas": replicas, **({"compression": "none"} if replicas > 1 else {})}
    return [{**stream, **differs} for stream in found["streams"]]


async def ensure_streams(bus: Bus, *, replicas: int = 1) -> None:
    """Create what is missing and check what is there.

    Raises StreamMismatch with every difference, Denied if the server refuses, Unavailable while
    one is missing that only others may create.
    """
    for wanted in described(replicas):
        info = await _find_or_create(bus, wanted)
        _compare(wanted, info["config"])
        if wanted["name"] == subjects.BUS:
            bus.created = incarnation(info)
            bus.replicas = replicas


async def _find_or_create(bus: Bus, wanted: dict[str, Any]) -> dict[str, Any]:
    name = wanted["name"]
    if found := await find_stream(bus, name):
        return found
    return await create_stream(bus, wanted, new_incarnation())


async def find_stream(bus: Bus, name: str) -> dict[str, Any] | None:
    """What the server says of a stream; None if there is none."""
    try:
        return await bus.api(f"STREAM.INFO.{name}")
    except Denied as denied:
        if denied.code == UNKNOWN_STREAM:
            return None
        raise


async def create_stream(bus: Bus, wanted: dict[str, Any], created: str) -> dict[str, Any]:
    """Create a stream, as the incarnation `created`.

    That is kept in the stream itself: a server that finds the messages of a stream whose
    description was damaged takes them over, but then believes that it is new.
    """
    name = str(wanted["name"])
    try:
        info = await _create(bus, {**wanted, "metadata": {INCARNATION: created}})
    except Denied as denied:
        if denied.code == _IN_USE:
            return await _other_ones(bus, name)
        if denied.code != FORBIDDEN:
            raise
        raise Unavailable(f"stream {name} is missing; a host creates it, we may not") from None
    log.info("stream_created", stream=name)
    return info


async def _create(bus: Bus, config: dict[str, Any]) -> dict[str, Any]:
    """Create a stream, if need be while the server still clears away what was there before.

    It removes the folder of all streams behind the last one, perhaps under the next one.
    """
    name, pauses = config["name"], list(_PAUSES)
    while True:
        try:
            return await bus.api(f"STREAM.CREATE.{name}", config)
        except Denied as denied:
            if _NO_STORE not in str(denied):
                raise
            if not pauses:
                raise Denied(
                    denied.code,
                    f"stream {name} cannot be created, for nats-server cannot make its store:"
                    " its log says why (a full disk, a folder that it may not write, other files"
                    " in the stream's place); mend that and start again",
                ) from None
        await asyncio.sleep(pauses.pop(0))


async def _other_ones(bus: Bus, name: str) -> dict[str, Any]:
    """The stream that another process was first to create.

    In a cluster it is refused to us as soon as it is proposed, and found a moment later.
    """
    for _ in range(_LOOKS):
        if found := await find_stream(bus, name):
            return found
        await asyncio.sleep(_LOOK_EVERY)
    raise Unavailable(f"stream {name} is being created by another process, and does not appear")


def new_incarnation() -> str:
    """Now, as a stream that is created now is told apart from any other."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def incarnation(info: dict[str, Any]) -> str:
    """When a stream was created, as a time in UTC; its sequences began anew then."""
    metadata = info["config"].get("metadata") or {}
    return str(metadata.get(INCARNATION) or info["created"])


async def learn_incarnation(bus: Bus) -> bool:
    """Note when the stream was created; True if it is another one than was known.

    Its sequences then begin anew, and no watermark of before counts.
    """
    info = await bus.api(f"STREAM.INFO.{bus.stream}")
    before, bus.created = bus.created, incarnation(info)
    return before != bus.created


async def read_behind(bus: Bus) -> dict[str, str]:
    """The nodes of a cluster whose copy of the stream is behind, each with the stream's leader.

    By the word of that leader: under load one that is fine may be a message behind at any moment.
    Raises BusFault.
    """
    cluster = (await bus.api(f"STREAM.INFO.{bus.stream}")).get("cluster") or {}
    leader = str(cluster.get("leader", ""))
    behind = [one for one in cluster.get("replicas") or [] if not one.get("current")]
    return {str(one["name"]): leader for one in behind}


def _compare(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    differences = [
        f"{key} is {found.get(key)!r}, expected {value!r}"
        for key, value in wanted.items()
        if not _same(value, found.get(key))
    ]
    if differences:
        raise StreamMismatch(
            f"stream {wanted['name']} is not as nats/streams.json describes it: "
            + "; ".join(differences)
            + ". Change it with `nats stream edit`, or start with an empty store"
        )


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, list):
        return sorted(wanted) == sorted(found or [])
    # The server leaves out what is false or zero.
    return bool(wanted == found) or (not wanted and not found)
