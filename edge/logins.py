"""Logins: who has proved who they are, for how long that counts, and how it ends.

Each has one refresh token that counts. One that was used before has been copied: all ends.
"""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from edge.identities import Identities
from edge.problem import Refusal
from runtime.accounts import BELOW, read_account
from runtime.bus import Stored
from runtime.errors import Conflict, Unknown
from schemas.account import Account, Login
from schemas.envelope import UNREADABLE

log = structlog.get_logger("edge")

KEPT = timedelta(days=7)
"""How long a refresh token may be used."""
LONGEST = timedelta(days=30)
"""After that a login ends, however often it was refreshed."""
FORGET_AFTER = timedelta(minutes=1)
LONGEST_TOKEN = 200

_decode = msgspec.json.Decoder(Login).decode
_encode = msgspec.json.encode


class Logins:
    """The logins that the bucket keeps, each under its own id."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._bucket = identities.bucket

    async def begin(self, account: Account) -> tuple[str, str]:
        """Return the id of a new login and its refresh token. Raises BusFault."""
        login, secret = secrets.token_hex(16), secrets.token_urlsafe(32)
        kept = Login(
            agent=account.id,
            generation=account.generation,
            secret=_digest(secret),
            began=datetime.now(UTC),
        )
        await self._bucket.put(_place(login), _encode(kept), ttl=KEPT)
        return login, f"{login}.{secret}"

    async def check(self, login: str) -> Account | None:
        """Return whose login it is as long as it counts, None after. Raises BusFault.

        What has ended elsewhere is noticed within a few seconds.
        """
        stored = await self._identities.get(_place(login))
        kept = _read(stored) if stored else None
        if kept is None:
            return None
        account = await self._identities.get(BELOW + kept.agent)
        return _owner(kept, account)

    async def refresh(self, token: str) -> tuple[str, Account, str]:
        """Return a login, whose it is, and the refresh token that counts from now on.

        Raises Refusal 401 `invalid_refresh_token`, BusFault.
        """
        login, _, secret = token.partition(".")
        if len(token) > LONGEST_TOKEN or not _is_id(login):
            raise _refused()
        stored = await self._bucket.get(_place(login))
        kept = _read(stored) if stored else None
        if stored is None or kept is None:
            raise _refused()
        if not hmac.compare_digest(kept.secret, _digest(secret)):
            await self._end_copied(login, kept)
        account = _owner(kept, await self._bucket.get(BELOW + kept.agent))
        if account is None or datetime.now(UTC) - kept.began > LONGEST:
            await self.end(login)
            raise _refused()
        fresh = secrets.token_urlsafe(32)
        await self._replace(login, stored, kept, fresh)
        return login, account, f"{login}.{fresh}"

    async def end(self, login: str) -> None:
        """End a login. Raises BusFault."""
        await self._bucket.delete(_place(login), forget=FORGET_AFTER)
        self._identities.forget(_place(login))

    async def _replace(self, login: str, stored: Stored, kept: Login, secret: str) -> None:
        data = _encode(msgspec.structs.replace(kept, secret=_digest(secret)))
        try:
            await self._bucket.replace(_place(login), data, stored.seq, ttl=KEPT)
        except Conflict:
            await self._end_copied(login, kept)
        except Unknown:
            there = await self._bucket.get(_place(login))
            if there is None or there.data != data:
                raise

    async def _end_copied(self, login: str, kept: Login) -> None:
        """Two have the same token, and one of them is not who they say."""
        await self.end(login)
        log.warning("refresh_used_again", agent=kept.agent, done="that login is ended")
        raise _refused()


def _owner(kept: Login, stored: Stored | None) -> Account | None:
    account = read_account(stored.data) if stored else None
    if account is None or account.disabled or account.generation != kept.generation:
        return None
    return account


def _read(stored: Stored) -> Login | None:
    try:
        return _decode(stored.data)
    except UNREADABLE:
        return None


def _refused() -> Refusal:
    detail = "the refresh token does not count, or does not any more; log in"
    return Refusal(401, "invalid_refresh_token", detail)


def _is_id(login: str) -> bool:
    return len(login) == 32 and all(c in "0123456789abcdef" for c in login)


def _place(login: str) -> str:
    return f"login.{login}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
