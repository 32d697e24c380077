"""`callboard rules try`: what rules would have done in the conversations that are recorded."""

import argparse
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from runtime.config import duration
from runtime.modules import add_modules
from runtime.open import opened
from runtime.rehearsal import rehearse
from runtime.source import Source
from runtime.tables import Config
from runtime.terminal.manifest import read_manifest
from runtime.terminal.shown import align, harmless
from schemas.regulator import Ruleset
from schemas.rehearsing import Case, Report

HEADING = ("when", "conversation", "would", "did", "on what")
MOST_SHOWN = 60


def try_arguments(parser: argparse.ArgumentParser) -> None:
    """What `callboard rules try` takes."""
    parser.add_argument("file", type=Path, help="rules, or a file with a session that has some")
    parser.add_argument("--since", type=_span, default="7d", help="how far to go back: 7d")
    parser.add_argument("--conversation", metavar="ID", default="", help="only this one")
    parser.add_argument(
        "--limit", metavar="N", type=_count, default=50, help="how many to show, the newest: 50"
    )
    parser.add_argument("--json", action="store_true", help="all of it, as JSON")


def _span(text: str) -> str:
    try:
        duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number")
    return int(text)


async def try_rules(config: Config, given: argparse.Namespace) -> int:
    """Try rules on what was said; nothing is changed by it."""
    add_modules(config.host.modules)
    ruleset = read_ruleset(given.file)
    since = datetime.now(UTC) - duration(given.since)
    async with opened(config) as bus:
        report = await rehearse(bus, ruleset, since=since, conversation=given.conversation)
    if given.json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
        return 0
    for line in describe(report, given.since, given.limit):
        print(harmless(line, lines=False))
    return 0


def read_ruleset(path: Path) -> Ruleset:
    """The rules in a file: by themselves, or of the first actor in it that has some.

    Raises ConfigError with a line for what is wrong.
    """
    source = Source(path)
    if "actor" not in source.raw:
        return source.convert(Ruleset)
    for deployment in read_manifest(path).deployments:
        if "regulator" in deployment.options:
            return msgspec.convert(deployment.options["regulator"], Ruleset)
    raise source.fault(("actor",), "no actor in it has an option `regulator`, expected one")


def describe(report: Report, since: str, limit: int) -> Iterator[str]:
    """What came of it, for a person to read."""
    would, did = report.would(), report.did()
    count, happened, agreed = sum(would.values()), sum(did.values()), report.agreed()
    yield (
        f"rules {report.version}, tried on {report.conversations} conversations"
        f" with {report.messages} messages of customers, of the last {since}"
    )
    yield f"a person would have been called in {_share(count, report)}{_named(would)}"
    yield f"a person was called in {_share(happened, report)}{_named(did)}"
    rest = f"only by these rules: {count - agreed}; only then: {happened - agreed}"
    yield f"in both: {agreed}; {rest}"
    shown = report.cases[-limit:] if limit else []
    if shown:
        yield ""
        yield from align([HEADING, *(_row(case) for case in shown)])
    if len(shown) < len(report.cases):
        yield f"{len(report.cases) - len(shown)} older ones are not shown; see --limit"


def _share(count: int, report: Report) -> str:
    share = f" ({100 * count / report.conversations:.1f} %)" if report.conversations else ""
    return f"{count}{share}"


def _named(counts: dict[str, int]) -> str:
    return "".join(
        f"{', ' if n else ': '}{name} {count}" for n, (name, count) in enumerate(counts.items())
    )


def _row(case: Case) -> tuple[str, ...]:
    called = case.would or case.did
    at = f"{called.at:%Y-%m-%d %H:%M}" if called and called.at else "?"
    evidence = " ".join(called.evidence.split()) if called else ""
    did = (case.did.rule or case.did.reason) if case.did else "-"
    short = evidence if len(evidence) <= MOST_SHOWN else f"{evidence[: MOST_SHOWN - 1]}…"
    return at, case.conversation, case.would.rule if case.would else "-", did, short
