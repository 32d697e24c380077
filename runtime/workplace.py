"""What a worker knows of where it runs, besides its jobs."""

from dataclasses import dataclass
from functools import cached_property

from runtime.bus import Bus
from runtime.kv import Bucket
from schemas.deployment import Deployment

NODES = "nodes"


@dataclass(frozen=True)
class Workplace:
    """How the worker is deployed, the host's name, and the bus for what is no job's affair."""

    deployment: Deployment
    host: str
    bus: Bus

    @cached_property
    def nodes(self) -> Bucket:
        """The bucket in which hosts tell what they see."""
        return Bucket(self.bus, NODES)
