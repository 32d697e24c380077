"""Runs the deployed actor types in one process: shards, pools, the committer, a heartbeat.

A message's way: runtime/pinned.py → shard.py → instance.py → turn.py → committer.py.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from runtime.actor import Actor, Worker
from runtime.alarm import alarm_event
from runtime.bus import Bus
from runtime.clock import Clock
from runtime.errors import (
    BusFault,
    ConfigError,
    DataMissing,
    Denied,
    Forbidden,
    StateUndecodable,
)
from runtime.heartbeat import Heartbeat
from runtime.holdings import Holdings
from runtime.inhand import Hands, Job
from runtime.laggards import Laggards
from runtime.neighbours import Neighbours
from runtime.reconcile import Reconciler
from runtime.shard import Shard
from runtime.store.marks import MarkFile
from runtime.store.storewatch import StoreWatch
from runtime.streams import learn_incarnation
from runtime.system import ActorType, System, kind_of, load_class
from runtime.waiting import Vigil
from runtime.worker import Pool, create_work_consumers
from schemas.deployment import Deployment
from schemas.node import Node, StoreTrouble

log = structlog.get_logger()

GRACE = 8.0

Done = TypeVar("Done")


class Host:
    """One process that runs actors. It lives until `stop` or until a part of it cannot go on."""

    def __init__(
        self,
        bus: Bus,
        *,
        name: str = "",
        clock: Clock | None = None,
        classes: Mapping[str, type[Actor] | type[Worker]] | None = None,
        marks: MarkFile | None = None,
    ) -> None:
        """`classes` are types by name that need no importing; `marks` is where to keep more."""
        self.name = name or f"host-{secrets.token_hex(4)}"
        self.bus = bus
        self.system = System(bus, name=self.name, clock=clock)
        self.system.fail = self._part_failed
        self._store = StoreWatch(
            bus, source=f"host/{self.name}", file=marks, heard=self._store_heard
        )
        self.system.committer.no_room = self._store.refused
        self.system.committer.forbidden = self._forbidden
        self._told_forbidden = ""
        self.pools: dict[str, Pool] = {}
        self.paused: dict[str, str] = {}
        """Types that stand still, and why."""
        self.revision = 0
        """Of the deployments that it runs."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._classes = dict(classes or {})
        self._started = datetime.now(UTC)
        self._heartbeat = Heartbeat(bus, self.name, self._describe)
        self._neighbours = Neighbours(bus, self.name, os.getpid())
        self.holdings = Holdings(self.system, self._neighbours, self._heartbeat.hurry)
        self.hands = Hands(self.system)
        self._neighbours.on_lapse = lambda host: self._do_later(self.hands.give_back(host))
        self.vigil = Vigil(self.system, self.alarm)
        self._tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[Any]] = set()
        self._retired: dict[Pool, asyncio.Task[None]] = {}
        self._reconciler: Reconciler

    @property
    def shards(self) -> dict[str, list[Shard]]:
        """The shards of each keyed type, whoever owns them."""
        return self.holdings.shards

    async def start(self, run: Iterable[str] = ()) -> None:
        """Run what is deployed, and follow it (`run` names some types; none means all).

        A type that cannot be run stands still; the others do not wait for it.
        """
        self._reconciler = Reconciler(self, run)
        self._tasks = [
            asyncio.create_task(self._guard(self.system.committer.run), name="committer")
        ]
        self.bus.link.on_rebuilt.append(self._rebuilt)
        self.bus.link.on_lost.append(self._lost)
        await self._neighbours.open()
        await patiently(self.bus, self.system.controls.read)
        await patiently(self.bus, self._reconciler.begin)
        # Others give up what is ours once they hear of us, so by then it is pulled.
        self._tasks += [
            asyncio.create_task(self._guard(self._obey), name="controls"),
            asyncio.create_task(self._guard(self._heartbeat.run), name="heartbeat"),
            asyncio.create_task(self._guard(self.holdings.keep), name="holdings"),
            asyncio.create_task(self._guard(self._reconciler.run), name="reconciler"),
            asyncio.create_task(self._guard(self._store.run), name="store"),
            asyncio.create_task(self._guard(Laggards(self.bus).run), name="laggards"),
            asyncio.create_task(self._guard(self.vigil.run), name="vigil"),
            asyncio.create_task(self._guard(self._tell_jobs), name="hands"),
        ]
        log.info("host_ready", host=self.name, actors=sorted([*self.shards, *self.pools]))

    # -- one type --------------------------------------------------------------------------

    async def start_type(self, deployment: Deployment) -> None:
        """Run a type; raises ConfigError, Denied, or whatever its own code raises."""
        cls = self._load(deployment)
        if issubclass(cls, Actor):
            kind = ActorType(deployment, cls)
            await self.holdings.add(kind, lambda step: patiently(self.bus, step))
        else:
            await patiently(self.bus, lambda: create_work_consumers(self.system, deployment.name))
            await self._replace_pool(deployment, cls)
        self.paused.pop(deployment.name, None)

    async def change_type(self, deployment: Deployment) -> None:
        """Run a type as it is deployed now, without a pause; raises as `start_type`."""
        if deployment.name in self.paused:
            await self.stop_type(deployment.name)
            await self.start_type(deployment)
            return
        cls = self._load(deployment)
        if issubclass(cls, Actor):
            for shard in self.shards[deployment.name]:
                shard.kind.change(deployment, cls)
        else:
            await self._replace_pool(deployment, cls)

    async def stop_type(self, name: str) -> None:
        """Take nothing more of a type. Turns are waited for; jobs end in their own time."""
        self.paused.pop(name, None)
        self._retire(self.pools.pop(name, None))
        await self.holdings.remove(name, GRACE)

    def note_pause(self, name: str, reason: str) -> None:
        """Say that operators have paused a type, which was stopped."""
        self.paused[name] = reason
        self.report()

    async def stand_still(self, name: str, reason: str) -> None:
        """Say that a type is not run here, and why; the same reason is said once."""
        if self.paused.get(name) != reason:
            self.paused[name] = reason
            self._do_later(self.alarm("type_not_run", f"{name} on {self.name}: {reason}"))
            self.report()

    def report(self) -> None:
        """Let the heartbeat tell at once."""
        self._heartbeat.hurry()

    def _load(self, deployment: Deployment) -> type[Actor] | type[Worker]:
        cls = self._classes.get(deployment.name)
        cls = cls or load_class(deployment.name, deployment.type)
        if kind_of(cls) != deployment.kind:
            raise ConfigError(
                f'actor "{deployment.name}": {deployment.type} is {kind_of(cls)} here, but was'
                f" deployed as {deployment.kind}; bring the code of this host up to date"
            )
        return cls

    async def _replace_pool(self, deployment: Deployment, cls: type[Worker]) -> None:
        """The new one takes what comes from now on, the one before only finishes."""
        before = self.pools.pop(deployment.name, None)
        self._retire(before)
        if not cls.remote:
            pool = self.pools[deployment.name] = Pool(deployment, cls, self.system, after=before)
            await pool.start()

    def _retire(self, pool: Pool | None) -> None:
        if pool is not None:
            self._retired[pool] = asyncio.create_task(self._finish(pool))

    async def _finish(self, pool: Pool) -> None:
        """Let a pool that was replaced end what it has begun."""
        try:
            await pool.retire()
        except Exception:  # what it raises at its end is nobody else's affair
            log.exception("pool_not_ended", actor=pool.deployment.name)
        del self._retired[pool]

    async def stop(self, grace: float = GRACE) -> None:
        """Drain: take nothing more, finish what is running within `grace` seconds, leave."""
        log.info("host_draining", host=self.name)
        with contextlib.suppress(ValueError):  # it may not have got that far
            self.bus.link.on_rebuilt.remove(self._rebuilt)
            self.bus.link.on_lost.remove(self._lost)
        await self._follow_no_more()
        # First of all, so that others are ready when they are given our shards.
        self._neighbours.close()
        await self._heartbeat.leave()
        pools = [pool.stop(grace) for pool in (*self.pools.values(), *self._retired)]
        await asyncio.gather(self.holdings.stop(grace), *pools)
        for task in (*self._tasks, *self._background):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._background, return_exceptions=True)
        await self.hands.leave()
        log.info("host_stopped", host=self.name)

    async def _follow_no_more(self) -> None:
        """Nothing may start while all stops, and who finishes is told to by `stop`."""
        following = [task for task in self._tasks if task.get_name() == "reconciler"]
        for task in (*following, *self._retired.values()):
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)

    # -- what may go wrong -----------------------------------------------------------------

    def _lost(self) -> None:
        for shard in self.holdings.all():
            shard.drop()
        for pool in self.pools.values():
            pool.lose()

    def _rebuilt(self) -> None:
        for shard in self.holdings.all():
            shard.pull.doubt()
        self._do_later(self._check_stream())
        self._reconciler.wake()
        self.system.controls.stir()

    def _part_failed(self, error: BaseException, actor: str) -> None:
        """State nobody can read pauses its type; anything else ends the host, loudly."""
        if isinstance(error, StateUndecodable):
            self._do_later(self._pause(actor, str(error)))
        elif not self.failed.done():
            self.system.broken = True
            log.error("host_failed", actor=actor, exc_info=error)
            self.failed.set_exception(error)

    async def _pause(self, actor: str, reason: str) -> None:
        """Take nothing more of a type, and keep what it has: no message is at fault."""
        if actor in self.paused:
            return
        self.paused[actor] = reason
        log.error("type_paused", actor=actor, reason=reason)
        self._heartbeat.hurry()
        await self.holdings.rest(actor)
        await self.alarm("type_paused", f"{actor}: {reason}")

    async def alarm(self, what: str, detail: str, *, actor: str = "", seq: int = 0) -> bool:
        """Put something an operator should see where it is followed; False if that failed."""
        source = f"host/{self.name}"
        message = alarm_event(what, detail, source=source, actor=actor, seq=seq)
        try:
            await self.system.committer.submit([message], message.subject)
        except BusFault:
            return False
        return True

    def _forbidden(self, fault: Forbidden) -> None:
        """An operator has to see to it; until then messages wait."""
        kind = str(fault).rpartition(" ")[2].partition(".")[0]
        if kind != self._told_forbidden:
            self._told_forbidden = kind
            log.error("forbidden_subject", error=str(fault))
            self._do_later(self.alarm("forbidden_subject", str(fault)))

    def _store_heard(self, trouble: StoreTrouble) -> None:
        """What is applied to a store that lacks messages would make the loss worse."""
        if trouble.kind == "damaged":
            self._part_failed(DataMissing(trouble.detail), "")

    async def _obey(self) -> None:
        """Do what operators say about keys and types."""
        await self.system.controls.run(self.holdings.call, self._reconciler.wake, self.report)

    async def _tell_jobs(self) -> None:
        """Let others know of the jobs here, for the case that this process ends."""

        def jobs() -> list[Job]:
            return [
                job for pool in (*self.pools.values(), *self._retired) for job in pool.in_hand()
            ]

        await self.hands.run(jobs, lambda: self._neighbours.namesake)

    async def _guard(self, part: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await part()
        except Exception as error:
            self._part_failed(error, "")

    # -- what is told and read -------------------------------------------------------------

    async def _check_stream(self) -> None:
        """After a new connection the stream may be another one: nothing held counts then."""
        with contextlib.suppress(BusFault):
            if await learn_incarnation(self.bus):
                log.warning("stream_is_another", created=self.bus.created)
                for shard in self.holdings.all():
                    shard.pull.doubt()

    def _do_later(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _describe(self) -> Node:
        """What the heartbeat says."""
        return Node(
            name=self.name,
            pid=os.getpid(),
            started=self._started,
            actors=sorted([*self.shards, *self.pools]),
            paused=dict(self.paused),
            revision=self.revision,
            heard=self.system.controls.heard,
            owned=self.holdings.owned(),
            failing=self.holdings.failing(),
            turns=self.system.committer.committed,
            groups=self.system.committer.groups,
            trouble=self._store.trouble.detail,
        )


async def patiently(bus: Bus, step: Callable[[], Awaitable[Done]]) -> Done:
    """Do a step of starting up, again and again while the server is away.

    Raises Denied if the server is there and says no.
    """
    while True:
        try:
            return await step()
        except Denied:
            raise
        except BusFault as fault:
            log.warning("start_delayed", error=str(fault))
            await asyncio.sleep(0.1)
            await bus.link.connected.wait()
