"""How much of everything a run of the chaos test has, and what came of it."""

from collections import Counter
from dataclasses import dataclass, field, replace

from tests.chaos.delays import describe
from tests.chaos.faults import ASKER_POINTS, HOST_POINTS, Faults

SURE_AFTER = 3


@dataclass(frozen=True)
class Plan:
    """How much of everything; `asked` are requests whose answers are checked.

    `sent` are tasks that are sent through edges, if there are any. Where processes are `rolled`,
    nothing else is done to them.
    """

    seconds: float
    entries: int
    asked: int
    faults: Faults = field(default_factory=lambda: Faults({}))
    hosts: int = 2
    edges: int = 0
    sent: int = 0
    nodes: int = 1
    rolled: bool = False

    def times(self, factor: float) -> "Plan":
        """The same, for longer, with half as many faults in the same time.

        A server takes seconds to read its store again when it has grown.
        """
        return replace(
            self,
            seconds=self.seconds * factor,
            entries=round(self.entries * factor),
            asked=round(self.asked * factor),
            sent=round(self.sent * factor),
            faults=self.faults.times(factor / 2),
        )

    def check(self, counts: Counter[str]) -> list[str]:
        """What was done less often than planned, which makes a run worth nothing."""
        planned: dict[str, int] = {
            "entries acknowledged": self.entries,
            "requests answered": self.asked,
            "tasks accepted": self.sent,
            "events heard live": 1,
            **self.faults.kinds,
            **{f"crash at {point}": self.faults.points for point in HOST_POINTS},
            # Who holds a run and dies is followed by another attempt, unless the run is stopped
            # before that; of several, one is not.
            "attempts superseded": self.faults.points // SURE_AFTER,
        }
        if not self.rolled:
            planned |= {"events read from the log": 1, "seen again": 1}
            planned |= {f"crash at {point}": 1 for point in ASKER_POINTS}
        return [
            f"{name}: {counts[name]}, planned were {least}"
            for name, least in planned.items()
            if counts[name] < least
        ]


@dataclass
class Outcome:
    """What was done, how long what took, and what was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    rounds: int = 0
    """How many faults were dealt, kills and crashes at named points among them."""

    def add(self, other: "Outcome") -> None:
        """Take in what came of another run."""
        self.counts.update(other.counts)
        for name, seconds in other.seconds.items():
            self.seconds[name] = [*self.seconds.get(name, []), *seconds]
        self.notes |= other.notes
        self.wrong += other.wrong
        self.rounds += other.rounds

    def lines(self) -> list[str]:
        """All of it, a line each."""
        return [
            f"rounds: {self.rounds}",
            *(f"{name}: {count}" for name, count in self.counts.items()),
            *(f"{name}: {describe(seconds)}" for name, seconds in self.seconds.items()),
            *(f"{name}: {note}" for name, note in self.notes.items()),
        ]
