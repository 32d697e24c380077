"""Which host should own a shard, and which should stand by: a pure function of who is alive.

Every host reckons it for itself from the same heartbeats (runtime/neighbours.py) and comes to the
same result; while their views differ, the server's pin decides (runtime/pinned.py).
"""

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from schemas.subjects import SHARDS


class Place(NamedTuple):
    """Who is to own one shard, and who is next; `standby` is empty where there is one host."""

    owner: str
    standby: str


@lru_cache(maxsize=256)
def place(actor: str, hosts: frozenset[str]) -> tuple[Place, ...]:
    """Where each shard of a type belongs, by number; nothing if there is no host.

    The standby is who would own it if the owner were gone, so that a takeover is the last move.
    """
    owners = _owners(actor, hosts)
    without = {host: _owners(actor, hosts - {host}) for host in hosts}
    return tuple(
        Place(owner, without[owner][shard] if without[owner] else "")
        for shard, owner in enumerate(owners)
    )


def _owners(actor: str, hosts: frozenset[str]) -> list[str]:
    """Rendezvous hashing, with no host taking more than its share of the shards."""
    if not hosts:
        return []
    room = dict.fromkeys(hosts, -(-SHARDS // len(hosts)))
    owners = []
    for shard in range(SHARDS):
        ranked = sorted(hosts, key=lambda host: _weigh(host, actor, shard), reverse=True)
        owner = next(host for host in ranked if room[host])
        room[owner] -= 1
        owners.append(owner)
    return owners


@lru_cache(maxsize=65536)
def _weigh(host: str, actor: str, shard: int) -> bytes:
    return blake2b(f"{host}|{actor}|{shard}".encode(), digest_size=8).digest()
