"""What is deployed: kept in the bucket `config`, seeded from the configuration file.

A deployment made live wins over the file; one that came from a file follows it.
"""

from collections.abc import Iterable

import msgspec
import structlog

from runtime.bus import Bus
from runtime.kv import Bucket
from schemas.deployment import Deployment

log = structlog.get_logger()

BUCKET = "config"
_PREFIX = "actor."


class Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=False):
    """A deployment and where it came from: `file` (a seed) or `live`."""

    source: str
    deployment: Deployment


_decode = msgspec.json.Decoder(Entry).decode


async def read_deployments(bus: Bus) -> dict[str, Deployment]:
    """All that is deployed, by name."""
    found = await Bucket(bus, BUCKET).all()
    return {
        key.removeprefix(_PREFIX): _decode(stored.data).deployment
        for key, stored in found.items()
        if key.startswith(_PREFIX)
    }


async def seed_deployments(bus: Bus, deployments: Iterable[Deployment]) -> None:
    """Deploy what a file names, unless it was deployed live."""
    bucket = Bucket(bus, BUCKET)
    found = await bucket.all()
    for deployment in deployments:
        key = _PREFIX + deployment.name
        entry = msgspec.json.encode(Entry(source="file", deployment=deployment))
        there = found.get(key)
        if there is None:
            await bucket.put(key, entry)
            log.info("actor_deployed", actor=deployment.name, type=deployment.type)
        elif there.data != entry:
            if _decode(there.data).source == "live":
                log.warning("live_deployment_kept", actor=deployment.name)
            else:
                await bucket.put(key, entry)
                log.info("actor_redeployed", actor=deployment.name, type=deployment.type)
