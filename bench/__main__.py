"""`python -m bench`: every contestant against every other, round by round, and the tables."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.arena import Result, Spoiled, run_once, show
from bench.contestants import CONTESTANTS, SYNCS, Contestant
from bench.machine import describe
from bench.table import tables
from runtime.log import configure

ROUNDS = 5
QUICK_ROUNDS = 2


def main() -> int:
    """Read the arguments, run, print; 1 if a run was spoiled."""
    given = _read_arguments()
    configure(level="warning")
    machine = describe(given.data)
    print("\n".join(machine), "\n", sep="\n", flush=True)
    results = asyncio.run(contend(_choose(given.only), given))
    print("\n".join(tables(results)))
    if given.json:
        runs = [show(one) for one in results]
        given.json.write_text(json.dumps({"machine": machine, "runs": runs}, indent=1))
    return 0


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


async def contend(contestants: Sequence[Contestant], given: argparse.Namespace) -> list[Result]:
    """A, B, C…, then again, each round beginning with another one."""
    results = []
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    pairs = [(one, sync) for sync in given.sync or SYNCS for one in contestants]
    for number in range(rounds):
        shift = number * len(pairs) // rounds
        for one, sync in pairs[shift:] + pairs[:shift]:
            result = Result(contestant=one.name, sync=sync, round=number)
            sizes = one.quick if given.quick else one.full
            try:
                await run_once(one, sizes, result, data=given.data, level=given.log)
            except Spoiled as spoiled:
                print(f"spoiled: {one.name}, sync {sync}: {spoiled}", file=sys.stderr)
                raise SystemExit(1) from None
            results.append(result)
    return results


if __name__ == "__main__":
    sys.exit(main())
