"""Sees to it that nothing expires in silence: an alarm when mail or jobs wait for half their time.

One host looks for all: the first by name of those that are alive.
"""

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
import structlog

from runtime.alarm import ALARMS
from runtime.bus import Bus
from runtime.deployments import read_roster
from runtime.errors import BusFault, ConfigError
from runtime.loads import Held, Load, read_held, read_loads
from runtime.system import System
from runtime.terminal.overview import read_nodes
from runtime.terminal.shown import ago
from schemas import subjects
from schemas.deployment import Entry
from schemas.envelope import UNREADABLE, decode_any
from schemas.node import Node
from schemas.record import Alarm

log = structlog.get_logger()

EVERY = 30.0
"""Seconds between two looks."""
QUIET = 10
"""An alarm for another message of the same kind comes a tenth of its TTL later, at the soonest."""


class Raise(Protocol):
    """How an alarm is raised; False if it could not be stored."""

    def __call__(self, what: str, detail: str, *, actor: str, seq: int) -> Awaitable[bool]: ...


class Vigil:
    """Looks again and again at what has waited longest."""

    def __init__(self, system: System, alarm: Raise) -> None:
        self._system = system
        self._bus: Bus = system.bus
        self._alarm = alarm
        self._said: dict[tuple[str, str], tuple[int, datetime]] = {}
        """By kind and address: the message of the last alarm, and when that was."""

    async def run(self, every: float = EVERY) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(every)
            try:
                await self.look()
            except (BusFault, ConfigError) as fault:
                log.debug("waiting_not_seen", error=str(fault))

    async def look(self) -> None:
        """Look once, if it is ours to look; raises BusFault, or ConfigError for a bad roster."""
        nodes = await read_nodes(self._bus)
        if min((node.name for node in nodes), default=self._system.name) < self._system.name:
            return
        kept = await read_roster(self._bus)
        entries = {one.deployment.name: one for one in kept.roster.entries} if kept else {}
        loads = await read_loads(self._bus, [one.deployment for one in entries.values()])
        for name, load in loads.items():
            if entry := entries.get(name):
                what = "mail_waits" if entry.deployment.kind == "keyed" else "jobs_wait"
                advice = self._advise(entry, nodes)
                await self._judge(what, name, load, entry.deployment.mail_ttl, advice)
        for held in await read_held(self._bus):
            await self._judge_held(held, entries)

    async def _judge_held(self, held: Held, entries: dict[str, Entry]) -> None:
        """What was put aside for a paused key is acknowledged, so no consumer counts it."""
        address = held.control.address
        entry = entries.get(address.partition("/")[0])
        if entry is None or not held.control.paused:
            return
        load = Load(waiting=held.waiting, seq=held.seq, since=held.since)
        advice = f"it is {held.control.says}; let it go on by `callboard resume {address}`"
        await self._judge("mail_waits", address, load, entry.deployment.mail_ttl, advice)

    async def _judge(self, what: str, who: str, load: Load, ttl: timedelta, advice: str) -> None:
        now = self._system.clock.now()
        if load.since is None or now - load.since < ttl / 2:
            return
        seq, at = self._said.get((what, who), (0, None))
        if seq == load.seq or (at is not None and now - at < ttl / QUIET):
            return
        if not await self._was_said(what, who, load.seq):
            noun = "message" if what == "mail_waits" else "job"
            detail = (
                f"{who}: {load.waiting + load.in_hand} wait, the oldest ({noun} {load.seq}) for"
                f" {ago(now - load.since)}; it goes after {ago(ttl)}, unhandled. {advice}"
            )
            log.warning(what, actor=who, seq=load.seq, waiting=load.waiting)
            if not await self._alarm(what, detail, actor=who, seq=load.seq):
                return
        self._said[what, who] = (load.seq, now)

    async def _was_said(self, what: str, who: str, seq: int) -> bool:
        """Whether another host, or we before a restart, raised this very alarm."""
        for stored in await self._bus.read_all(subjects.event(ALARMS), after=seq):
            try:
                told = msgspec.json.decode(decode_any(stored.data).data, type=Alarm)
            except UNREADABLE:
                continue
            if (told.what, told.actor, told.seq) == (what, who, seq):
                return True
        return False

    def _advise(self, entry: Entry, nodes: list[Node]) -> str:
        """What to do about a type whose messages wait."""
        name = entry.deployment.name
        control = self._system.controls.types.get(name)
        if entry.removed:
            return "It was removed: deploy it again, or let them go"
        if control and control.paused:
            return f"It is {control.says}; let it go on by `callboard resume {name}`"
        reasons = [node.paused[name] for node in nodes if name in node.paused]
        if reasons:
            return f"It stands still: {reasons[0]}; mend that, then `callboard resume {name}`"
        if entry.deployment.kind == "remote":
            return "Nobody takes its jobs: start its child"
        if not any(name in node.actors for node in nodes):
            return "No host runs it: start one that does (host.run)"
        return "`callboard actors` shows what holds it up; more hosts help if it is only much"
