"""Makes a host run what is deployed, and follow it: types start, change and stop without a restart.

One reconciliation at a time, always towards the newest roster. What cannot be run here stands
still with a reason, and is tried again now and then; everything else goes on.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Protocol

import structlog

from runtime.bus import Bus
from runtime.deployments import BUCKET, read_roster
from runtime.errors import BusFault, ConfigError
from runtime.kv import Bucket
from runtime.system import System
from schemas.deployment import Deployment, Roster, is_same

log = structlog.get_logger()

READ_AGAIN_AFTER = 10.0
"""Seconds: that something was deployed is only a hint, and hints may be lost."""
TRY_AGAIN_AFTER = 0.5


class Runner(Protocol):
    """What a host does with one type."""

    bus: Bus
    system: System
    revision: int
    paused: dict[str, str]

    async def start_type(self, deployment: Deployment) -> None:
        """Run a type; raises ConfigError, or whatever its own code raises."""
        ...

    async def change_type(self, deployment: Deployment) -> None:
        """Run a type that runs already as it is deployed now; raises as `start_type`."""
        ...

    async def stop_type(self, name: str) -> None:
        """Take nothing more of a type; what is running ends."""
        ...

    def note_pause(self, name: str, reason: str) -> None:
        """Say that operators have paused a type, which was stopped."""
        ...

    async def stand_still(self, name: str, reason: str) -> None:
        """Say that a type is not run here, and why."""
        ...

    def report(self) -> None:
        """Tell what is run now."""
        ...


class Reconciler:
    """Follows the roster for one host. `run` names the types it cares for; none means all."""

    def __init__(self, host: Runner, run: Iterable[str] = ()) -> None:
        self._host = host
        self._names = set(run)
        self._current: dict[str, Deployment] = {}
        """What the host was last told to run."""
        self._refused: dict[str, str] = {}
        """What of that it could not run, and why."""
        self._resumed: dict[str, int] = {}
        """When operators last said of each type that it may go on, as far as that was done."""
        self._resting: set[str] = set()
        """Types that operators have paused."""
        self._stirred = asyncio.Event()
        # Watch before reading, or what is deployed in between is missed.
        Bucket(host.bus, BUCKET).watch(self.wake)

    def wake(self) -> None:
        """The roster may have changed."""
        self._stirred.set()

    async def begin(self) -> None:
        """Run what is deployed. Raises BusFault, or ConfigError if `run` names a stranger."""
        kept = await read_roster(self._host.bus)
        self._check_names(kept.roster if kept else None)
        if kept is not None:
            await self._follow(kept.roster)

    async def run(self) -> None:
        """Follow the roster until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_AGAIN_AFTER):
                    await self._stirred.wait()
            self._stirred.clear()
            try:
                await self._look()
            except BusFault as fault:
                log.debug("roster_not_read", error=str(fault))
                await self._try_again()
            except Exception:  # whatever it is, this must go on, or the host is deaf for ever
                log.exception("reconcile_failed")
                await self._try_again()

    async def _try_again(self) -> None:
        self._stirred.set()
        await asyncio.sleep(TRY_AGAIN_AFTER)

    async def _look(self) -> None:
        kept = await read_roster(self._host.bus)
        if kept is not None:
            await self._follow(kept.roster)
        elif self._current:
            # Nobody deploys nothing at all: the bucket was emptied, or is another one.
            log.error("roster_missing", kept=sorted(self._current))

    async def _follow(self, roster: Roster) -> None:
        self._host.system.deployments = deployed = roster.deployments()
        chosen = {n: one for n, one in deployed.items() if not self._names or n in self._names}
        paused = self._paused(chosen)
        wanted = {name: one for name, one in chosen.items() if name not in paused}
        gone = self._current.keys() - wanted.keys()
        changed = [name for name, one in wanted.items() if not self._is_run(one)]
        again = (self._refused.keys() | self._resume(wanted)) - set(changed)
        await asyncio.gather(
            *(self._stop(name) for name in gone),
            *(self._settle(name, wanted[name]) for name in {*changed, *again} - gone),
        )
        await self._note_pauses(paused, wanted)
        if roster.revision != self._host.revision:
            self._host.revision = roster.revision
            log.info("roster_followed", revision=roster.revision, changed=changed, gone=[*gone])
            self._host.report()

    def _is_run(self, wanted: Deployment) -> bool:
        """Whether the host was last told to run just this."""
        current = self._current.get(wanted.name)
        return current is not None and is_same(current, wanted)

    def _paused(self, chosen: Iterable[str]) -> dict[str, str]:
        """The types that operators have paused, and why."""
        types = self._host.system.controls.types
        return {name: types[name].says for name in chosen if name in types and types[name].paused}

    async def _note_pauses(self, paused: dict[str, str], wanted: Iterable[str]) -> None:
        for name in self._resting - paused.keys() - set(wanted):
            await self._host.stop_type(name)  # it was removed meanwhile
        self._resting = set(paused)
        for name, reason in paused.items():
            if self._host.paused.get(name) != reason:
                self._host.note_pause(name, reason)

    def _resume(self, wanted: Iterable[str]) -> set[str]:
        """What came to a standstill before an operator said that it may go on."""
        controls, newly = self._host.system.controls, set()
        for name in wanted:
            if controls.resumed(name) > self._resumed.get(name, 0):
                self._resumed[name] = controls.resumed(name)
                newly.add(name)
        return newly & self._host.paused.keys() & self._current.keys()

    async def _stop(self, name: str) -> None:
        await self._host.stop_type(name)
        self._refused.pop(name, None)
        del self._current[name]

    async def _settle(self, name: str, wanted: Deployment) -> None:
        """Bring one type to what is wanted; what cannot be done is that type's affair only."""
        try:
            await self._bring(name, wanted)
        except Exception as error:  # a type may raise anything while it starts
            await self._refuse(name, error)
        else:
            if self._refused.pop(name, None):
                log.info("type_run_again", actor=name)
                self._host.report()
        self._current[name] = wanted

    async def _bring(self, name: str, wanted: Deployment) -> None:
        before = self._current.get(name)
        if before is None or name in self._refused:
            await self._host.start_type(wanted)
        elif (before.kind == "keyed") != (wanted.kind == "keyed"):
            await self._host.stop_type(name)
            await self._host.start_type(wanted)
        else:
            await self._host.change_type(wanted)

    async def _refuse(self, name: str, error: Exception) -> None:
        known = isinstance(error, ConfigError | BusFault)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        # Some of it may run, or all of it as it was deployed before: not wanted any more.
        await self._host.stop_type(name)
        if self._refused.get(name) != reason:
            log.error("type_not_run", actor=name, reason=reason, exc_info=None if known else error)
        self._refused[name] = reason
        await self._host.stand_still(name, reason)

    def _check_names(self, roster: Roster | None) -> None:
        """A name that was removed live is no mistake; one that was never there is."""
        deployed = roster.deployments() if roster else {}
        known = {one.deployment.name for one in roster.entries} if roster else set()
        if unknown := self._names - known:
            raise ConfigError(
                f"host.run names {', '.join(sorted(unknown))}, which is not deployed;"
                f" deployed are {', '.join(sorted(deployed)) or 'none'}"
            )
        if removed := self._names - deployed.keys():
            log.warning("removed_type_not_run", actors=sorted(removed))
