"""Who is there and who is typing in each conversation, as the edges tell one another.

None of it is stored, and none of it matters: what cannot be told is left out. In feeds it is
merged by edge/company.py.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from typing import Any, TypeAlias

import msgspec
import structlog

from runtime.bus import Bus
from runtime.errors import BusFault
from runtime.packet import Packet
from schemas import subjects
from schemas.envelope import UNREADABLE, encode
from schemas.model import conversation_topic
from schemas.presence import Person, Typing, Viewing

log = structlog.get_logger("edge")

TICK = 0.5
SAY_AGAIN = {"agent": 4.0, "user": 15.0}
"""Seconds between two words that somebody is there, by their role."""
MISSED = 2.7
"""How many of them may be missed before somebody is thought to be gone."""
TYPING_EVERY = 1.0
"""Seconds between two words of one speaker in one conversation."""
MOST_SPEAKERS = 10_000
MOST_ROOMS = 10_000
MOST_IN_ROOM = 64
MOST_PENDING = 64
"""Things that a client which does not read is told later; beyond that they are left out."""

Said: TypeAlias = tuple[str, dict[str, Any]]
"""`typing` or `presence`, and what it says."""
_Place: TypeAlias = tuple[str, Person]
_decode = msgspec.json.Decoder(Typing | Viewing).decode


class Seen:
    """What one feed is told of who is there and who types. Must be closed.

    A colleague is told which others are there: `presence` {session, viewers: [{id, role, name}]}
    and `typing` {session, id, role, name, on}. A customer hears of agents only, and not which of
    them look on: `presence` {session, agent: bool}, `typing` {session, role, name, on}. Nobody
    is told of themselves.
    """

    def __init__(self, presence: "Presence", session: str, me: Person, *, colleague: bool) -> None:
        self.session = session
        """Of which conversation; empty for all of them."""
        self.me = me
        self.wake = asyncio.Event()
        """Set while something is to be told."""
        self.announced = False
        """Whether others hear that `me` is there."""
        self._presence = presence
        self._colleague = colleague
        self._pending: dict[tuple[str, ...], Said] = {}
        self._known: dict[str, Any] = {}
        """By conversation: who was last said to be there, unless it is nobody."""

    def take(self) -> list[Said]:
        """What is to be told now: the newest of each kind, not all that was ever so."""
        self.wake.clear()
        told, self._pending = list(self._pending.values()), {}
        return told

    def close(self) -> None:
        """Hear no more, and be there no more."""
        self._presence.leave(self)

    def offer_typing(self, session: str, who: Person, *, on: bool) -> None:
        """Hear that somebody types, or has stopped."""
        if who == self.me or (who.role == "user" and not self._colleague):
            return
        said = {"session": session, "role": who.role, "name": who.name, "on": on}
        if self._colleague:
            said["id"] = who.id
        self._put(("typing", session, who.role, who.id), ("typing", said))

    def offer_viewers(self, session: str, viewers: list[Person]) -> None:
        """Hear who is there."""
        others = [who for who in viewers if who != self.me]
        if self._colleague:
            self._offer_others(session, "viewers", [_shown(who) for who in others])
        else:
            self._offer_others(session, "agent", any(who.role == "agent" for who in others))

    def _offer_others(self, session: str, name: str, others: Any) -> None:
        if bool(others) == (session in self._known) and self._known.get(session, others) == others:
            return
        if others:
            self._known[session] = others
        else:
            self._known.pop(session, None)
        self._put(("presence", session), ("presence", {"session": session, name: others}))

    def _put(self, key: tuple[str, ...], said: Said) -> None:
        if key in self._pending or len(self._pending) < MOST_PENDING:
            self._pending[key] = said
            self.wake.set()


class _Room:
    """One conversation: who is there and who types, each until when, and who is told."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.there: dict[tuple[Person, str], float] = {}
        """By person and edge: somebody may be there by two edges, and leave one."""
        self.typing: dict[Person, float] = {}
        self.followers: set[Seen] = set()
        self.handle: int | None = None

    @property
    def viewers(self) -> list[Person]:
        """Who is there, each once."""
        return sorted({who for who, _ in self.there}, key=lambda who: (who.role, who.id, who.name))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is known of it, and nobody wants to know."""
        return not (self.there or self.typing or self.followers)

    def hear(self, said: Typing | Viewing, now: float) -> bool:
        """Note what was said; returns whether it changes anything."""
        before = len(self.typing), self.viewers
        if isinstance(said, Typing):
            _note(self.typing, said.who, said.on, now + said.lasts)
            return before[0] != len(self.typing)
        _note(self.there, (said.who, said.via), said.on, now + said.lasts)
        return before[1] != self.viewers

    def expire(self, now: float) -> tuple[list[Person], bool]:
        """Forget what was not said again: who has stopped typing, and whether somebody left."""
        before = self.viewers
        silent = [who for who, until in self.typing.items() if until <= now]
        for who in silent:
            del self.typing[who]
        for place in [place for place, until in self.there.items() if until <= now]:
            del self.there[place]
        return silent, before != self.viewers


class _Speaker:
    """When somebody's typing was last told, and what is to be told as soon as it may be."""

    def __init__(self) -> None:
        self.told = False
        self.wanted = False
        self.at = float("-inf")


class Presence:
    """Who is there and who is typing, as one edge tells it and hears it."""

    def __init__(self, bus: Bus, *, via: str = "") -> None:
        self._bus = bus
        self._via = via or secrets.token_hex(4)
        self._rooms: dict[str, _Room] = {}
        self._watchers: set[Seen] = set()
        """Those who follow all conversations."""
        self._handle: int | None = None
        self._present: Counter[_Place] = Counter()
        """Who is there by this edge, and by how many feeds."""
        self._due: dict[_Place, float] = {}
        self._speakers: dict[_Place, _Speaker] = {}
        self._ticking: asyncio.Task[None] | None = None

    # -- saying ----------------------------------------------------------------------------

    def type(self, session: str, who: Person, *, on: bool) -> None:
        """Tell that somebody types, once in a second at most; what is too soon is told later."""
        speaker = self._speakers.get((session, who))
        if speaker is None:
            if len(self._speakers) >= MOST_SPEAKERS:
                return
            speaker = self._speakers[session, who] = _Speaker()
        speaker.wanted = on
        self._tell_typing((session, who), speaker)
        self._keep_ticking()

    def has_just_told(self, session: str, who: Person, *, on: bool) -> bool:
        """Whether the very same was told within the last second."""
        speaker = self._speakers.get((session, who))
        if speaker is None or speaker.told is not on or speaker.wanted is not on:
            return False
        return self._now() < speaker.at + TYPING_EVERY

    def _tell_typing(self, place: _Place, speaker: _Speaker) -> None:
        # That somebody has stopped is told once; that they go on, again and again.
        if self._now() < speaker.at + TYPING_EVERY or not (speaker.wanted or speaker.told):
            return
        speaker.told, speaker.at = speaker.wanted, self._now()
        self._say(Typing(session=place[0], who=place[1], on=speaker.wanted))

    def _announce(self, place: _Place, *, on: bool = True) -> None:
        session, who = place
        pause = SAY_AGAIN[who.role]
        self._due[place] = self._now() + pause
        said = Viewing(session=session, who=who, on=on, lasts=pause * MISSED, via=self._via)
        self._say(said)

    def _say(self, said: Typing | Viewing) -> None:
        with contextlib.suppress(BusFault):
            self._bus.notify(subjects.seen(conversation_topic(said.session)), encode(said))

    # -- hearing ---------------------------------------------------------------------------

    def follow(self, session: str, me: Person, *, colleague: bool, announce: bool = True) -> Seen:
        """Hear of a conversation; with `announce` others hear that `me` is there meanwhile."""
        seen = Seen(self, session, me, colleague=colleague)
        room = self._rooms.setdefault(session, _Room(session))
        room.followers.add(seen)
        if room.handle is None:
            room.handle = self._bus.subscribe(
                subjects.seen(conversation_topic(session)), self._hear
            )
        self._catch_up(seen, room)
        if announce:
            seen.announced = True
            self._present[session, me] += 1
            self._announce((session, me))
        self._keep_ticking()
        return seen

    def follow_all(self, me: Person) -> Seen:
        """Hear of all conversations, as a desk does."""
        seen = Seen(self, "", me, colleague=True)
        self._watchers.add(seen)
        if self._handle is None:
            self._handle = self._bus.subscribe(subjects.all_seen("conversation"), self._hear)
        for room in self._rooms.values():
            self._catch_up(seen, room)
        self._keep_ticking()
        return seen

    def leave(self, seen: Seen) -> None:
        """End a following; harmless if it has ended."""
        self._watchers.discard(seen)
        if not self._watchers and self._handle is not None:
            self._unsubscribe(self._handle)
            self._handle = None
        room = self._rooms.get(seen.session)
        if room is None or seen not in room.followers:
            return
        room.followers.discard(seen)
        if seen.announced:
            self._withdraw((seen.session, seen.me))
        if not room.followers and room.handle is not None:
            self._unsubscribe(room.handle)
            room.handle = None

    def close(self) -> None:
        """Say that all who were there by this edge are gone, and hear no more."""
        for place in list(self._present):
            self._announce(place, on=False)
        self._present.clear()
        handles = [self._handle, *(room.handle for room in self._rooms.values())]
        for handle in handles:
            if handle is not None:
                self._unsubscribe(handle)
        self._rooms.clear()
        self._watchers.clear()
        if self._ticking is not None:
            self._ticking.cancel()

    def _withdraw(self, place: _Place) -> None:
        self._present[place] -= 1
        if self._present[place] <= 0:
            del self._present[place]
            self._announce(place, on=False)
            self._due.pop(place, None)

    def _unsubscribe(self, handle: int) -> None:
        with contextlib.suppress(BusFault):  # without a connection it has ended already
            self._bus.unsubscribe(handle)

    def _catch_up(self, seen: Seen, room: _Room) -> None:
        if room.there:
            seen.offer_viewers(room.session, room.viewers)
        for who in room.typing:
            seen.offer_typing(room.session, who, on=True)

    def _hear(self, packet: Packet) -> None:
        try:
            said = _decode(packet.data)
        except UNREADABLE as error:
            log.debug("presence_unreadable", subject=packet.subject, error=str(error))
            return
        room = self._rooms.get(said.session)
        if room is None:
            if not self._watchers or len(self._rooms) >= MOST_ROOMS:
                return
            room = self._rooms[said.session] = _Room(said.session)
        if not room.hear(said, self._now()):
            return
        if isinstance(said, Viewing) and said.on and said.via != self._via:
            self._say_again_soon(room)
        for seen in (*room.followers, *self._watchers):
            if isinstance(said, Typing):
                seen.offer_typing(room.session, said.who, on=said.on)
            else:
                seen.offer_viewers(room.session, room.viewers)

    def _say_again_soon(self, room: _Room) -> None:
        """Who has just come by another edge does not know yet who is there by this one."""
        for seen in room.followers:
            if seen.announced:
                self._due[room.session, seen.me] = self._now()

    # -- time ------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _keep_ticking(self) -> None:
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick_on(), name="presence")

    async def _tick_on(self) -> None:
        while self._rooms or self._watchers or self._speakers:
            await asyncio.sleep(TICK)
            self.tick()

    def tick(self) -> None:
        """Say again what lasts, say what was held back, and forget what nobody says any more."""
        now = self._now()
        for place in [place for place, due in self._due.items() if due <= now]:
            self._announce(place)
        for place, speaker in list(self._speakers.items()):
            if speaker.wanted is not speaker.told:
                self._tell_typing(place, speaker)
            elif now > speaker.at + 10 * TYPING_EVERY:
                del self._speakers[place]
        for room in list(self._rooms.values()):
            self._expire(room, now)

    def _expire(self, room: _Room, now: float) -> None:
        silent, left = room.expire(now)
        for seen in (*room.followers, *self._watchers):
            for who in silent:
                seen.offer_typing(room.session, who, on=False)
            if left:
                seen.offer_viewers(room.session, room.viewers)
        if room.is_idle:
            del self._rooms[room.session]


def _note(kept: dict[Any, float], who: Any, on: bool, until: float) -> None:
    if not on:
        kept.pop(who, None)
    elif who in kept or len(kept) < MOST_IN_ROOM:
        kept[who] = until


def _shown(who: Person) -> dict[str, str]:
    return {"id": who.id, "role": who.role, "name": who.name}
