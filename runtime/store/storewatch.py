"""Watches the store while a process runs: notes how far it got, notices when it lost something.

What hosts and edges are told by `callboard up` about the disk comes the same way. The check
before anything is taken is in runtime/store/inspection.py.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from runtime.alarm import alarm_event
from runtime.bus import Bus, expiry
from runtime.committer import NOTHING
from runtime.errors import BusFault, NoRoom
from runtime.packet import Packet, format_headers
from runtime.store.marks import BUCKET, WATCHED, Mark, MarkFile, lives_until, newest, note_mark
from runtime.streams import find_stream, incarnation
from schemas.node import STORE, StoreTrouble

log = structlog.get_logger()

EVERY = 1.0
SELDOM = 10
"""Looks after which the streams that seldom change are looked at, too."""
SURE = 2
"""Looks in a row that must find the same: a server that is starting may not have all yet."""
SURE_OF_REPLICAS = 20
"""The same on a cluster, where a leader that is cut off, or a node that is behind, may answer
with what it had for more than ten seconds, while the others have all."""
TELL_EVERY = 1.0
TOLD_FOR = 5.0
"""Seconds after which somebody who told of trouble and says no more is not believed."""
FINE = StoreTrouble()


class StoreWatch:
    """What is wrong with the store, if anything: `trouble`.

    `heard` is called whenever that changes, with the trouble or with none. `source` is who
    raises alarms, `file` where marks are kept beside the bucket.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        source: str = "",
        file: MarkFile | None = None,
        heard: Callable[[StoreTrouble], None] | None = None,
    ) -> None:
        self.bus = bus
        self.trouble = FINE
        self._limits: set[asyncio.Timeout] = set()
        self._source = source
        self._file = file
        self._heard = heard
        self._known: dict[str, Mark] = {}
        self._noted: dict[str, Mark] = {}
        self._suspected = 0
        self._told = FINE
        self._told_until = 0.0
        self._found = ""
        self._waiting: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        sid = self.bus.subscribe(f"$KV.{BUCKET}.{STORE}", self._hear)
        looks = 0
        try:
            while True:
                names = WATCHED if looks % SELDOM == 0 else WATCHED[:1]
                looks += 1
                try:
                    await self.look(names)
                except BusFault as fault:
                    log.debug("store_not_seen", error=str(fault))
                await asyncio.sleep(EVERY)
                self._weigh()
        finally:
            self.bus.unsubscribe(sid)
            if self._waiting:
                self._waiting.cancel()

    @contextlib.contextmanager
    def ending(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Let a time limit pass as soon as there is trouble."""
        self._limits.add(limit)
        try:
            yield
        finally:
            self._limits.discard(limit)

    def refused(self, fault: NoRoom) -> None:
        """Say that the server had no room: everybody is told, until an alarm can be stored."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._wait_for_room(str(fault)))

    async def _wait_for_room(self, detail: str) -> None:
        trouble = StoreTrouble("full", f"nats-server has no room: {detail}")
        event = alarm_event("no_room", detail, source=self._source)
        while True:
            tell(self.bus, trouble)
            with contextlib.suppress(BusFault):
                # As a batch: a disk may take single messages, and no batches.
                await self.bus.commit([event, NOTHING], timeout=TELL_EVERY)
                break
            await asyncio.sleep(TELL_EVERY)
        tell(self.bus, FINE)
        self._waiting = None

    async def look(self, names: tuple[str, ...] = WATCHED) -> None:
        """Look once; raises BusFault."""
        found, seen = "", {}
        for name in names:
            info = await find_stream(self.bus, name)
            if info is None:
                found = found or f"the stream {name} is not there any more"
                continue
            mark = Mark(incarnation(info), int(info["state"]["last_seq"]), datetime.now(UTC))
            found = found or self._compare(name, mark)
            seen[name] = await self._with_last(name, mark)
        self._suspected = self._suspected + 1 if found else 0
        sure = SURE if self.bus.replicas == 1 else SURE_OF_REPLICAS
        self._found = found if self._suspected >= sure else ""
        self._weigh()
        if not found:
            self._known = newest(self._known, seen)
            await self._note(seen)

    async def _with_last(self, name: str, mark: Mark) -> Mark:
        moved = mark.last_seq and _moved(self._noted.get(name), mark)
        if name != self.bus.stream or not moved:
            return mark
        last = await self.bus.at(mark.last_seq)
        return msgspec.structs.replace(mark, until=lives_until(last))

    def _compare(self, name: str, mark: Mark) -> str:
        known = self._known.get(name)
        if known is None:
            return ""
        if known.created != mark.created:
            return f"the stream {name} was created anew at {mark.created}"
        if mark.last_seq < known.last_seq:
            return f"the stream {name} ends at {mark.last_seq}, it had got to {known.last_seq}"
        return ""

    async def _note(self, seen: dict[str, Mark]) -> None:
        moved = {n: m for n, m in seen.items() if _moved(self._noted.get(n), m)}
        if not moved:
            return
        try:
            if self._file:
                await asyncio.to_thread(self._file.note, moved)
            for name, mark in moved.items():
                await note_mark(self.bus, name, mark)
        except OSError as error:
            log.warning("mark_not_noted", error=str(error))
            return
        self._noted.update(moved)

    def _hear(self, packet: Packet) -> None:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            self._told = msgspec.json.decode(packet.data, type=StoreTrouble)
            self._told_until = time.monotonic() + TOLD_FOR
            self._weigh()

    def _weigh(self) -> None:
        """What we see ourselves counts more than what we are told."""
        if time.monotonic() > self._told_until:
            self._told = FINE
        now = StoreTrouble("damaged", self._found) if self._found else self._told
        before, self.trouble = self.trouble, now
        if now.kind == before.kind:
            return  # told by several, each in his own words
        if now.kind:
            for limit in self._limits:
                limit.reschedule(asyncio.get_running_loop().time())
            log.error("store_in_trouble", kind=now.kind, detail=now.detail)
        else:
            log.info("store_fine_again", was=before.kind)
        if self._heard:
            self._heard(now)


def _moved(noted: Mark | None, mark: Mark) -> bool:
    return noted is None or noted.created != mark.created or noted.last_seq < mark.last_seq


def tell(bus: Bus, trouble: StoreTrouble) -> None:
    """Tell everybody who watches: they hear it even where it cannot be stored."""
    headers = format_headers(expiry(timedelta(seconds=TOLD_FOR)))
    with contextlib.suppress(BusFault):
        bus.link.publish(f"$KV.{BUCKET}.{STORE}", msgspec.json.encode(trouble), headers=headers)
