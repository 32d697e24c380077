"""How OpenAI and those who do as it does say when to try again."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime


def hints(hint: str) -> dict[str, str]:
    """Headers: `7` is seconds, `1500ms` milliseconds, `date` an HTTP date 7 s ahead, `reset` the
    time until a limit is full again."""
    if found := re.fullmatch("([0-9]+)ms", hint):
        return {"retry-after-ms": found[1]}
    if hint == "date":
        then = datetime.now(UTC) + timedelta(seconds=7)
        return {"retry-after": format_datetime(then, usegmt=True)}
    if hint == "reset":
        return {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m6.5s"}
    return {"retry-after": hint} if hint else {}
