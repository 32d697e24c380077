"""Figures of many runs as tables: medians, and ratios of what ran side by side."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from bench.arena import Result
from bench.contestants import BASE, LAXEST, PEER, PLAIN_JOB

Rows = list[list[str]]
Figure = Callable[[Result], float]


def tables(results: Sequence[Result]) -> list[str]:
    """Throughput and idle round trips, as lines of Markdown."""
    return [*_rates(results), "", *_trips(results)]


def _rates(results: Sequence[Result]) -> list[str]:
    head = ["", "sync", "messages/s", "min–max", "× nats-py", "× FastStream", "× FastStream 2m"]
    rows: Rows = [[*head, "CPU µs each: worker, driver, server", "worker MB"]]
    for mine in _by_contestant(one for one in results if one.rate):
        first = mine[0]
        rates = [one.rate for one in mine]
        others = [(BASE, first.sync), (PEER, first.sync), (PEER, LAXEST)]
        rows.append(
            [
                first.contestant,
                first.sync,
                f"{statistics.median(rates):,.0f}",
                f"{min(rates):,.0f}–{max(rates):,.0f}",
                *(_times(mine, results, *other, lambda one: one.rate) for other in others),
                ", ".join(f"{_median_cpu(mine, side):.0f}" for side in first.cpu),
                f"{max(one.megabytes for one in mine):.0f}",
            ]
        )
    return _markdown(rows)


def _trips(results: Sequence[Result]) -> list[str]:
    head = ["idle round trip", "sync", "p50 ms", "min–max", "p99 ms"]
    rows: Rows = [[*head, "× nats-py job", "× FastStream job"]]
    for mine in _by_contestant(one for one in results if one.trips):
        first = mine[0]
        halves = [1000 * _half(one) for one in mine]
        nearly_all = [1000 * percentile(one.trips, 0.99) for one in mine]
        rows.append(
            [
                first.contestant,
                first.sync,
                f"{statistics.median(halves):.2f}",
                f"{min(halves):.2f}–{max(halves):.2f}",
                f"{statistics.median(nearly_all):.2f}",
                *(_times(mine, results, name, first.sync, _half) for name in (PLAIN_JOB, PEER)),
            ]
        )
    return _markdown(rows)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _half(result: Result) -> float:
    return percentile(result.trips, 0.5) if result.trips else 0.0


def _median_cpu(mine: Sequence[Result], side: str) -> float:
    return statistics.median(one.cpu[side] for one in mine)


def _times(
    mine: Sequence[Result], results: Sequence[Result], name: str, sync: str, figure: Figure
) -> str:
    """How many times the other's figure ours is: the median of the rounds' own ratios."""
    theirs = {
        one.round: figure(one) for one in results if (one.contestant, one.sync) == (name, sync)
    }
    ratios = [figure(one) / theirs[one.round] for one in mine if theirs.get(one.round)]
    return f"{statistics.median(ratios):.2f}" if ratios else "–"


def _by_contestant(results: Iterable[Result]) -> list[list[Result]]:
    found: dict[tuple[str, str], list[Result]] = {}
    for one in results:
        found.setdefault((one.sync, one.contestant), []).append(one)
    return list(found.values())


def _markdown(rows: Rows) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
