"""The board: every conversation that concerns people, as this process knows it.

What sessions keep is read once, in pages; then each change is heard on the topics of the desks.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import structlog

from edge.following import Event, Following, Reset
from edge.problem import Refusal
from edge.remembered import Remembered, read_key
from edge.session_shapes import case_of
from edge.shared import Shared
from runtime.bus import Stored
from runtime.errors import BusFault, Unavailable
from runtime.packet import Packet
from schemas import subjects
from schemas.base import Topic, tag_of, token
from schemas.conversation import SESSION
from schemas.envelope import UNREADABLE, Envelope, decode_any
from schemas.ownership import DESK, Case, CaseChanged
from schemas.session import SessionState

log = structlog.get_logger("edge")

MOST_CASES = 20_000
MOST_TEAMS = 200
DROPPED_AT_ONCE = 500
LOOK_EVERY = 10.0
"""Seconds between looks for a desk that was not heard of: what is said live may be lost."""
AGAIN_AFTER = 0.5
READY_WITHIN = 10.0
SETTLED_WITHIN = 5.0
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
CHANGED = tag_of(CaseChanged)

_decode_changed = msgspec.json.Decoder(Envelope[CaseChanged]).decode


class Entry(NamedTuple):
    """A case, and the place in the log that says so."""

    seq: int
    case: Case


class _Team:
    """One desk's topic, and how far it was heard."""

    def __init__(self, name: str, following: Following) -> None:
        self.name = name
        self.following = following
        self.task: asyncio.Task[None]


class Board:
    """The cases of all teams. It begins with the first who asks."""

    def __init__(self, shared: Shared, remembered: Remembered, *, most: int = MOST_CASES) -> None:
        self._shared = shared
        self._bus = shared.bus
        self._remembered = remembered
        self._most = most
        self._entries: dict[str, Entry] = {}
        self._teams: dict[str, _Team] = {}
        self._floor = 0
        """The end of the log before the sessions were read."""
        self._broken = False
        self._ready = asyncio.Event()
        self._stirred = asyncio.Event()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._handle: int | None = None
        self.listeners: set[Callable[[str], None]] = set()
        """Told the name of each team whose desk is followed from now on."""

    async def cases(self) -> Mapping[str, Case]:
        """Return every case by its session. Raises Refusal 503 if they are not read yet."""
        await self._wait_until_ready()
        return MappingProxyType({name: entry.case for name, entry in self._entries.items()})

    async def settled(self) -> int:
        """Return the end of the log, once the board shows all that was said up to there.

        Raises Refusal 503, BusFault.
        """
        await self._wait_until_ready()
        info = await self._bus.api(f"STREAM.INFO.{self._bus.stream}")
        newest = await self._bus.lasts(subjects.events_of(DESK))
        try:
            async with asyncio.timeout(SETTLED_WITHIN):
                while any(self._lacks(stored) for stored in newest):
                    self._moved.clear()
                    self._stirred.set()
                    await self._moved.wait()
        except TimeoutError:
            raise Unavailable("the board is behind what was said at the desks") from None
        return int(info["state"]["last_seq"])

    def learn(self, case: Case) -> None:
        """Take in what a session has answered, before it is heard."""
        known = self._entries.get(case.session)
        if self._ready.is_set() and (known is None or case.epoch > known.case.epoch):
            self._put(Entry(known.seq if known else 0, case))

    @property
    def teams(self) -> list[str]:
        """The desks that were heard of."""
        return sorted(team.name for team in self._teams.values())

    async def close(self) -> None:
        """Listen no more."""
        if self._handle is not None:
            with contextlib.suppress(BusFault):
                self._bus.unsubscribe(self._handle)
        if self._task is not None:
            self._task.cancel()
        self._drop_teams()

    async def _wait_until_ready(self) -> None:
        if self._task is None:
            self._handle = self._bus.subscribe(f"live.{subjects.events_of(DESK)}", self._hint)
            self._task = asyncio.create_task(self._run(), name="board")
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self._ready.wait()
        except TimeoutError:
            detail = "the sessions are still being read; try again in a moment"
            raise Refusal(503, "board_not_ready", detail) from None

    # -- reading and following -------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._read_all()
                self._ready.set()
                await self._follow()
            except BusFault as fault:
                log.info("board_not_read", error=str(fault))
                await asyncio.sleep(AGAIN_AFTER)
                await self._bus.link.connected.wait()
            finally:
                self._drop_teams()

    async def _read_all(self) -> None:
        """Read what every session keeps. One that changes meanwhile is read, or heard, again.

        What was known before is shown until all is read.
        """
        info = await self._bus.api(f"STREAM.INFO.{self._bus.stream}")
        self._floor, self._broken = int(info["state"]["last_seq"]), False
        entries: dict[str, Entry] = {}
        async for page in self._bus.pages(subjects.state(SESSION, "*"), after=0):
            for stored in page:
                await self._read(stored, entries)
            if len(entries) > self._most:
                _make_room(entries, self._most)
        self._entries = entries
        log.info("board_read", cases=len(entries))

    async def _read(self, stored: Stored, entries: dict[str, Entry]) -> None:
        try:
            state = await self._remembered.decode_state(SESSION, stored, SessionState)
            if state is not None and state.created is not None and _concerns_people(state):
                name = read_key(stored)
                entries[name] = Entry(stored.seq, case_of(name, state))
        except Unavailable:
            log.warning("session_unreadable", subject=stored.subject)

    async def _follow(self) -> None:
        """Follow every desk there is, until something of one is missing."""
        while not self._broken:
            self._stirred.clear()
            for stored in await self._bus.lasts(subjects.events_of(DESK)):
                await self._find_team(stored)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._stirred.wait()

    async def _find_team(self, stored: Stored) -> None:
        name = subjects.key_token(stored.subject)
        if name in self._teams:
            return
        if len(self._teams) >= MOST_TEAMS:
            log.warning("too_many_desks", most=MOST_TEAMS)
            return
        team = _team_of(stored)
        if team is None or token(team) != name:
            return
        following = await self._shared.hub.follow(Topic(DESK, team), self._floor)
        found = self._teams[name] = _Team(team, following)
        found.task = asyncio.create_task(self._hear(found), name="board")
        self._moved.set()
        for listener in list(self.listeners):
            listener(team)

    async def _hear(self, team: _Team) -> None:
        async for item in team.following:
            if isinstance(item, Reset):
                self._broken = True
                self._stirred.set()
                return
            self._take(item)
            self._moved.set()

    def _take(self, event: Event) -> None:
        if event.name != CHANGED:
            return
        try:
            case = _decode_changed(event.data).data.case
        except UNREADABLE:
            return
        known = self._entries.get(case.session)
        if known is None or known.seq < event.seq:
            self._put(Entry(event.seq, case))

    def _hint(self, packet: Packet) -> None:
        if subjects.key_token(packet.subject) not in self._teams:
            self._stirred.set()

    def _lacks(self, stored: Stored) -> bool:
        team = self._teams.get(subjects.key_token(stored.subject))
        if team is None:
            return _team_of(stored) is not None and len(self._teams) < MOST_TEAMS
        # What is handed out is taken in before anybody else has a turn.
        if team.following.cursor < stored.seq:
            team.following.notice(stored.seq)
            return True
        return False

    def _drop_teams(self) -> None:
        for team in self._teams.values():
            team.task.cancel()
            team.following.close()
        self._teams.clear()

    # -- keeping ---------------------------------------------------------------------------

    def _put(self, entry: Entry) -> None:
        self._entries[entry.case.session] = entry
        if len(self._entries) > self._most:
            _make_room(self._entries, self._most)


def _make_room(entries: dict[str, Entry], most: int) -> None:
    """Forget those that the bot has had for longest; of people's, those that changed first."""
    cases = [entry.case for entry in entries.values()]
    cases.sort(key=lambda case: (case.mode != "bot_active", changed_at(case)))
    surplus = len(cases) - most
    for case in cases[: max(surplus, min(DROPPED_AT_ONCE, most // 2))]:
        del entries[case.session]


def changed_at(case: Case) -> datetime:
    """When something last happened in a case."""
    found = case.last_at or case.created or LONG_AGO
    for at in (case.pending_since, case.manual_since, case.manual_ended):
        if at is not None and at > found:
            found = at
    return found


def _concerns_people(state: SessionState) -> bool:
    hold = state.hold
    return bool(hold.team) or hold.mode != "bot_active" or hold.escalations > 0


class _Agent(msgspec.Struct):
    teams: tuple[str, ...] = ()


class _Ask(msgspec.Struct):
    team: str = ""


class _Said(msgspec.Struct):
    """What any event of a desk may say of whose it is."""

    case: Case | None = None
    agent: _Agent | None = None
    ask: _Ask | None = None


_decode_said = msgspec.json.Decoder(_Said).decode


def _team_of(stored: Stored) -> str | None:
    """The team whose desk said something, None if it does not say."""
    name = subjects.key_token(stored.subject)
    try:
        said = _decode_said(decode_any(stored.data).data)
    except UNREADABLE:
        return name if token(name) == name else None
    named = [said.case.team if said.case else "", said.ask.team if said.ask else ""]
    named += list(said.agent.teams) if said.agent else []
    return next((one for one in (*named, name) if one and token(one) == name), None)
