"""Consumers that have nothing to deliver although a message for them is there.

That is how a block shows that cannot be read, where the stream's index still counts it; and how
a node of a cluster does whose copy of the stream is behind.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

import structlog

from runtime.bus import Bus
from runtime.streams import read_behind

LOOKS = (0.0, 0.05, 0.2, 0.5)
"""Pauses before each further look at a consumer that seems not to see a message."""
MORE_LOOKS = (0.75, 1.0, 1.5, 2.0, 2.0, 2.0)
"""The same in a cluster, where a copy of the stream may have messages it has yet to apply."""
PROOFS = 2
"""How often a consumer must not see a message where its node has all of the stream."""

Info = dict[str, Any]
log = structlog.get_logger()


class Blind(NamedTuple):
    """A consumer that got to `reached` and does not see the message at `seq`.

    `node` leads it; empty where there is no cluster.
    """

    name: str
    reached: int
    seq: int
    node: str


async def find_blind(bus: Bus, consumers: Iterable[Info], last: int) -> list[Blind]:
    """Those that seem blind in a stream that ended at `last`. Raises BusFault.

    Under load that may be what came between two questions.
    """
    found = []
    for one in consumers:
        at = reached(one)
        if int(one["num_pending"]) or at >= last:
            continue
        newest = await bus.last(str(one["config"].get("filter_subject") or ">"))
        if newest is not None and at < newest.seq <= last:
            found.append(Blind(str(one["name"]), at, newest.seq, led_by(one)))
    return found


async def stays_blind(bus: Bus, blind: Blind) -> bool:
    """Whether a message is not seen either by a consumer that is asked after it was found.

    What came between two questions under load, or since, would be taken for lost. So would what
    the consumer's node does not have yet: where that copy of the stream is behind, not seeing
    proves nothing, for the stream's leader has the message. Raises BusFault.
    """
    proofs = 0
    for pause in (*LOOKS, *(MORE_LOOKS if bus.replicas > 1 else ())):
        await asyncio.sleep(pause)
        one = await bus.api(f"CONSUMER.INFO.{bus.stream}.{blind.name}")
        if int(one["num_pending"]) or reached(one) >= blind.seq:
            return False
        proofs += led_by(one) not in await read_behind(bus)
    if proofs < PROOFS:
        log.warning("consumer_behind", consumer=blind.name, node=led_by(one), reached=reached(one))
    return proofs >= PROOFS


def reached(consumer: Info) -> int:
    """The highest sequence that a consumer has passed."""
    return max(
        int(consumer["delivered"]["stream_seq"]),
        int((consumer.get("ack_floor") or {}).get("stream_seq", 0)),
    )


def led_by(consumer: Info) -> str:
    """The node that leads a consumer; empty where there is no cluster, or no leader now."""
    return str((consumer.get("cluster") or {}).get("leader", ""))
