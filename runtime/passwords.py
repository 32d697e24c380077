"""Passwords of people: which are taken, how they are hashed, and that this stops nobody else.

Argon2id (RFC 9106) takes a tenth of a second and 64 MiB each time, so only few run at once.
"""

import asyncio
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST = 8
LONGEST = 256
AT_ONCE = 2
"""So many are checked at the same time in one process."""
NOBODY = (
    "$argon2id$v=19$m=65536,t=3,p=4$gvaFMoCv1EnPbrKvG4Cc0Q"
    "$+DLjQ/hZp2zXZH6GT/uKd+t9bNNJGsi8dPk9w0LiSFc"
)
"""The hash of random characters that were thrown away: nobody's password is of it."""


def check_password(password: str) -> None:
    """Raise ValueError with what a password lacks; the password is not in it."""
    lacks: list[str] = []
    if len(password) < SHORTEST:
        lacks.append(f"has {len(password)} characters, expected {SHORTEST} or more")
    if len(password) > LONGEST:
        lacks.append(f"has {len(password)} characters, expected at most {LONGEST}")
    if not any(c.isalpha() for c in password):
        lacks.append("has no letter")
    if not any(c.isdigit() for c in password):
        lacks.append("has no digit")
    if lacks:
        raise ValueError(f"the password {' and '.join(lacks)}")


class Passwords:
    """Hashes passwords and compares them, in threads, a few at a time."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def hash(self, password: str) -> str:
        """Return the hash of a password, which says how it was made."""
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, _normal(password))

    async def verify(self, password: str, secret: str | None) -> bool:
        """Whether a password is that of a hash. Without a hash it is not, after as much work."""
        async with self._turn:
            return await asyncio.to_thread(self._verify, password, secret)

    def _verify(self, password: str, secret: str | None) -> bool:
        try:
            self._hasher.verify(secret or NOBODY, _normal(password))
        except (VerificationError, InvalidHashError):
            return False
        return secret is not None


def _normal(password: str) -> bytes:
    """One password, however a keyboard composes its letters."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
