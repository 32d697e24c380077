"""What may go wrong between us and a model's provider, in words that any caller can act on.

Each adapter turns its provider's errors into these; what follows from one is decided elsewhere.
"""

from typing import Literal, TypeAlias

Code: TypeAlias = Literal[
    "unreachable",  # no connection, or it broke
    "timeout",  # nothing came for too long
    "rate_limited",  # 429, to be tried again later
    "quota_exhausted",  # 429 or 402 that no waiting mends soon
    "overloaded",  # 503 and its like
    "server_error",  # any other 5xx
    "unauthorized",  # our key is wrong or may not
    "model_not_found",
    "bad_request",  # the provider does not take what we sent
    "context_too_long",
    "truncated",  # it ended without saying that it had ended
    "garbled",  # what came is not what this provider speaks
    "too_long",  # more than we keep
]

PASSING: frozenset[Code] = frozenset(
    {
        "unreachable",
        "timeout",
        "rate_limited",
        "overloaded",
        "server_error",
        "truncated",
        "garbled",
    }
)
"""Those that another try, or another upstream, may not meet."""


class UpstreamFault(Exception):
    """A provider did not give a whole answer.

    `status` is the HTTP status that it answered with, 0 for none; `reason` is for people, below
    200 characters, without secrets; `retry_after` is in seconds, None if it did not say.
    """

    def __init__(
        self, code: Code, reason: str, *, status: int = 0, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason[:199]
        self.status = status
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """Whether it may be different next time, or elsewhere."""
        return self.code in PASSING
