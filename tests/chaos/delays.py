"""How long messages waited: after a host was killed, and at all. Told, and never judged."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles

from tests.chaos.faults import Kill
from tests.chaos.model import Mail
from tests.chaos.processes import read_lines
from tests.chaos.verdict import Log

GIVEN_UP = 60.0
"""Seconds after a kill in which no message came to a shard: then it says nothing."""

Settled = tuple[float, str]
"""When a host settled a message of a shard, and which host."""


@dataclass(frozen=True)
class Wait:
    """One message's: when it was stored, and when what came of it."""

    mail: Mail
    applied: float

    @property
    def seconds(self) -> float:
        """How long it waited."""
        return self.applied - self.mail.at


def read_waits(log: Log) -> list[Wait]:
    """Every message that an event tells of, in the order of the log."""
    applied = {
        body["data"]["cause"]: stored.time.timestamp()
        for told in log.events.values()
        for stored, body in told
    }
    # One that was stored again is applied with its first copy.
    first = {mail.cause: mail for mail in reversed(log.mail)}
    return [Wait(mail, applied[cause]) for cause, mail in first.items() if cause in applied][::-1]


def time_to_serve(
    waits: Iterable[Wait], log: Log, kills: Iterable[Kill], logs: Iterable[Path]
) -> list[float]:
    """For each shard of each killed host: seconds from the kill until it was served again.

    Served is the first message that was stored after the kill, so that nothing counts that the
    dead host had sent before it died. The time until such a message comes is in the figure.
    """
    owners = _owners(log, logs)
    by_shard: dict[int, list[Wait]] = {}
    for wait in waits:
        by_shard.setdefault(wait.mail.shard, []).append(wait)
    found = []
    for kill in kills:
        for shard, found_there in by_shard.items():
            before = [name for at, name in owners.get(shard, []) if at <= kill.at]
            if not before or before[-1] != kill.name:
                continue
            after = [w.applied for w in found_there if w.mail.at > kill.at]
            if after and min(after) - kill.at < GIVEN_UP:
                found.append(min(after) - kill.at)
    return found


def _owners(log: Log, logs: Iterable[Path]) -> dict[int, list[Settled]]:
    """Who settled messages of each shard when, by what hosts say."""
    shards = {mail.seq: mail.shard for mail in log.mail}
    owners: dict[int, list[Settled]] = {}
    for path in logs:
        for line in read_lines(path):
            if line["event"] == "message_settled" and line["seq"] in shards:
                at = datetime.fromisoformat(line["timestamp"]).timestamp()
                owners.setdefault(shards[line["seq"]], []).append((at, path.stem))
    for settled in owners.values():
        settled.sort()
    return owners


def describe(seconds: list[float]) -> str:
    """The median, the ninth of ten, and the longest."""
    if len(seconds) < 2:
        return ", ".join(f"{one:.2f} s" for one in seconds) or "never"
    ninth = quantiles(seconds, n=10, method="inclusive")[-1]
    figures = f"median {median(seconds):.2f}, p90 {ninth:.2f}, longest {max(seconds):.2f} s"
    return f"{figures} of {len(seconds)}"
