"""When a provider wants to be asked again, in every way that one says it.

Headers: retry-after-ms, retry-after (seconds or a date), x-ratelimit-reset-*; Go's durations.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 24 * 3600.0
"""Seconds that are believed."""

_PIECE = re.compile(r"(\d{1,12}(?:\.\d{0,12})?)(ms|us|µs|ns|h|m|s)")
_SECONDS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_RESETS = ("requests", "tokens")


def read_hint(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, None if the headers do not say."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return _bound(milliseconds / 1000)
    text = headers.get("retry-after", "").strip()
    if (seconds := _number(text)) is not None:
        return _bound(seconds)
    if text and (until := _date(text)) is not None:
        return _bound((until - datetime.now(UTC)).total_seconds())
    return _read_resets(headers)


def read_duration(text: str) -> float | None:
    """Seconds of a duration such as 36s, 1.5s, 6m0s or 120ms; None for anything else."""
    pieces = _PIECE.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text.strip():
        return None
    return _bound(sum(float(number) * _SECONDS[unit] for number, unit in pieces))


def _read_resets(headers: Mapping[str, str]) -> float | None:
    """The time until there is something left of a limit that has been used up."""
    waits = [
        read_duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in _RESETS
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    known = [wait for wait in waits if wait is not None]
    return max(known) if known else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _bound(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST)
