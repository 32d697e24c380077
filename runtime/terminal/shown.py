"""How things are shown at a terminal: in columns, as ages, and without what it would obey."""

from collections.abc import Sequence
from datetime import timedelta

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines, in columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def ago(age: timedelta) -> str:
    """An age in its largest unit: `3h`; parts of seconds are `0s`."""
    seconds = int(age.total_seconds())
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return "0s"


def harmless(text: str, *, lines: bool = True) -> str:
    """Text that others wrote, without what a terminal obeys; line ends stay if `lines`."""
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode()
        for c in text.encode("utf-8", "backslashreplace").decode()
    )
