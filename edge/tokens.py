"""Access tokens of agents and one-use tickets: JSON Web Tokens that only edges of this bus make.

The key is made once, by whichever edge needs it first. Only what we issue ourselves is taken.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import msgspec

from edge.identities import Identities

ALGORITHM = "HS256"
ISSUER = "callboard"
ACCESS = "callboard.desk"
TICKET = "callboard.ticket"
LASTS: Mapping[str, int] = {ACCESS: 3600, TICKET: 30}
"""For whom a token is, and how many seconds it lasts."""
SKEW = 60
"""Seconds that the clocks of two edges may differ."""
LONGEST = 2048

KEY = "signing.agents"
KEY_BYTES = 48
HEADERS = {"alg", "typ"}
REQUIRED = ("exp", "iat", "iss", "aud", "sub", "jti")


class Claims(msgspec.Struct, kw_only=True):
    """What a token says: whose it is, and by which login. A ticket is for one `path`."""

    sub: str
    jti: str
    iat: int
    exp: int
    login: str
    path: str = ""


class Forged(Exception):
    """Nobody of us made this token, or not so."""


class Expired(Exception):
    """The token was good once."""


class Tokens:
    """Makes tokens, and reads them strictly."""

    def __init__(self, identities: Identities, clock: Callable[[], float] = time.time) -> None:
        self._identities = identities
        self._clock = clock

    async def issue(self, audience: str, agent: str, login: str, path: str = "") -> str:
        """Return a token that lasts as long as those of its audience do. Raises BusFault."""
        now = int(self._clock())
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "sub": agent,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + LASTS[audience],
            "login": login,
            **({"path": path} if path else {}),
        }
        return jwt.encode(claims, await self._key(), algorithm=ALGORITHM)

    async def read(self, token: bytes, audience: str) -> Claims:
        """Return what a token says. Raises Forged, Expired, BusFault.

        Its times are compared with this clock by hand: PyJWT knows the system's only.
        """
        text = _text(token)
        try:
            if set(jwt.get_unverified_header(text)) - HEADERS:
                raise Forged
            found: dict[str, Any] = jwt.decode(
                text,
                await self._key(),
                algorithms=[ALGORITHM],
                audience=audience,
                issuer=ISSUER,
                options={
                    "require": list(REQUIRED),
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            claims = msgspec.convert(found, Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError):
            raise Forged from None
        self._check_times(claims, LASTS[audience])
        return claims

    def _check_times(self, claims: Claims, lasts: int) -> None:
        now = self._clock()
        if claims.iat > now + SKEW or not 0 < claims.exp - claims.iat <= lasts:
            raise Forged
        if claims.exp + SKEW <= now:
            raise Expired

    async def _key(self) -> bytes:
        stored = await self._identities.get(KEY)
        while stored is None:
            # Of two edges that make one, the other's is ours too.
            await self._identities.bucket.create(KEY, secrets.token_bytes(KEY_BYTES))
            self._identities.forget(KEY)
            stored = await self._identities.get(KEY)
        return stored.data


def _text(token: bytes) -> str:
    if len(token) > LONGEST or not token.isascii():
        raise Forged
    return token.decode()
