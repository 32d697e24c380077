"""Who takes part, with what, and how much of it."""

from dataclasses import dataclass
from importlib.util import find_spec

SYNCS = ("always", "2m")
"""How often the server syncs to the disk: on each write, or lazily (its own default)."""

LAXEST = "2m"

BASE = "nats-py loop"
PLAIN_JOB = "nats-py job"
PEER = "FastStream job"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Messages before it counts, messages timed (fewer where each is synced), idle round trips."""

    warm: int = 0
    load: int = 0
    synced: int = 0
    trips: int = 0

    def timed(self, sync: str) -> int:
        """How many messages are timed under a sync setting."""
        return self.synced if sync == "always" else self.load


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A worker and a driver, each `module:Class` and a process of its own; or several workers."""

    name: str
    worker: str
    driver: str
    full: Sizes
    quick: Sizes
    needs: tuple[str, ...] = ()
    workers: int = 1

    def missing(self) -> str:
        """The first module it needs that is not there, or nothing."""
        return next((name for name in self.needs if not _is_there(name)), "")


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its package is not there
        return False


CONTESTANTS = [
    Contestant(
        name=BASE,
        worker="bench.plain:LoopWorker",
        driver="bench.plain:Producer",
        full=Sizes(warm=500, load=12_000, synced=3000),
        quick=Sizes(warm=100, load=3000, synced=800),
    ),
    Contestant(
        name="nats-py fetch",
        worker="bench.plain:FetchWorker",
        driver="bench.plain:Producer",
        full=Sizes(warm=500, load=12_000, synced=3000),
        quick=Sizes(warm=100, load=3000, synced=800),
    ),
    Contestant(
        name=PLAIN_JOB,
        worker="bench.plain:JobWorker",
        driver="bench.plain:Producer",
        full=Sizes(warm=500, load=6000, synced=1500, trips=100),
        quick=Sizes(warm=100, load=1500, synced=500, trips=30),
    ),
    Contestant(
        name=PEER,
        worker="bench.peer:FastStreamWorker",
        driver="bench.plain:Producer",
        full=Sizes(warm=300, load=3000, synced=1500, trips=100),
        quick=Sizes(warm=100, load=800, synced=500, trips=30),
        needs=("faststream.nats",),
    ),
    Contestant(
        name="our job",
        worker="bench.ours:JobHost",
        driver="bench.ours:JobDriver",
        full=Sizes(warm=2000, load=8000, synced=8000),
        quick=Sizes(warm=100, load=1000, synced=1000),
    ),
    Contestant(
        name="our plain job",
        worker="bench.ours:JobHost",
        driver="bench.ours:PlainJobDriver",
        full=Sizes(warm=2000, load=12_000, synced=12_000, trips=100),
        quick=Sizes(warm=200, load=2000, synced=2000, trips=30),
    ),
    Contestant(
        name="our turn",
        worker="bench.ours:TurnHost",
        driver="bench.ours:TurnDriver",
        full=Sizes(warm=8000, load=8000, synced=8000, trips=100),
        quick=Sizes(warm=800, load=800, synced=800, trips=30),
    ),
    Contestant(
        name="our whole job",
        worker="bench.ours:WholeJobHost",
        driver="bench.ours:WholeJobDriver",
        full=Sizes(warm=4000, load=4000, synced=4000, trips=100),
        quick=Sizes(warm=400, load=400, synced=400, trips=30),
    ),
    Contestant(
        name="our turn, two hosts",
        worker="bench.ours:TurnHostOfTwo",
        driver="bench.ours:TurnDriver",
        full=Sizes(warm=8000, load=8000, synced=8000),
        quick=Sizes(warm=800, load=800, synced=800),
        workers=2,
    ),
    Contestant(
        name="our whole job, two hosts",
        worker="bench.ours:WholeJobHostOfTwo",
        driver="bench.ours:WholeJobDriver",
        full=Sizes(warm=4000, load=4000, synced=4000),
        quick=Sizes(warm=400, load=400, synced=400),
        workers=2,
    ),
    Contestant(
        name="our relay",
        worker="bench.relay:Stack",
        driver="bench.relay:Client",
        full=Sizes(trips=100),
        quick=Sizes(trips=30),
        needs=("edge.serve", "actors.master", "actors.child"),
    ),
]
