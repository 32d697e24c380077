"""What is done to hosts, edges and servers: how much of it, and when."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.crash import POINTS

ASKER_POINTS = ("edge.published",)
HOST_POINTS = tuple(point for point in POINTS if point not in ASKER_POINTS)


@dataclass(frozen=True)
class Faults:
    """How many of each kind, by name, besides `points` crashes at every named point."""

    kinds: Mapping[str, int]
    points: int = 0

    def schedule(self, chance: random.Random) -> list[str]:
        """What happens, one after another."""
        schedule = [kind for kind, count in self.kinds.items() for _ in range(count)]
        chance.shuffle(schedule)
        return schedule

    def times(self, factor: float) -> "Faults":
        """So many times as many, but at least one of each."""
        kinds = {kind: max(1, round(count * factor)) for kind, count in self.kinds.items()}
        return Faults(kinds, max(1, round(self.points * factor)) if self.points else 0)


@dataclass(frozen=True)
class Kill:
    """When a host was killed, in seconds since the epoch, and which.

    `alone` if nothing else was broken at that moment.
    """

    at: float
    name: str
    alone: bool
