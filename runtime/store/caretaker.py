"""Looks after the store of the embedded server: its disk, its marks, and who must be told.

Run by `callboard up`. What hosts and edges make of it is in runtime/store/storewatch.py.
"""

import asyncio
import contextlib
from datetime import timedelta

import msgspec
import structlog

from runtime.alarm import alarm_event
from runtime.bus import Bus, Outgoing, expiry
from runtime.committer import NOTHING
from runtime.errors import BusFault
from runtime.open import open_bus
from runtime.store.disk import look_at_disk
from runtime.store.marks import BUCKET, MarkFile, beside
from runtime.store.repair import accept_loss
from runtime.store.server import EmbeddedServer
from runtime.store.storewatch import FINE, StoreWatch, tell
from runtime.tables import NatsTable
from schemas.node import STORE, StoreTrouble

log = structlog.get_logger()

EVERY = 1.0
HANGS_AFTER = 5.0
ANSWERS_WITHIN = 2.0
BACK_WITHIN = 10.0
SEEN_FOR = timedelta(seconds=5)


class Caretaker:
    """One embedded server, and what must be known of its store."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.trouble = FINE
        self._file = MarkFile(beside(server.data))
        self.bus: Bus
        """Ours, once started."""
        self._ailment = FINE
        """What was wrong with the disk, until the server is known to store again."""
        self._probe: asyncio.Task[StoreTrouble] | None = None

    async def start(self, table: NatsTable, *, accept: bool = False) -> None:
        """Start the server, and check what it holds before anybody is let in.

        With `accept`, what is missing is given up for good. Raises DataMissing, and as
        `EmbeddedServer.start` does.
        """
        if not self.server.has_store and self._file.path.exists():
            log.warning("marks_void", file=str(self._file.path), why="there is no store at all")
            self._file.clear()
        await self.server.start()
        try:
            if said := self.server.said.damages():
                self._file.complain(said)
            if accept:
                await self._accept(table)
            self.bus = await open_bus(table, marks=self._file, thorough=True)
        except BaseException:
            await self.server.stop()
            raise

    async def _accept(self, table: NatsTable) -> None:
        bus = await open_bus(table, check=False)
        try:
            await accept_loss(bus, self._file, replicas=table.replicas, store=self.server.data)
        finally:
            await bus.link.close()

    async def run(self) -> None:
        """Care until cancelled."""
        bus = self.bus
        store = StoreWatch(bus, file=self._file)
        watch = asyncio.create_task(store.run())
        supervised = asyncio.create_task(self.server.run_supervised())
        try:
            while not supervised.done():
                await self._look(bus)
                await asyncio.wait([supervised], timeout=EVERY)
            supervised.result()
        finally:
            for task in (watch, supervised):
                task.cancel()
            await asyncio.gather(watch, supervised, return_exceptions=True)
            # The last mark: nothing more is stored.
            with contextlib.suppress(BusFault):
                await store.look()
            await bus.link.close()

    async def _look(self, bus: Bus) -> None:
        before, self.trouble = self.trouble, await self._look_at_disk()
        now = self.trouble
        if now != before:
            say = log.error if now.kind else log.info
            say("disk_looked_at", found=now.kind or "fine", detail=now.detail)
        if now.kind:
            self._ailment = now
        elif self.server.said.write_failed() and not self._ailment.kind:
            self._ailment = StoreTrouble("failing", "nats-server could not write to its store")
        if self._ailment.kind:
            tell(bus, self._ailment)
            if not now.kind and bus.link.connected.is_set():
                await self._recover(bus)

    async def _look_at_disk(self) -> StoreTrouble:
        """A disk that hangs is looked at once, and counts as failing until it answers."""
        if self._probe is None:
            look = asyncio.to_thread(look_at_disk, self.server.data, before=self.trouble)
            self._probe = asyncio.create_task(look)
        done, _ = await asyncio.wait([self._probe], timeout=HANGS_AFTER)
        if not done:
            detail = f"the disk below {self.server.data} does not answer"
            return StoreTrouble("failing", detail)
        probe, self._probe = self._probe, None
        return probe.result()

    async def _recover(self, bus: Bus) -> None:
        """A server that could not write once will not write again before it is restarted."""
        event = alarm_event("disk", f"{self._ailment.detail}; it is fine again", source="up")
        if await _can_store(bus, event, self._ailment):
            self._ailment = FINE
            tell(bus, FINE)
            return
        log.warning("nats_server_restarted", why=self._ailment.detail)
        back = asyncio.Event()
        bus.link.on_rebuilt.append(back.set)
        await self.server.restart()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BACK_WITHIN):
                await back.wait()
        bus.link.on_rebuilt.remove(back.set)
        self.server.said.write_failed()  # that was before


async def _can_store(bus: Bus, event: Outgoing, told: StoreTrouble) -> bool:
    """Each stream has files of its own, and so have batches: what one takes says little."""
    seen = Outgoing(f"$KV.{BUCKET}.{STORE}", msgspec.json.encode(told), expiry(SEEN_FOR))
    try:
        await bus.commit([seen], timeout=ANSWERS_WITHIN)
        await bus.commit([event, NOTHING], timeout=ANSWERS_WITHIN)
    except BusFault as fault:
        log.debug("store_not_writable", error=str(fault))
        return False
    return True
