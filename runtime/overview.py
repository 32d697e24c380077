"""What an operator wants to see at a glance: deployed types, what waits, living hosts."""

from typing import Any

import msgspec

from runtime.bus import Bus
from runtime.deployments import read_deployments
from runtime.kv import Bucket
from schemas.node import PREFIX, Node

HEADING = ("actor", "kind", "type", "waiting", "in hand", "retried", "hosts")


class Load(msgspec.Struct):
    """What the consumers of one actor say, added up."""

    waiting: int = 0
    in_hand: int = 0
    retried: int = 0


async def show_actors(bus: Bus) -> list[str]:
    """A table of the deployed types, and a line per living host."""
    deployments = await read_deployments(bus)
    loads = await read_loads(bus)
    nodes = await read_nodes(bus)
    rows: list[tuple[str, ...]] = [HEADING]
    for name, one in sorted(deployments.items()):
        load = loads.get(name, Load())
        hosts = [node.name for node in nodes if name in node.actors]
        paused = any(name in node.paused for node in nodes)
        where = ", ".join(hosts) or ("through the edge" if one.kind == "remote" else "none")
        rows.append(
            (
                name,
                one.kind,
                one.type,
                str(load.waiting),
                str(load.in_hand),
                str(load.retried),
                f"{where} (paused)" if paused else where,
            )
        )
    lines = _align(rows)
    lines += [""] + [f"host {n.name}: pid {n.pid}, {n.turns} commits" for n in nodes]
    return lines


async def read_nodes(bus: Bus) -> list[Node]:
    """The hosts that were heard of in the last seconds."""
    found = await Bucket(bus, "nodes").all()
    nodes = [one.data for key, one in sorted(found.items()) if key.startswith(PREFIX)]
    return [msgspec.json.decode(data, type=Node) for data in nodes]


async def read_loads(bus: Bus) -> dict[str, Load]:
    """What waits for each actor, by its consumers' own counts."""
    loads: dict[str, Load] = {}
    for consumer in await list_consumers(bus):
        kind, _, rest = str(consumer["name"]).partition("_")
        if kind not in ("mail", "work"):
            continue
        load = loads.setdefault(rest.rpartition("_")[0], Load())
        load.waiting += int(consumer["num_pending"])
        load.in_hand += int(consumer["num_ack_pending"])
        load.retried += int(consumer["num_redelivered"])
    return loads


async def list_consumers(bus: Bus) -> list[dict[str, Any]]:
    """Every consumer of the stream, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        page = await bus.api(f"CONSUMER.LIST.{bus.stream}", {"offset": len(found)})
        consumers = page.get("consumers") or []
        found += consumers
        if not consumers or len(found) >= int(page["total"]):
            return found


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
