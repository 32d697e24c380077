"""What a host says of itself, every few seconds, in the bucket `nodes` under `host.<name>`."""

from datetime import datetime

import msgspec

PREFIX = "host."


class Failing(msgspec.Struct, kw_only=True):
    """A key that waits: its handler fails, or somebody paused it."""

    address: str
    seq: int
    tries: int
    reason: str


class Node(msgspec.Struct, kw_only=True):
    """A living host: what it runs, what stands still and why, which shards it owns."""

    name: str
    pid: int
    started: datetime
    actors: list[str]
    paused: dict[str, str] = {}
    owned: dict[str, list[int]] = {}
    failing: list[Failing] = []
    revision: int = 0
    """Of the deployments it runs."""
    turns: int = 0
    groups: int = 0
