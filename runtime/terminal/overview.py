"""What an operator wants to see at a glance: deployed types, what waits, living hosts.

One key from close by is in runtime/terminal/closeup.py.
"""

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from runtime.answers import clip
from runtime.bus import Bus
from runtime.controls import Controls
from runtime.deployments import read_deployments
from runtime.kv import Bucket
from runtime.loads import Held, Load, read_held, read_loads
from runtime.terminal.shown import ago, align, harmless
from schemas.control import Control
from schemas.deployment import Deployment
from schemas.envelope import UNREADABLE
from schemas.node import PREFIX, Node
from schemas.upstream import SEEN, UpstreamReport

HEADING = ("actor", "kind", "type", "waiting", "oldest", "in hand", "retried", "hosts")
MOST_SHOWN = 20


class Overview(msgspec.Struct, kw_only=True):
    """Everything at one moment, as far as it can be had at one moment."""

    deployments: dict[str, Deployment]
    loads: dict[str, Load]
    nodes: list[Node]
    types: dict[str, Control]
    held: list[Held]
    upstreams: list[UpstreamReport] = []

    def load(self, name: str) -> Load:
        """What waits for an actor, with what was put aside for its paused keys."""
        load = msgspec.structs.replace(self.loads.get(name, Load()))
        for one in self.held:
            if one.control.address.startswith(f"{name}/") and one.control.paused:
                load.waiting += one.waiting
                if one.since and (load.since is None or one.since < load.since):
                    load.seq, load.since = one.seq, one.since
        return load

    def paused(self, name: str) -> str:
        """Why a type stands still, or nothing."""
        control = self.types.get(name)
        if control and control.paused:
            return control.says
        return next((node.paused[name] for node in self.nodes if name in node.paused), "")

    def facts(self) -> dict[str, Any]:
        """All of it as plain data."""
        now = datetime.now(UTC)
        return {
            "actors": [self._facts(name, now) for name in sorted(self.deployments)],
            "hosts": self.nodes,
            "keys": [{**_said(one.control), "waiting": one.waiting} for one in self.held],
            "failing": [each for node in self.nodes for each in node.failing if each.tries],
            "upstreams": self.upstreams,
        }

    def _facts(self, name: str, now: datetime) -> dict[str, Any]:
        one, load = self.deployments[name], self.load(name)
        return {
            "name": name,
            "kind": one.kind,
            "type": one.type,
            "waiting": load.waiting,
            "oldest_seconds": (now - load.since).total_seconds() if load.since else None,
            "in_hand": load.in_hand,
            "retried": load.retried,
            "hosts": {n.name: n.owned.get(name, []) for n in self.nodes if name in n.actors},
            "paused": self.paused(name),
        }

    def lines(self) -> list[str]:
        """All of it for people."""
        facts = self.facts()
        rows = [HEADING, *(self._row(one) for one in facts["actors"])]
        lines = [*align(rows), ""]
        lines += [f"host {n.name}: pid {n.pid}, {n.turns} commits" for n in self.nodes]
        lines += [
            f"{harmless(one.control.address)}: {harmless(_words(one.control))},"
            f" {one.waiting} waiting"
            for one in [each for each in self.held if each.control.paused or each.waiting][
                :MOST_SHOWN
            ]
        ]
        lines += [
            f"{harmless(each.address)}: message {each.seq} failed {each.tries} times:"
            f" {harmless(clip(each.reason, 200), lines=False)}"
            for each in facts["failing"]
        ]
        return [*lines, *troubled(self.upstreams)]

    def _row(self, facts: dict[str, Any]) -> tuple[str, ...]:
        age = self.load(facts["name"]).since
        hosts = ", ".join(_host(name, shards) for name, shards in facts["hosts"].items())
        where = hosts or ("through the edge" if facts["kind"] == "remote" else "none")
        paused = f" ({harmless(facts['paused'])})" if facts["paused"] else ""
        return (
            facts["name"],
            facts["kind"],
            facts["type"],
            str(facts["waiting"]),
            ago(datetime.now(UTC) - age) if age else "-",
            str(facts["in_hand"]),
            str(facts["retried"]),
            f"{where}{paused}",
        )


def _host(name: str, shards: list[int]) -> str:
    return f"{name} [{_ranges(shards)}]" if shards else name


def _ranges(numbers: list[int]) -> str:
    """`0-3,7`: which shards."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _words(control: Control) -> str:
    return control.says if control.paused else "being resumed, skipped or killed"


def _said(control: Control) -> dict[str, Any]:
    return {"address": control.address, "paused": control.says if control.paused else ""}


async def look(bus: Bus) -> Overview:
    """Look at everything."""
    controls = Controls(bus)
    await controls.look()
    deployments = await read_deployments(bus)
    return Overview(
        deployments=deployments,
        loads=await read_loads(bus, deployments.values()),
        nodes=await read_nodes(bus),
        types=controls.types,
        held=await read_held(bus),
        upstreams=await read_upstreams(bus),
    )


async def read_nodes(bus: Bus) -> list[Node]:
    """The hosts that were heard of in the last seconds."""
    found = await Bucket(bus, "nodes").all()
    nodes = [one.data for key, one in sorted(found.items()) if key.startswith(PREFIX)]
    return [msgspec.json.decode(data, type=Node) for data in nodes]


async def read_upstreams(bus: Bus) -> list[UpstreamReport]:
    """What hosts see of the upstreams of their models; what nobody can read is passed over."""
    reports = []
    for _, stored in sorted((await Bucket(bus, "nodes").all(SEEN)).items()):
        with contextlib.suppress(*UNREADABLE):
            reports.append(msgspec.json.decode(stored.data, type=UpstreamReport))
    return reports


def troubled(reports: Iterable[UpstreamReport]) -> list[str]:
    """A line for each upstream that is left alone, and why."""
    return [
        f"{harmless(report.actor)} on {harmless(report.host)}: upstream {harmless(one.name)} is"
        f" {one.status}: {harmless(clip(one.reason, 200), lines=False)}"
        for report in reports
        for one in report.upstreams
        if one.status not in ("HEALTHY", "BUSY")
    ]
