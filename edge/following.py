"""Following topics: history from the log, then what happens, each event once and in order.

One subscription per topic and process. Who reads too slowly is served from the log again.
"""

import asyncio
import contextlib
import re
from collections import deque
from datetime import timedelta
from weakref import WeakValueDictionary

import msgspec
import structlog

from edge.reach import AHEAD, find_reach
from runtime.bus import Bus, Stored
from runtime.errors import BusFault
from runtime.packet import Packet
from runtime.streams import incarnation
from schemas import subjects
from schemas.base import Topic
from schemas.envelope import decode_any

log = structlog.get_logger("edge")

QUEUE = 100
QUEUE_BYTES = 1024 * 1024
PAGE = 64
"""How many events are read from the log at a time."""
READERS = 16
"""How many followers read at a time: they share a connection, which is cut if it gets too much."""
CHECK_EVERY = 10.0
"""Seconds between looks at the log: what is said live may be lost on the way."""
FIRST_CHECK = 1.0
"""In a cluster a new subscription takes a moment to be known everywhere."""
STALE_TRIES = 40
STALE_TRIES_OF_REPLICAS = 400
"""Looks at the log for what was heard of: a replica that is cut off may stay behind."""
STALE_WAIT = 0.05
EVENT_TTL = timedelta(days=30)

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")
UNREADABLE = "unreadable"


class Event:
    """One event of a topic. `data` is its envelope as stored, on one line.

    `previous` is the sequence of the event before it on its topic; 0 if that is not known.
    """

    __slots__ = ("__weakref__", "_block", "data", "name", "previous", "seq")

    def __init__(self, seq: int, data: bytes) -> None:
        self.seq = seq
        self.previous = 0
        self.name, self.data = _read(data)
        self._block = b""

    @property
    def block(self) -> bytes:
        """The event as server-sent events write it; made once for all followers."""
        if not self._block:
            self._block = b"id: %d\nevent: %b\ndata: %b\n\n" % (
                self.seq,
                self.name.encode(),
                self.data,
            )
        return self._block


def _read(data: bytes) -> tuple[str, bytes]:
    """The name of a stored event, and the event on one line.

    Outside of strings, where JSON has no line ends, they are white space.
    """
    try:
        name = decode_any(data).type
        data.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        name = ""
    if not _NAME.fullmatch(name):
        return UNREADABLE, b"{}"
    return name, data.translate(_LINE_ENDS) if b"\n" in data or b"\r" in data else data


class Reset:
    """What was said after the follower's cursor is not all there any more, and why.

    The follower starts afresh: from a snapshot of now, then with what comes after `cursor`.
    """

    def __init__(self, cursor: int, reason: str) -> None:
        self.cursor = cursor
        self.reason = reason


class Hub:
    """All that one process follows, and for whom."""

    def __init__(
        self, bus: Bus, *, check_every: float = CHECK_EVERY, event_ttl: timedelta = EVENT_TTL
    ) -> None:
        self.bus = bus
        self.event_ttl = event_ttl
        self.reading = asyncio.Semaphore(READERS)
        self._stream = bus.created
        self.check_every = check_every
        self._feeds: dict[str, _Feed] = {}
        self._doubted = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        bus.link.on_rebuilt.append(self._doubted.set)

    @property
    def topics(self) -> int:
        """How many topics are followed."""
        return len(self._feeds)

    async def follow(self, topic: Topic, after: int | None) -> "Following":
        """Follow a topic past a cursor; from now on if there is none, from its start if it is 0.

        The first item is a `Reset` where the log no longer reaches back to the cursor. Whoever
        follows must `close`. Raises BusFault if the log cannot be asked.
        """
        following = Following(self._feed(subjects.event(topic), f"{topic}"), after or 0)
        try:
            reach = await find_reach(self.bus, following.subject, after, self.event_ttl)
        except BaseException:
            following.close()
            raise
        if after is None:
            following.begin(reach.last)
        elif reach.reason:
            following.restart(Reset(reach.last, reach.reason))
        return following

    def follow_new(self, topic: Topic) -> "Following":
        """Follow a topic on which nothing was said yet. Whoever follows must `close`."""
        following = Following(self._feed(subjects.event(topic), f"{topic}"), 0)
        following.begin(0)
        return following

    def close(self) -> None:
        """Follow nothing any more."""
        with contextlib.suppress(ValueError):
            self.bus.link.on_rebuilt.remove(self._doubted.set)
        if self._watch:
            self._watch.cancel()
        for feed in list(self._feeds.values()):
            self.drop(feed)

    def drop(self, feed: "_Feed") -> None:
        """Stop listening to a topic that nobody follows any more."""
        if self._feeds.pop(feed.subject, None) is not None:
            # Without a connection the subscription is gone already.
            with contextlib.suppress(BusFault):
                self.bus.unsubscribe(feed.handle)

    def _feed(self, subject: str, topic: str) -> "_Feed":
        feed = self._feeds.get(subject)
        if feed is None:
            feed = self._feeds[subject] = _Feed(self, subject, topic)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._keep_checking(), name="following")
        return feed

    # -- looking at the log now and then ---------------------------------------------------

    async def _keep_checking(self) -> None:
        while self._feeds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(FIRST_CHECK, self.check_every)):
                    await self._doubted.wait()
            # What is asked without a connection fails at once: asking on and on would leave
            # nobody else a turn, not even whoever connects.
            await self.bus.link.connected.wait()
            everything, now = self._doubted.is_set(), asyncio.get_running_loop().time()
            self._doubted.clear()
            if everything:
                await self._check_stream()
            for feed in list(self._feeds.values()):
                if everything or feed.due <= now:
                    feed.due = now + self.check_every
                    await self._check(feed)

    async def _check_stream(self) -> None:
        """After a new connection: the log may be another one, whose sequences begin anew."""
        try:
            info = await self.bus.api(f"STREAM.INFO.{self.bus.stream}")
        except BusFault:
            await asyncio.sleep(STALE_WAIT)
            self._doubted.set()
            return
        if incarnation(info) == self._stream:
            return
        self._stream = incarnation(info)
        for feed in list(self._feeds.values()):
            for follower in list(feed.followers):
                follower.restart(Reset(int(info["state"]["last_seq"]), AHEAD))

    async def _check(self, feed: "_Feed") -> None:
        try:
            newest = await self.bus.last(feed.subject)
        except BusFault as fault:
            log.debug("feed_not_checked", topic=feed.topic, error=str(fault))
            feed.due = 0.0
            return
        for follower in list(feed.followers):
            follower.notice(newest.seq if newest else 0)


class _Feed:
    """One topic, as this process hears it: one subscription for all who follow it."""

    def __init__(self, hub: Hub, subject: str, topic: str) -> None:
        self.hub = hub
        self.subject = subject
        self.topic = topic
        self.followers: set[Following] = set()
        first = FIRST_CHECK if hub.bus.replicas > 1 else hub.check_every
        self.due = asyncio.get_running_loop().time() + first
        # What several followers hold at the same moment is one object.
        self._held: WeakValueDictionary[int, Event] = WeakValueDictionary()
        self.handle = hub.bus.subscribe(f"live.{subject}", self._hear)

    def _hear(self, packet: Packet) -> None:
        try:
            seq = int(packet.headers["Nats-Sequence"])
            previous = int(packet.headers["Nats-Last-Sequence"])
        except (KeyError, ValueError):
            # Not the server's repetition of an event; the log tells what there is.
            self.due = 0.0
            return
        event = self._held.get(seq)
        if event is None:
            event = self._held[seq] = Event(seq, packet.data)
        # One that was read from the log did not know it.
        event.previous = previous
        for follower in list(self.followers):
            follower.offer(event)

    def event(self, stored: Stored) -> Event:
        """The event that the log holds."""
        event = self._held.get(stored.seq)
        if event is None:
            event = self._held[stored.seq] = Event(stored.seq, stored.data)
        return event


class Following:
    """One follower's way through a topic: `async for` gives each event once, in order.

    A `Reset` comes first where the cursor is out of the log's reach. Waiting for the next one
    may be cancelled and begun again: nothing is lost by it.
    """

    def __init__(self, feed: _Feed, cursor: int) -> None:
        self.subject = feed.subject
        self.cursor = cursor
        """The sequence of the newest event given out."""
        self._feed = feed
        self._queue: deque[Event] = deque()
        self._queued = 0
        self._page: deque[Event] = deque()
        self._behind = True
        self._reset: Reset | None = None
        self._stale = 0
        self._wake = asyncio.Event()
        # Listening comes before reading, so that nothing falls between.
        feed.followers.add(self)

    @property
    def has_hole(self) -> bool:
        """Whether a `Reset` comes next."""
        return self._reset is not None

    def close(self) -> None:
        """Follow no more."""
        self._feed.followers.discard(self)
        if not self._feed.followers:
            self._feed.hub.drop(self._feed)

    def begin(self, cursor: int) -> None:
        """Take what comes after `cursor`, which is now: there is nothing to read before it."""
        self.cursor, self._behind = cursor, False

    def skip(self, cursor: int) -> None:
        """Leave out what comes up to `cursor`: it is known already."""
        if cursor > self.cursor:
            self.cursor, self._behind = cursor, True

    def restart(self, reset: Reset) -> None:
        """Say first that there is a hole, and go on behind it."""
        self.begin(reset.cursor)
        self._page.clear()
        while self._queue:
            self._take_first()
        self._reset = reset
        self._wake.set()

    def __aiter__(self) -> "Following":
        return self

    async def __anext__(self) -> Event | Reset:
        while True:
            if self._reset is not None:
                reset, self._reset = self._reset, None
                return reset
            if (event := self.ready()) is not None:
                return event
            if self._behind:
                await self._read()
            else:
                self._wake.clear()
                await self._wake.wait()

    def ready(self) -> Event | None:
        """The next event, if it is here already."""
        if self._reset is not None:
            return None
        while self._page:
            event = self._page.popleft()
            if event.seq > self.cursor:
                self.cursor = event.seq
                return event
        while self._queue:
            event = self._queue[0]
            if event.seq > self.cursor and event.previous > self.cursor:
                self._behind = True
                return None
            self._take_first()
            if event.seq > self.cursor:
                self.cursor = event.seq
                return event
        return None

    # -- told by the feed ------------------------------------------------------------------

    def offer(self, event: Event) -> None:
        """Hear an event. What does not fit into the queue is read from the log later."""
        if len(self._queue) >= QUEUE or self._queued + len(event.data) > QUEUE_BYTES:
            if not self._behind:
                log.warning("follower_behind", topic=self._feed.topic, waiting=len(self._queue))
            self._behind = True
        else:
            self._queue.append(event)
            self._queued += len(event.data)
        self._wake.set()

    def notice(self, newest: int) -> None:
        """Learn what the newest event in the log is, and read it if it was not heard."""
        held = max((each[-1].seq for each in (self._queue, self._page) if each), default=0)
        if newest > max(held, self.cursor):
            self._behind = True
            self._wake.set()

    # -- reading ---------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read on from the log. A replica may be behind what was heard already."""
        bus = self._feed.hub.bus
        try:
            async with self._feed.hub.reading:
                page = await bus.read(self.subject, after=self.cursor, limit=PAGE)
        except BusFault as fault:
            log.debug("log_not_read", topic=self._feed.topic, error=str(fault))
            await asyncio.sleep(STALE_WAIT)
            await bus.link.connected.wait()
            return
        if page:
            self._page.extend(self._feed.event(stored) for stored in page)
            self._behind, self._stale = page[-1].pending > 0, 0
        else:
            await self._wait_for_replica()

    async def _wait_for_replica(self) -> None:
        """Nothing is there to read. If more was heard, it must turn up soon, or never."""
        self._behind = False
        while self._queue and self._queue[0].seq <= self.cursor:
            self._take_first()
        if not self._queue or self._queue[0].previous <= self.cursor:
            return
        self._stale += 1
        single = self._feed.hub.bus.replicas == 1
        if self._stale < (STALE_TRIES if single else STALE_TRIES_OF_REPLICAS):
            await asyncio.sleep(STALE_WAIT)
            return
        log.warning("events_missing", topic=self._feed.topic, after=self.cursor)
        self._stale = 0
        self.cursor = self._queue[0].previous

    def _take_first(self) -> None:
        self._queued -= len(self._queue.popleft().data)
