"""`python -m bench.support`: customer service as it is run: chat, people, queues, very many users.

Every measurement has a stack of its own: a server that syncs always, one host, one edge, and a
fake upstream. Customers and agents are sockets of this process.
"""

import argparse
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import people, users
from bench.machine import describe, load
from bench.role import run
from bench.stack import Meter, Spent
from bench.town import LIMITS, Row, Town, open_town
from runtime.log import configure

Measure = Callable[[Town, argparse.Namespace], Awaitable[list[Row]]]

MEASUREMENTS: dict[str, tuple[Measure, str]] = {
    "health": (users.health, users.HASTY),
    "feeds": (users.feeds, users.HASTY),
    "mixed": (people.mixed, users.HASTY),
    "chat": (users.whole, users.HASTY),
    "answers": (users.answers, users.UPSTREAM),
    "messages": (people.messages, users.HASTY),
    "joins": (people.joins, users.HASTY),
    "history": (people.history, users.HASTY),
    "crowd": (users.crowd, users.UPSTREAM),
}
"""What can be measured, and what the upstream is to say meanwhile."""
HEADING = "| what | promise | n | failed | average ms | p50 | p99 | aim | | load |"
USED = "| what (FD-98, FD-104, FD-105, FD-110) | cores | of all | MB | of 512 | errors logged | |"
OURS = ("host", "edge", "server")
BOUND = 512
"""Megabytes that the three of them may hold together."""
MOST_HELD, MOST_BUSY = 0.8, 0.7
"""What part of that, and of the processor, they may use."""


async def measure(given: argparse.Namespace) -> None:
    """Measure what was asked for, and print a line for each."""
    gc.freeze()
    spent = []
    print(HEADING, "|---" * 10 + "|", sep="\n", flush=True)
    for name in given.only:
        rows: dict[str, Row] = {}
        for _ in range(given.rounds):
            found, used = await measure_once(name, given)
            spent.append(used)
            for row in found:
                pool(rows.setdefault(row.what, Row(row.what, row.promises, row.aims)), row)
        for row in rows.values():
            print(row, flush=True)
    print("", USED, "|---" * 7 + "|", *spent, sep="\n", flush=True)


async def measure_once(name: str, given: argparse.Namespace) -> tuple[list[Row], str]:
    """One measurement on a stack of its own; its rows, and what it took."""
    what, asked = MEASUREMENTS[name]
    async with open_town(given.data, asked) as town:
        meter = Meter(town.stack)
        rows = await what(town, given)
        for row in rows:
            row.load = load()
        return rows, tell_spent(name, meter.read(), town.errors())


def pool(into: Row, row: Row) -> None:
    """Add the seconds of another round."""
    into.seconds += row.seconds
    into.failed += row.failed
    into.load = f"{into.load}, {row.load}" if into.load else row.load


def tell_spent(name: str, spent: dict[str, Spent], errors: list[str]) -> str:
    """What the processes used, what they hold, and what they logged as errors, as a line."""
    cores = ", ".join(f"{part} {one.cpu:.2f}" for part, one in spent.items())
    held = ", ".join(f"{part} {one.megabytes:.0f}" for part, one in spent.items())
    ours = [one for part, one in spent.items() if part in OURS]
    busy = sum(one.cpu for one in ours) / (os.cpu_count() or 1)
    full = sum(one.megabytes for one in ours) / BOUND
    good = busy < MOST_BUSY and full < MOST_HELD and not errors
    told = f"{len(errors)} ({errors[0][:200]})" if errors else "0"
    cells = (name, cores, f"{busy:.0%}", held, f"{full:.0%}", told, "held" if good else "MISSED")
    return f"| {' | '.join(cells)} |"


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """What is to be measured, and how much of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.support", description=__doc__)
    names = tuple(MEASUREMENTS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=1, help="each on a new stack; pooled")
    parser.add_argument("--requests", type=int, default=1000, help="of /api/health")
    parser.add_argument("--feeds", type=int, default=50, help="opened at once")
    parser.add_argument("--users", type=int, default=100, help="who ask at once")
    parser.add_argument("--times", type=int, default=10, help="that users ask, and agents join")
    parser.add_argument("--chats", type=int, default=20, help="clients that go on asking")
    parser.add_argument("--think", type=float, default=0.2, help="seconds until they ask again")
    parser.add_argument("--cases", type=int, default=50, help="sessions that agents write in")
    parser.add_argument("--rate", type=float, default=25.0, help="messages of agents in a second")
    parser.add_argument("--lines", type=int, default=1200, help="of a long history")
    parser.add_argument("--crowd", type=int, default=1000, help="users on one edge")
    parser.add_argument("--every", type=float, default=60.0, help="seconds in which each asks once")
    parser.add_argument("--seconds", type=float, default=15.0, help="that what goes on does so")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the stores go")
    return parser.parse_args(arguments)


def main() -> int:
    """Read the arguments and run."""
    given = read_arguments()
    configure(level="error")
    limits = " ".join(LIMITS.split())
    print(*describe(given.data), f"limits are out of the way: {limits}", "", sep="\n", flush=True)
    run(measure(given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
