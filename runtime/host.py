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
from runtime.bus import Bus, Outgoing, expiry
from runtime.clock import Clock
from runtime.deployments import read_deployments
from runtime.errors import BusFault, ConfigError, Denied
from runtime.heartbeat import Heartbeat
from runtime.instance import StateUndecodable
from runtime.kv import Bucket
from runtime.shard import Shard
from runtime.streams import learn_incarnation
from runtime.system import ActorType, System, load_class
from runtime.turn import EVENT_TTL
from runtime.worker import Pool, create_work_consumers
from schemas import subjects
from schemas.base import Topic
from schemas.deployment import Deployment
from schemas.envelope import encode, seal
from schemas.node import Node
from schemas.record import Alarm

log = structlog.get_logger()

ALARMS = Topic("system", "alarms")
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
    ) -> None:
        """`classes` are types by name that need no importing."""
        self.name = name or f"host-{secrets.token_hex(4)}"
        self.bus = bus
        self.system = System(bus, name=self.name, clock=clock)
        self.system.fail = self._part_failed
        self.shards: dict[str, list[Shard]] = {}
        self.pools: dict[str, Pool] = {}
        self.paused: dict[str, str] = {}
        """Types that stand still, and why."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._classes = dict(classes or {})
        self._started = datetime.now(UTC)
        self._heartbeat = Heartbeat(bus, self.name, self._describe)
        self._tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[None]] = set()

    async def start(self, run: Iterable[str] = ()) -> None:
        """Run the deployed types (`run` names some; none means all).

        Raises ConfigError for a type that cannot be loaded, before anything is taken.
        """
        # Watch before reading, or what is deployed in between is missed.
        Bucket(self.bus, "config").watch(self._reread)
        self.system.deployments = await patiently(self.bus, lambda: read_deployments(self.bus))
        chosen = _choose(self.system.deployments, set(run))
        loaded = [(one, self._load(one)) for one in chosen]
        self._tasks = [
            asyncio.create_task(self._guard(self.system.committer.run()), name="committer")
        ]
        self.bus.link.on_rebuilt.append(self._rebuilt)
        self.bus.link.on_lost.append(self._lost)
        for deployment, cls in loaded:
            await self._run(deployment, cls)
        self._tasks.append(
            asyncio.create_task(self._guard(self._heartbeat.run()), name="heartbeat")
        )
        log.info("host_ready", host=self.name, actors=sorted([*self.shards, *self.pools]))

    def _load(self, deployment: Deployment) -> type[Actor] | type[Worker]:
        known = self._classes.get(deployment.name)
        return known or load_class(deployment.name, deployment.type)

    async def _run(self, deployment: Deployment, cls: type[Actor] | type[Worker]) -> None:
        if issubclass(cls, Actor):
            kind = ActorType(deployment, cls)
            shards = [Shard(kind, n, self.system) for n in range(subjects.SHARDS)]
            self.shards[deployment.name] = shards
            await asyncio.gather(*(patiently(self.bus, shard.start) for shard in shards))
            return
        await patiently(self.bus, lambda: create_work_consumers(self.system, deployment.name))
        if not cls.remote:
            pool = self.pools[deployment.name] = Pool(deployment, cls, self.system)
            await pool.start()

    async def stop(self, grace: float = GRACE) -> None:
        """Drain: take nothing more, finish what is running within `grace` seconds, leave."""
        log.info("host_draining", host=self.name)
        with contextlib.suppress(ValueError):  # it may not have got that far
            self.bus.link.on_rebuilt.remove(self._rebuilt)
            self.bus.link.on_lost.remove(self._lost)
        shards = [shard for each in self.shards.values() for shard in each]
        pools = [pool.stop(grace) for pool in self.pools.values()]
        await asyncio.gather(*(shard.stop(grace) for shard in shards), *pools)
        for task in (*self._tasks, *self._background):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._background, return_exceptions=True)
        await self._heartbeat.leave()
        log.info("host_stopped", host=self.name)

    # -- what may go wrong -----------------------------------------------------------------

    def _lost(self) -> None:
        for shards in self.shards.values():
            for shard in shards:
                shard.drop()
        for pool in self.pools.values():
            pool.lose()

    def _rebuilt(self) -> None:
        for name, shards in self.shards.items():
            if name not in self.paused:
                for shard in shards:
                    shard.pull.doubt()
        self._do_later(self._check_stream())
        self._reread()

    def _part_failed(self, error: BaseException, actor: str) -> None:
        """State nobody can read pauses its type; anything else ends the host, loudly."""
        if isinstance(error, StateUndecodable):
            self._do_later(self._pause(actor, str(error)))
        elif not self.failed.done():
            log.error("host_failed", actor=actor, exc_info=error)
            self.failed.set_exception(error)

    async def _pause(self, actor: str, reason: str) -> None:
        """Take nothing more of a type, and keep what it has: no message is at fault."""
        if actor in self.paused:
            return
        self.paused[actor] = reason
        log.error("type_paused", actor=actor, reason=reason)
        await asyncio.gather(*(shard.stop() for shard in self.shards.get(actor, [])))
        await self.alarm("type_paused", f"{actor}: {reason}")

    async def alarm(self, what: str, detail: str) -> None:
        """Put something an operator should see where it is followed."""
        sealed = seal(
            Alarm(what=what, detail=detail),
            id=secrets.token_hex(16),
            source=f"host/{self.name}",
            subject=ALARMS.id,
        )
        message = Outgoing(subjects.event(ALARMS), encode(sealed), expiry(EVENT_TTL))
        with contextlib.suppress(BusFault):
            await self.system.committer.submit([message], message.subject)

    async def _guard(self, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except Exception as error:
            self._part_failed(error, "")

    # -- what is told and read -------------------------------------------------------------

    async def _check_stream(self) -> None:
        """After a new connection the stream may be another one: nothing held counts then."""
        with contextlib.suppress(BusFault):
            if await learn_incarnation(self.bus):
                log.warning("stream_is_another", created=self.bus.created)
                for shard in [shard for each in self.shards.values() for shard in each]:
                    shard.pull.doubt()

    def _reread(self) -> None:
        self._do_later(self._read_deployments())

    async def _read_deployments(self) -> None:
        with contextlib.suppress(BusFault):
            self.system.deployments = await read_deployments(self.bus)

    def _do_later(self, work: Coroutine[Any, Any, None]) -> None:
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
            owned=self._owned(),
            turns=self.system.committer.committed,
            groups=self.system.committer.groups,
        )

    def _owned(self) -> dict[str, list[int]]:
        return {
            name: [shard.number for shard in shards if shard.pull.pin]
            for name, shards in self.shards.items()
        }


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


def _choose(deployments: dict[str, Deployment], names: set[str]) -> list[Deployment]:
    unknown = names - deployments.keys()
    if unknown:
        raise ConfigError(
            f"host.run names {', '.join(sorted(unknown))}, which is not deployed;"
            f" deployed are {', '.join(sorted(deployments)) or 'none'}"
        )
    return [one for name, one in deployments.items() if not names or name in names]
