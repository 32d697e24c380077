"""Human agents at the edge: proved by a password once, by tokens after, until that is taken back.

Next: `edge/login.py`, which serves it, and `edge/auth.py`, which asks it who somebody is.
"""

import asyncio
from datetime import timedelta

import structlog

from edge.auth import CHAT_ALL, CHAT_READ, DESK_ACT, DESK_ADMIN, DESK_LEAD, DESK_READ, Principal
from edge.identities import Identities
from edge.lockout import SharedLockOut, network
from edge.logins import Logins
from edge.problem import Refusal
from edge.sse import Streams
from edge.tokens import ACCESS, LASTS, TICKET, Expired, Forged, Tokens
from runtime.accounts import Accounts
from runtime.bus import Bus
from runtime.errors import BusFault
from runtime.passwords import AT_ONCE, Passwords
from schemas.account import ACCOUNT_ID, Account, Role

log = structlog.get_logger("edge")

PREFIX = "agent:"
"""How the id of an agent's principal begins."""
LOOK_EVERY = 2.0
"""Seconds between looks whether those who follow something still may."""
MOST_WAITING = 64
SPENT = timedelta(seconds=LASTS[TICKET] * 10)
"""For how long it is known that a ticket was used: longer than it can be valid."""

EVERY = frozenset({DESK_READ, DESK_ACT, CHAT_READ, CHAT_ALL})
SCOPES: dict[Role, frozenset[str]] = {
    "agent": EVERY,
    "lead": EVERY | {DESK_LEAD},
    "admin": EVERY | {DESK_LEAD, DESK_ADMIN},
}


class Agents:
    """Logs agents in, and knows them by what they were given then."""

    def __init__(self, bus: Bus) -> None:
        self.identities = Identities(bus)
        self.accounts = Accounts(bus)
        self.passwords = Passwords()
        self.logins = Logins(self.identities)
        self.tokens = Tokens(self.identities)
        self._lock_out = SharedLockOut(self.identities.bucket)
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def log_in(self, id: str, password: str, address: str) -> Account:
        """Return the account whose password this is.

        Raises Refusal 401 for an account that is not there, is disabled, or has another one: all
        the same. 429 after too many wrong ones, or while too many wait. Raises BusFault.
        """
        known = id.strip().lower()
        account = await self.prove(known, password, address)
        if account is None or account.disabled:
            log.info("login_refused", agent=known if ACCOUNT_ID.fullmatch(known) else "")
            detail = "there is no such agent with that password"
            raise Refusal(401, "wrong_credentials", detail)
        return account

    async def prove(self, id: str, password: str, address: str) -> Account | None:
        """Return the account if the password is its own, None if not; wrong ones are counted.

        Raises Refusal 429, BusFault.
        """
        if self._waiting >= MOST_WAITING:
            wait = {"Retry-After": "2"}
            raise Refusal(429, "too_many_logins", "too many log in just now", headers=wait)
        self._waiting += 1
        try:
            # Only once it is our turn: of many at once, no more are tried than may be wrong.
            async with self._turn:
                return await self._prove(id, password, address)
        finally:
            self._waiting -= 1

    async def _prove(self, id: str, password: str, address: str) -> Account | None:
        names = (f"account {id}", f"address {network(address)}")
        await self._lock_out.check(*names)
        account = await self.accounts.find(id) if ACCOUNT_ID.fullmatch(id) else None
        if await self.passwords.verify(password, account.secret if account else None):
            return account
        await self._lock_out.count(*names)
        return None

    async def admit(self, token: bytes) -> Principal | None:
        """Return whose access token this is, None if it was never one.

        Raises Refusal 401 if it does not count any more, BusFault.
        """
        try:
            claims = await self.tokens.read(token, ACCESS)
        except Forged:
            return None
        except Expired:
            raise _stale() from None
        return await self._admit(claims.login)

    async def admit_ticket(self, ticket: str, path: str) -> Principal:
        """Return whose ticket this is, and take it. Raises Refusal 401, BusFault."""
        try:
            claims = await self.tokens.read(ticket.encode("utf-8", "replace"), TICKET)
        except (Forged, Expired):
            raise _no_ticket() from None
        # Which path it was for is compared first: whoever mistakes it has not spent it.
        if claims.path != path:
            raise _no_ticket()
        bucket = self.identities.bucket
        if not await bucket.create(f"spent.{claims.jti}", b"{}", ttl=SPENT):
            raise _no_ticket()
        return await self._admit(claims.login)

    async def _admit(self, login: str) -> Principal:
        account = await self.logins.check(login)
        if account is None:
            raise _stale()
        return principal_of_account(account, login)

    async def keep_watch(self, streams: Streams) -> None:
        """End the streams of whoever is not logged in any more, for as long as this runs."""
        stirred = self.identities.stirred
        while True:
            stirred.clear()
            for login in streams.logins:
                try:
                    if await self.logins.check(login) is None:
                        streams.end_login(login)
                except BusFault as fault:
                    log.debug("login_not_checked", error=str(fault))
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await stirred.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        """Listen no more."""
        self.identities.close()


def principal_of_account(account: Account, login: str = "") -> Principal:
    """Return who an agent is to the edge."""
    return Principal(
        id=PREFIX + account.id,
        kind="agent",
        scopes=SCOPES[account.role],
        tier="agent",
        name=account.name,
        agent=account.id,
        teams=frozenset(account.teams),
        login=login,
    )


def _stale() -> Refusal:
    return Refusal(401, "invalid_token", "the token does not count any more; refresh it, or log in")


def _no_ticket() -> Refusal:
    detail = "the ticket is for another path, was used, or is too old; fetch another one"
    return Refusal(401, "invalid_ticket", detail)
