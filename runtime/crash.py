"""Named points where a process can be told to kill itself, to prove that it may.

`CRASH_AT=commit.done:3` kills the process, as `kill -9` would, the third time it gets to
`commit.done`. Without the variable a point costs one look into an empty dict.
"""

import os
import signal

POINTS = (
    "turn.fetched",
    "batch.before",
    "batch.inside",
    "batch.after",
    "ack.before",
    "job.claimed",
    "job.done",
    "edge.published",
)


def _read(text: str) -> dict[str, int]:
    point, _, nth = text.partition(":")
    if not point:
        return {}
    if point not in POINTS:
        raise SystemExit(f"CRASH_AT: no point {point!r}; there are {', '.join(POINTS)}")
    return {point: int(nth or 1)}


_left = _read(os.environ.get("CRASH_AT", ""))


def crash_at(point: str) -> None:
    """Die here, if it is time to."""
    if _left and point in _left:
        _left[point] -= 1
        if _left[point] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def armed(point: str) -> bool:
    """Whether this process will die there."""
    return point in _left
