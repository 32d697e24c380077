"""A pinned consumer as the server sees it at one moment."""

from typing import NamedTuple

from runtime.bus import Bus


class Seen(NamedTuple):
    """Whose pin it has, if any, what is in hand and what waits, and how far it got.

    Up to the sequence `floor` all is acknowledged, past `delivered` nothing was delivered.
    """

    holder: str
    unacked: int
    pending: int
    floor: int
    delivered: int


async def see(bus: Bus, consumer: str) -> Seen:
    """Ask the server. Raises BusFault."""
    answer = await bus.api(f"CONSUMER.INFO.{bus.stream}.{consumer}", timeout=2.0)
    groups = answer.get("priority_groups") or [{}]
    return Seen(
        holder=str(groups[0].get("pinned_client_id", "")),
        unacked=int(answer.get("num_ack_pending", 0)),
        pending=int(answer.get("num_pending", 0)),
        floor=int(answer["ack_floor"]["stream_seq"]),
        delivered=int(answer["delivered"]["stream_seq"]),
    )
