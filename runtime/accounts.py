"""Accounts of agents in the bucket `identities`: found, made, changed and removed.

Whoever changes one compares first, so that of two changes neither is lost.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from runtime.bus import Bus
from runtime.errors import Conflict, Unavailable
from runtime.kv import Bucket
from schemas.account import Account
from schemas.envelope import UNREADABLE

BUCKET = "identities"
BELOW = "agent."

_decode = msgspec.json.Decoder(Account).decode
_encode = msgspec.json.encode
replace = msgspec.structs.replace


class Accounts:
    """The accounts that the bucket keeps."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, BUCKET)

    async def find(self, id: str) -> Account | None:
        """Return an account as of now. Raises BusFault."""
        stored = await self._bucket.get(BELOW + id)
        return read_account(stored.data) if stored else None

    async def all(self) -> list[Account]:
        """Return every account, by id. Raises BusFault."""
        found = await self._bucket.all(BELOW)
        return [read_account(found[key].data) for key in sorted(found)]

    async def add(self, account: Account) -> Account | None:
        """Keep a new account; None if there is one of its id. Raises BusFault."""
        now = datetime.now(UTC)
        # One of this name may have been there before: what was issued to it must not count.
        generation = time_number(now)
        made = replace(account, created=now, changed=now, generation=generation)
        return made if await self._bucket.create(BELOW + made.id, _encode(made)) else None

    async def change(self, id: str, change: Callable[[Account], Account]) -> Account | None:
        """Make of an account what `change` does; None if there is none. Raises BusFault."""
        while True:
            stored = await self._bucket.get(BELOW + id)
            if stored is None:
                return None
            made = replace(change(read_account(stored.data)), changed=datetime.now(UTC))
            try:
                await self._bucket.replace(BELOW + id, _encode(made), stored.seq)
            except Conflict:
                continue
            return made

    async def remove(self, id: str) -> bool:
        """Take an account away; False if there is none. Raises BusFault."""
        if await self._bucket.get(BELOW + id) is None:
            return False
        await self._bucket.delete(BELOW + id)
        return True


def with_password(account: Account, secret: str) -> Account:
    """An account with another password: whoever is logged in by the old one is not any more."""
    return replace(account, secret=secret, generation=account.generation + 1)


def read_account(data: bytes) -> Account:
    """Return what is kept as an account. Raises Unavailable if it is none."""
    try:
        return _decode(data)
    except UNREADABLE:
        raise Unavailable(f"what the bucket {BUCKET!r} keeps of an account is unreadable") from None


def time_number(now: datetime) -> int:
    """A number that is larger than that of any earlier moment."""
    return int(now.timestamp() * 1000)
