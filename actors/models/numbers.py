"""Numbers as providers write them, or do not."""

from typing import Any

MOST = 2**53


def count(value: Any) -> int:
    """A number of tokens; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST:
        return 0
    return int(value)
