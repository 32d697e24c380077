"""What all surfaces of one edge share: the bus, the hub, the open streams, what is deployed."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from edge.agents import Agents
from edge.following import Hub
from edge.jobs import Jobs
from edge.presence import Presence
from edge.sse import Streams
from runtime.bus import Bus
from runtime.deployments import BUCKET, read_deployments
from runtime.kv import Bucket
from runtime.store.storewatch import StoreWatch
from schemas.deployment import Deployment

READ_AGAIN_AFTER = 10.0
"""Seconds: that something was deployed is only a hint, and hints may be lost."""
LOOK_AGAIN_AFTER = 1.0
"""Seconds after which a name that was not found is looked for again."""


CLOSE_WITHIN = 2.0
"""Seconds that what nobody waits for has to end."""


class Deployed:
    """What is deployed, as this process last read it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._found: dict[str, Deployment] = {}
        self._read_at = 0.0
        self._valid_until = 0.0
        self._changes = 0
        self._handle = Bucket(bus, BUCKET).watch(self._change)

    async def find(self, name: str) -> Deployment | None:
        """Return what is deployed under a name. Raises BusFault."""
        found = await self.all()
        if name not in found:
            found = await self.all(missed=True)
        return found.get(name)

    async def all(self, *, missed: bool = False) -> dict[str, Deployment]:
        """Return all that is deployed, by name. Raises BusFault.

        Whoever `missed` something in it has it read again, if that was not done just now.
        """
        now = time.monotonic()
        again = missed and now >= self._read_at + LOOK_AGAIN_AFTER
        if again or now >= self._valid_until:
            before = self._changes
            self._found = await read_deployments(self._bus)
            self._read_at = time.monotonic()
            if before == self._changes:
                self._valid_until = self._read_at + READ_AGAIN_AFTER
        return self._found

    def close(self) -> None:
        """Look no more."""
        self._bus.unsubscribe(self._handle)

    def _change(self) -> None:
        self._changes += 1
        self._valid_until = 0.0


class Shared:
    """The parts of one edge. They live as long as its application."""

    def __init__(self, bus: Bus, streams: Streams | None = None) -> None:
        self.bus = bus
        self.hub = Hub(bus)
        self.streams = streams or Streams()
        self.completions = Streams()
        """Answers of models that are waited for: counted apart from feeds, which others follow."""
        self.presence = Presence(bus)
        self.agents = Agents(bus)
        self.deployed = Deployed(bus)
        self.store = StoreWatch(bus)
        self.started = time.monotonic()
        self._watching: list[asyncio.Task[None]] = []
        self._jobs: dict[str, Jobs] = {}
        self._later: set[asyncio.Task[None]] = set()
        self.at_close: list[Callable[[], Coroutine[Any, Any, None]]] = []
        """What else is to be given back in the end."""
        self._closed = False

    def open(self) -> None:
        """Begin to watch the store, and who is logged in. Several servers may say so."""
        if not self._watching:
            watch = self.agents.keep_watch(self.streams)
            self._watching = [
                asyncio.create_task(self.store.run(), name="store"),
                asyncio.create_task(watch, name="agents"),
            ]

    def jobs(self, child: str) -> Jobs:
        """The jobs of a remote child."""
        if child not in self._jobs:
            self._jobs[child] = Jobs(self.bus, child)
        return self._jobs[child]

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def end(self) -> None:
        """Say goodbye to everybody who waits: the process is about to stop."""
        self.streams.end()
        self.completions.end()
        for jobs in self._jobs.values():
            jobs.end()

    async def close(self) -> None:
        """Give back what was taken from the bus. Several servers of one process may say so."""
        if self._closed:
            return
        self._closed = True
        for task in self._watching:
            task.cancel()
        self.end()
        await asyncio.gather(*(jobs.close() for jobs in self._jobs.values()))
        await asyncio.gather(*(close() for close in self.at_close))
        if self._later:
            _, late = await asyncio.wait(self._later, timeout=CLOSE_WITHIN)
            for task in late:
                task.cancel()
        self.presence.close()
        self.hub.close()
        self.agents.close()
        self.deployed.close()
