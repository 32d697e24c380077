"""What may be repeated of what a provider said: one short line, and never our key.

Providers echo keys in their errors, and pages of proxies hold anything.
"""

import json
import re
from urllib.parse import quote

from actors.models.faults import Code, UpstreamFault

MASK = "***"
MOST = 199
"""Characters of a reason."""
SHORTEST = 4
"""Characters of a key worth masking: a shorter one would blot out innocent text."""

_KEY_LIKE = re.compile(
    r"\b(?:(?:sk|pat|gsk|hf|xai)[-_]|AIza)[\w*.-]{16,}|(?i:bearer) [\w.~+/=*-]{8,}"
)


class Discretion:
    """Makes faults of what a provider said, without the secrets it was asked with."""

    def __init__(self, *secrets: str) -> None:
        spellings = {
            spelling
            for secret in secrets
            if len(secret) >= SHORTEST
            for spelling in (
                secret,
                quote(secret),
                quote(secret, safe=""),
                json.dumps(secret)[1:-1],
            )
        }
        # The longest first, or one that begins another would leave the rest of it standing.
        ordered = sorted(spellings, key=len, reverse=True)
        self._secret = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def clean(self, text: str, most: int = MOST) -> str:
        """One line of at most `most` characters, without secrets and control characters."""
        # Masked before it is cut, or half a key would be left.
        if self._secret is not None:
            text = self._secret.sub(MASK, text)
        text = _KEY_LIKE.sub(MASK, text[: 16 * most])
        text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
        return text if len(text) <= most else f"{text[: most - 1]}…"

    def fault(
        self, code: Code, reason: str, *, status: int = 0, retry_after: float | None = None
    ) -> UpstreamFault:
        """A fault whose reason may be shown to anybody."""
        return UpstreamFault(code, self.clean(reason), status=status, retry_after=retry_after)

    def quote(self, text: str | bytes) -> str:
        """The beginning of something strange, for a reason."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return repr(self.clean(text, 60))
