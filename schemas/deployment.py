"""What is deployed: each actor type under its name, and all of them as one roster.

The roster is kept in the bucket `config` under `deployments`.
"""

from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

Kind = Literal["keyed", "worker", "remote"]
"""Keyed actors and workers run on hosts; a remote one's jobs are taken through the edge."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One actor type under one name.

    `concurrency` is of jobs at once on each host; `mail_ttl` is how long a message may wait,
    `lifetime` how long an instance's state outlives its last turn, `deadline` how long one
    attempt at a job may take, `attempts` how often a job is tried.
    """

    name: str
    type: str
    kind: Kind
    concurrency: int = 16
    options: dict[str, Any] = {}
    mail_ttl: timedelta = timedelta(hours=24)
    lifetime: timedelta = timedelta(days=30)
    deadline: timedelta = timedelta(minutes=10)
    attempts: int = 5
    handles: tuple[str, ...] = ()
    """The messages its class handles, by their names on the wire; found when it is deployed."""

    @property
    def furthest(self) -> timedelta:
        """How far ahead an instance can be reminded: for as long as something of it is kept."""
        return max(self.lifetime, self.mail_ttl)


def is_same(one: Deployment, other: Deployment) -> bool:
    """Whether two deployments say the same; what their code handles nobody has said."""
    return replace(one, handles=()) == replace(other, handles=())


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A deployment and where it came from: `file` (a seed) or `live`, which wins.

    A `removed` one stays, so that no file brings it back and its mail is still understood.
    """

    source: Literal["file", "live"]
    deployment: Deployment
    removed: bool = False


class Roster(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that is deployed. Each revision is one more than the one it replaced."""

    revision: int
    at: datetime
    by: str
    note: str
    entries: tuple[Entry, ...] = ()

    def find(self, name: str) -> Entry | None:
        """The entry of a name, removed or not."""
        return next((one for one in self.entries if one.deployment.name == name), None)

    def deployments(self) -> dict[str, Deployment]:
        """What is deployed, by name."""
        return {e.deployment.name: e.deployment for e in self.entries if not e.removed}
