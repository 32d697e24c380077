"""What operators have said about keys and types: read by every host, written by commands.

How an instance obeys is in runtime/shelf.py, the commands are in runtime/terminal/operations.py.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

import msgspec
import structlog

from runtime.bus import Bus, Stored
from runtime.errors import BusFault, Conflict
from runtime.kv import Bucket
from runtime.record import decode_record
from schemas import subjects
from schemas.base import Address, token
from schemas.control import PREFIX, Control
from schemas.envelope import UNREADABLE

log = structlog.get_logger()

READ_EVERY = 5.0
READ_AGAIN = 0.2
KEPT = 10.0
"""Seconds that what is done with stays, so that no host still goes by what was said before."""
TRIES = 5

Key = tuple[str, str]
"""An actor and a key's token; no token is the whole type."""

_decode = msgspec.json.Decoder(Control).decode
_encode = msgspec.json.encode


def name_of(actor: str, key: str = "") -> str:
    """Where what is said about a key is kept, `key` being a token; without one, about a type."""
    return f"{PREFIX}{actor}.{key}" if key else f"{PREFIX}{actor}"


class Controls:
    """What is in force, as of the last reading; `find` is asked before every turn."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bucket = Bucket(bus, "config")
        self.types: dict[str, Control] = {}
        self.keys: dict[Key, Control] = {}
        self.heard = 0
        """The revision of the newest thing that was ever read here."""
        self._revisions: dict[Key, int] = {}
        self._since: dict[Key, float] = {}
        self._stirred = asyncio.Event()
        self._watching = False

    def find(self, actor: str, key: str) -> Control | None:
        """What is said about a key; `key` is a token."""
        return self.keys.get((actor, key)) if self.keys else None

    async def read(self) -> set[Key]:
        """As `look`, and be told of what is said from now on."""
        if not self._watching:
            # Watch before reading, or what is said in between is missed.
            self._bucket.watch(self._stirred.set)
            self._watching = True
        return await self.look()

    async def look(self) -> set[Key]:
        """Read everything; returns the keys about which something was said that is gone."""
        found: dict[Key, Stored] = {}
        for name, stored in (await self._bucket.all(PREFIX)).items():
            actor, _, key = name.removeprefix(PREFIX).partition(".")
            found[actor, key] = stored
        before = set(self.keys)
        self._note(found)
        return before - set(self.keys)

    def _note(self, found: dict[Key, Stored]) -> None:
        said: dict[Key, Control] = {}
        for key, stored in found.items():
            if stored.seq != self._revisions.get(key):
                self._since[key] = time.monotonic()
            said[key] = _read(key, stored)
        self._revisions = {key: stored.seq for key, stored in found.items()}
        self.heard = max(self.heard, *self._revisions.values(), 0)
        self._since = {key: self._since[key] for key in found}
        self.types = {actor: one for (actor, key), one in said.items() if not key}
        self.keys = {key: one for key, one in said.items() if key[1]}

    def stir(self) -> None:
        """Something may have been said."""
        self._stirred.set()

    def resumed(self, actor: str) -> int:
        """When operators last said that a type may go on: a revision, 0 if never or paused."""
        control = self.types.get(actor)
        return self._revisions[actor, ""] if control and not control.paused else 0

    async def run(
        self,
        call: Callable[[str, str], bool],
        types_changed: Callable[[], None],
        heard: Callable[[], None],
    ) -> None:
        """Follow what is said until cancelled.

        `call` has an instance look at what is said about it; False if it is not ours. `heard`
        is called when something new was read.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_EVERY):
                    await self._stirred.wait()
            self._stirred.clear()
            try:
                before, newest = self._types_said(), self.heard
                await self._follow(call)
                if self.heard != newest:
                    heard()
                if self._types_said() != before:
                    types_changed()
            except BusFault as fault:
                log.debug("controls_not_read", error=str(fault))
                await asyncio.sleep(READ_AGAIN)
                self._stirred.set()

    def _types_said(self) -> dict[str, int]:
        return {actor: self._revisions[actor, ""] for actor in self.types}

    async def _follow(self, call: Callable[[str, str], bool]) -> None:
        gone = await self.read()
        for actor, key in (*self.keys, *gone):
            control = self.keys.get((actor, key))
            ours = call(actor, key)
            if ours and control is not None and not control.paused:
                await self._tidy((actor, key), control)

    async def _tidy(self, key: Key, control: Control) -> None:
        """Take away what has been done, once every host has heard of it."""
        if time.monotonic() - self._since[key] < KEPT:
            return
        stored = await self._bus.last(subjects.state(*key))
        if not await is_done(self._bus, control, stored):
            return
        with contextlib.suppress(Conflict):
            await self._bucket.delete(name_of(*key), revision=self._revisions[key])


def _read(key: Key, stored: Stored) -> Control:
    """What is said; what nobody can read may have been a pause, so it is one."""
    try:
        return _decode(stored.data)
    except UNREADABLE as error:
        log.error("control_unreadable", control=key, error=str(error))
        return _unreadable("/".join(filter(None, key)))


def _unreadable(address: str) -> Control:
    return Control(
        address=address, paused=True, by="the host", reason="what was said is unreadable"
    )


async def is_done(bus: Bus, control: Control, stored: Stored | None) -> bool:
    """Whether an instance with this record has done all that was said about it."""
    if stored is None:
        return control.kill is None and not control.skips
    try:
        record = decode_record(stored.data)
    except UNREADABLE:
        return False
    if record.stream != bus.created:
        return False
    skipped = all(seq <= record.done for seq in control.skips)
    at_rest = control.paused or not record.parked
    return skipped and at_rest and not control.is_kill_due(record.killed)


async def change_control(
    bus: Bus, address: Address, change: Callable[[Control], Control], *, whole: bool = False
) -> Control:
    """Say something more about a key, or the `whole` type; returns what was said before.

    Raises BusFault, and Conflict if others never stop saying something too.
    """
    bucket = Bucket(bus, "config")
    name = name_of(address.actor, "" if whole else token(address.key))
    for _ in range(TRIES):
        stored = await bucket.get(name)
        told = address.actor if whole else str(address)
        before = _known(stored, told)
        try:
            revision = stored.seq if stored else 0
            await bucket.replace(name, _encode(change(before)), revision)
        except Conflict:
            continue
        return before
    raise Conflict(f"others say something about {address} at the same time; try again")


def _known(stored: Stored | None, told: str) -> Control:
    try:
        return _decode(stored.data) if stored else Control(address=told)
    except UNREADABLE:
        return _unreadable(told)


async def read_revision(bus: Bus, address: Address, *, whole: bool = False) -> int:
    """The revision of what is said about a key, or the `whole` type; 0 if nothing is."""
    name = name_of(address.actor, "" if whole else token(address.key))
    stored = await Bucket(bus, "config").get(name)
    return stored.seq if stored else 0


async def read_control(bus: Bus, address: Address, *, whole: bool = False) -> Control | None:
    """What is said about a key, or the `whole` type."""
    stored = await Bucket(bus, "config").get(
        name_of(address.actor, "" if whole else token(address.key))
    )
    return _known(stored, str(address)) if stored else None
