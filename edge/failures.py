"""What the failure of a task means to whoever asked by OpenAI's API.

A provider that does not take our key is our trouble: the client's own key was good.
"""

import math
from typing import NamedTuple, Protocol

from edge.problem import Refusal

LONGEST_DETAIL = 500
LONGEST_WAIT = 3600
NO_RETRY = {"x-should-retry": "false"}
"""Their clients repeat a 409, a 429 and any 5xx by themselves unless they are told not to."""


class Meaning(NamedTuple):
    """The status and the code of a failure, and whether repeating the request may help."""

    status: int
    code: str
    again: bool = True


MEANINGS = {
    "rate_limited": Meaning(429, "rate_limited"),
    "quota_exhausted": Meaning(429, "insufficient_quota", again=False),
    "context_too_long": Meaning(400, "context_length_exceeded"),
    "bad_request": Meaning(400, "bad_request"),
    "model_not_found": Meaning(404, "model_not_found"),
    "overloaded": Meaning(503, "overloaded"),
    "unreachable": Meaning(502, "unreachable"),
    "server_error": Meaning(502, "upstream_error"),
    "truncated": Meaning(502, "truncated"),
    "garbled": Meaning(502, "garbled"),
    "unauthorized": Meaning(502, "upstream_unauthorized", again=False),
    "timeout": Meaning(504, "timeout", again=False),
    "deadline": Meaning(504, "timeout", again=False),
    "aborted": Meaning(409, "aborted", again=False),
    "MANUAL_IN_PROGRESS": Meaning(409, "MANUAL_IN_PROGRESS", again=False),
}


class Failed(Protocol):
    """A task that has failed, as the store or an event has it."""

    @property
    def code(self) -> str: ...
    @property
    def http_status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def retry_after(self) -> float: ...


def failure_of(task: Failed) -> Refusal:
    """Return why a task that has failed was not answered."""
    return meaning_of(task.code, task.http_status, task.reason, task.retry_after)


def meaning_of(code: str, status: int, reason: str, retry_after: float = 0) -> Refusal:
    """Return what a failed task is answered with. `code` is its own, `status` of HTTP."""
    found = MEANINGS.get(code) or Meaning(_status(status), code or "failed")
    headers = {} if found.again else dict(NO_RETRY)
    if retry_after > 0 and found.again:
        headers["Retry-After"] = str(min(math.ceil(retry_after), LONGEST_WAIT))
    if found.status == 429:
        # Whoever does not know the other header waits for long where waiting does not help.
        again = ("x-should-retry", "true") if found.again else ("Retry-After", str(LONGEST_WAIT))
        headers.setdefault(*again)
    members = {"param": "model"} if found.code == "model_not_found" else {}
    detail = reason[:LONGEST_DETAIL] or f"the model did not answer ({found.code})"
    return Refusal(found.status, found.code, detail, headers=headers, **members)


def _status(status: int) -> int:
    """One that is nobody's fault but ours, where it says nothing about the request."""
    return status if 400 <= status <= 599 and status not in (401, 403, 407) else 502
