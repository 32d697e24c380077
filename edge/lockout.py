"""Who has tried too often, and must wait: wrong keys by address, in each process for itself;
wrong passwords by account and by address, over all edges together.
"""

import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network

from edge.problem import Refusal
from runtime.bus import new_id
from runtime.kv import Bucket

TRIES = 10
WITHIN = 60.0
ADDRESSES = 10_000
KEPT = timedelta(seconds=WITHIN)


class LockOut:
    """Addresses that have tried too many wrong keys. The oldest are forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raise Refusal 429 while an address is locked out."""
        tries = self._tries.get(network(address))
        if tries is None or len(tries) < TRIES:
            return
        left = tries[0] + WITHIN - self._clock()
        if left > 0:
            wait = {"Retry-After": str(int(left) + 1)}
            detail = f"{TRIES} wrong keys came from this address; wait {int(left) + 1} s"
            raise Refusal(429, "locked_out", detail, headers=wait)

    def count(self, address: str) -> None:
        """Remember a wrong key."""
        key = network(address)
        tries = self._tries.setdefault(key, deque(maxlen=TRIES))
        tries.append(self._clock())
        self._tries.move_to_end(key)
        while len(self._tries) > ADDRESSES:
            self._tries.popitem(last=False)


class SharedLockOut:
    """Counts wrong passwords in the bucket `identities`: each is a value that goes by itself."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def check(self, *names: str) -> None:
        """Raise Refusal 429 while one of these is locked out, also for a right password."""
        for name in names:
            tries = sorted(one.time for one in (await self._bucket.all(_below(name))).values())
            if len(tries) >= TRIES:
                left = (tries[-TRIES] + KEPT - datetime.now(UTC)).total_seconds()
                wait = min(max(int(left) + 1, 1), int(WITHIN))
                detail = f"{TRIES} wrong passwords came for this account or address; wait {wait} s"
                raise Refusal(429, "locked_out", detail, headers={"Retry-After": str(wait)})

    async def count(self, *names: str) -> None:
        """Remember a wrong password. Raises BusFault."""
        for name in names:
            await self._bucket.put(_below(name) + new_id(), b"{}", ttl=KEPT)


def _below(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"wrong.{digest[:32]}."


def network(address: str) -> str:
    """One address of IPv4, but a whole /64 of IPv6, of which one client has them all."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)
