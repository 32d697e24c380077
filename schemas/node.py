"""What a host says of itself, every few seconds, in the bucket `nodes` under `host.<name>`."""

from datetime import datetime
from typing import Literal

import msgspec

PREFIX = "host."
IN_HAND = "jobs."
"""What hosts have in hand: `jobs.<host>.<process>`."""
STORE = "store"
"""The key of the same bucket under which `callboard up` tells of its server's store."""


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
    heard: int = 0
    """The revision of the newest thing it has read that operators said about keys and types."""
    turns: int = 0
    groups: int = 0
    trouble: str = ""
    """What is wrong with storing, as this host sees it."""


class Holding(msgspec.Struct, frozen=True, array_like=True):
    """A job in hand: where to say what becomes of it, and its run (empty if it has none)."""

    ack: str
    run: str


class InHand(msgspec.Struct, kw_only=True):
    """The jobs that one process has in hand for longer than a moment."""

    held: list[Holding] = []


class StoreTrouble(msgspec.Struct, frozen=True):
    """What is wrong with the store: no room, not writable, or data that is missing."""

    kind: Literal["", "full", "read_only", "failing", "damaged"] = ""
    detail: str = ""
