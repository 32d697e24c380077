"""What is known of the places where models are asked: values of the bucket `nodes`.

upstream.<actor>.<host>  what one host sees of one deployment's upstreams, every REPORT_EVERY
node.<name>              a node that offers itself as an upstream, again and again

Either goes TTL after it was last said. Names that are no subject tokens are hashed (`token`).
"""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from schemas.base import token

SEEN = "upstream."
NODE = "node."
REPORT_EVERY = timedelta(seconds=10)
TTL = timedelta(seconds=30)
"""How long an upstream that nobody speaks of, or a node that is silent, is taken for there."""

UpstreamStatus = Literal["HEALTHY", "BUSY", "429_LIMIT", "OFFLINE", "ERROR"]
"""BUSY: all its paths are taken. OFFLINE: it cannot be reached. ERROR: it answers with errors."""


class UpstreamSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One upstream as one host sees it.

    `current` calls are under way, `dispatched` were made and `errors` of them failed since the
    host began; `paths` is how many may be under way at once (0: any number). Where it is not
    asked before `until`, `reason` says why. `registered` ones have offered themselves.
    """

    name: str
    url: str
    status: UpstreamStatus = "HEALTHY"
    weight: float = 1.0
    paths: int = 0
    current: int = 0
    dispatched: int = 0
    errors: int = 0
    reason: str = ""
    until: datetime | None = None
    registered: bool = False


class UpstreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one host sees of the upstreams of one deployment."""

    actor: str
    host: str
    at: datetime
    upstreams: tuple[UpstreamSeen, ...] = ()


class RegisteredNode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node that offers itself as a further upstream of some deployments.

    `serves` are names of deployments, or ids of models as clients write them; a deployment takes
    the offer only if its options allow it (`registry`). `paths` as in UpstreamSeen.
    """

    name: str
    url: str
    serves: tuple[str, ...]
    weight: float = 1.0
    paths: int = 0
    at: datetime


def seen_key(actor: str, host: str) -> str:
    """Where a host tells what it sees of a deployment's upstreams."""
    return f"{SEEN}{actor}.{token(host)}"


def node_key(name: str) -> str:
    """Where a node's offer is."""
    return f"{NODE}{token(name)}"
