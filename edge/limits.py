"""What one client may cost the edge: sizes, counts and waiting times.

Next: `edge/protocol.py`, which holds connections to them.
"""

from dataclasses import dataclass, fields
from datetime import timedelta


@dataclass(frozen=True)
class Limits:
    """How much a connection may take. Sizes are bytes.

    `header_time` is for the whole head of a request, also of one that never begins.
    `body_time` is for the body, and each `body_rate` bytes that have arrived add a second to it.
    `linger` is how long an answer waits to be read after its connection was given up, for as
    long as somebody reads. Beyond `connections` a newcomer is answered 503.

    Raises ValueError for a limit that lets nothing through.
    """

    connections: int = 2000
    header_bytes: int = 16 * 1024
    headers: int = 64
    url_bytes: int = 4 * 1024
    query_keys: int = 100
    header_time: timedelta = timedelta(seconds=10)
    body_time: timedelta = timedelta(seconds=30)
    body_rate: int = 1024
    linger: timedelta = timedelta(seconds=2)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= type(value)(0):
                raise ValueError(f"limits: {field.name} must be more than 0, not {value!r}")
