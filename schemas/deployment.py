"""What an actor type is deployed as; kept in the bucket `config` under `actor.<name>`."""

from datetime import timedelta
from typing import Any, Literal

import msgspec

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
