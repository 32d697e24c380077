"""`python -m bench`: every contestant against every other, round by round, and the tables."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.arena import Result, Spoiled, run_once, show
from bench.contestants import CONTESTANTS, SYNCS, Contestant
from bench.machine import describe
from bench.table import tables
from runtime.log import configure

ROUNDS = 5
QUICK_ROUNDS = 2
BUDGET = 350.0
QUICK_BUDGET = 50.0
"""Seconds; a round that would not end within them is not begun, unless `--rounds` is given."""


def main() -> int:
    """Read the arguments, run, print; 1 if a run was spoiled."""
    given = _read_arguments()
    configure(level="warning")
    machine = describe(given.data)
    print("\n".join(machine), "\n", sep="\n", flush=True)
    contest = Contest(given)
    asyncio.run(contest.run(_choose(given.only)))
    print("\n".join([*tables(contest.results), "", f"{contest.rounds} rounds", *contest.spoiled]))
    if given.json:
        runs = [show(one) for one in contest.results]
        found = {"machine": machine, "runs": runs, "spoiled": contest.spoiled}
        given.json.write_text(json.dumps(found, indent=1))
    return 1 if contest.spoiled else 0


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--rounds", type=int, default=0, help=f"{ROUNDS}, or {QUICK_ROUNDS}")
    parser.add_argument("--only", action="append", default=[], help="a contestant's name")
    parser.add_argument("--sync", action="append", choices=SYNCS, help="both by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's figures")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the stores go")
    parser.add_argument("--log", default="warning", help="our log level; info logs each message")
    return parser.parse_args()


def _choose(names: Sequence[str]) -> list[Contestant]:
    """Those who take part; says who cannot, and why."""
    chosen = []
    for one in CONTESTANTS:
        if names and one.name not in names:
            continue
        if missing := one.missing():
            print(f"skipped: {one.name}, because {missing} cannot be imported")
        else:
            chosen.append(one)
    return chosen


class Contest:
    """A, B, C…, then again, each round beginning with another one."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.results: list[Result] = []
        self.spoiled: list[str] = []
        self.rounds = 0
        self._given = given

    async def run(self, contestants: Sequence[Contestant]) -> None:
        """Play all rounds, or as many as there is time for."""
        pairs = [(one, sync) for sync in self._given.sync or SYNCS for one in contestants]
        rounds = self._given.rounds or (QUICK_ROUNDS if self._given.quick else ROUNDS)
        budget = QUICK_BUDGET if self._given.quick else BUDGET
        began, longest = time.monotonic(), 0.0
        for number in range(rounds):
            start = time.monotonic()
            if not self._given.rounds and start - began + longest > budget:
                return
            shift = number * len(pairs) // rounds
            for one, sync in pairs[shift:] + pairs[:shift]:
                await self._run_once(one, sync, number)
            self.rounds += 1
            longest = max(longest, time.monotonic() - start)

    async def _run_once(self, one: Contestant, sync: str, number: int) -> None:
        given = self._given
        result = Result(contestant=one.name, sync=sync, round=number)
        sizes = one.quick if given.quick else one.full
        try:
            await run_once(one, sizes, result, data=given.data, level=given.log)
        except Spoiled as spoiled:
            # It is left out of the medians, and not passed over in silence.
            self.spoiled.append(f"spoiled: {one.name}, sync {sync}: {spoiled}")
        else:
            self.results.append(result)


if __name__ == "__main__":
    sys.exit(main())
