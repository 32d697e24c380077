"""The accounts of human agents: who they are, what they may do, and by what they prove it.

They are kept in the bucket `identities`, below `agent.`; nothing of them is ever an event.
"""

import re
from datetime import datetime
from typing import Literal

import msgspec

from schemas.ownership import SUPPORT

Role = Literal["agent", "lead", "admin"]
"""Each may do all that the one before it may."""

ACCOUNT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""An agent's id is what they log in with; it is the key of their actor, too."""
WANTED_ID = "1 to 64 lower-case letters, digits, _ or -, not beginning with _ or -"

CAPACITY = 5
MOST_OPEN = 100


class Account(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent as they are known. `secret` is the Argon2id hash of the password.

    What was issued by an earlier `generation` counts no more.
    """

    id: str
    secret: str
    name: str = ""
    avatar: str = ""
    role: Role = "agent"
    teams: tuple[str, ...] = (SUPPORT,)
    skills: tuple[str, ...] = ()
    capacity: int = CAPACITY
    disabled: bool = False
    generation: int = 1
    created: datetime | None = None
    changed: datetime | None = None

    def __repr__(self) -> str:
        return f"Account(id={self.id!r}, role={self.role!r})"


class Login(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody who has logged in once. `secret` is the SHA-256 of the one refresh token that
    counts; each use of it makes another."""

    agent: str
    generation: int
    secret: str
    began: datetime

    def __repr__(self) -> str:
        return f"Login(agent={self.agent!r})"
