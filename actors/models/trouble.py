"""What the errors of providers mean, whichever shape they have: OpenAI's, Google's, Ollama's.

Sources: the error pages of OpenAI, DeepSeek, Gemini; google.rpc.Status; Ollama's server.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from actors.models.faults import Code, UpstreamFault
from actors.models.hints import read_duration, read_hint
from actors.models.wording import Discretion

# A word of these says more than the status it comes with.
_CERTAIN: dict[str, Code] = {
    "insufficient_quota": "quota_exhausted",
    "credit_balance_exhausted": "quota_exhausted",
    "billing_hard_limit_reached": "quota_exhausted",
    "billing_not_active": "quota_exhausted",
    "insufficient_balance": "quota_exhausted",
    "arrearage": "quota_exhausted",
    "context_length_exceeded": "context_too_long",
    "exceed_context_size_error": "context_too_long",
    "model_not_found": "model_not_found",
    "invalid_api_key": "unauthorized",
    "api_key_invalid": "unauthorized",
    "invalidapikey": "unauthorized",
    # Google's word for an account that lacks billing, or is in the wrong place.
    "failed_precondition": "unauthorized",
    "invalid_client": "unauthorized",
    "access_denied": "unauthorized",
    "expired_token": "unauthorized",
    "rate_limit_exceeded": "rate_limited",
    "rate_limit_error": "rate_limited",
    "server_is_overloaded": "overloaded",
    "slow_down": "overloaded",
    "overloaded_error": "overloaded",
    "insufficient_system_resource": "overloaded",
}
# These are said where there is no status: within a stream.
_LIKELY: dict[str, Code] = {
    "resource_exhausted": "rate_limited",
    "unauthenticated": "unauthorized",
    "permission_denied": "unauthorized",
    "authentication_error": "unauthorized",
    "permission_error": "unauthorized",
    "not_found": "model_not_found",
    "not_found_error": "model_not_found",
    "notfounderror": "model_not_found",
    "unavailable": "overloaded",
    "service_unavailable": "overloaded",
    "deadline_exceeded": "timeout",
    "timeout": "timeout",
    "invalid_argument": "bad_request",
    "invalid_request_error": "bad_request",
    "badrequesterror": "bad_request",
}
_STATUS: dict[int, Code] = {
    401: "unauthorized",
    402: "quota_exhausted",
    403: "unauthorized",
    404: "model_not_found",
    408: "timeout",
    409: "overloaded",
    413: "context_too_long",
    429: "rate_limited",
    499: "server_error",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
# What Coze numbers its errors by, under any HTTP status; its own clients read them so.
_NUMBERS: dict[int, int] = {
    4000: 400,
    4100: 401,
    4101: 403,
    4200: 404,
    4013: 429,
    6023: 504,
    6031: 400,
    6039: 400,
    103000002: 404,
    700012006: 401,
}
_REFUSING = frozenset(
    {"content_filter", "content_policy_violation", "data_inspection_failed"}
    | {"responsibleaipolicyviolation"}
)
_TOO_LONG = re.compile(
    r"context (?:length|window|size)|maximum context|prompt is too long|input length"
    r"|too many tokens|input token count|maximum number of tokens",
    re.I,
)


class Refused(Exception):
    """A provider said by an error that it will not answer this."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Trouble(msgspec.Struct, frozen=True):
    """An error as a provider says it: in words for people, and in words for programs."""

    message: str = ""
    words: frozenset[str] = frozenset()
    status: int = 0
    wait: float | None = None
    daily: bool = False


def is_error(body: Mapping[str, Any], event: str = "") -> bool:
    """Whether an object within an answer says that the answer failed."""
    return bool(body.get("error")) or body.get("object") == "error" or event == "error"


def read_trouble(body: Any) -> Trouble:
    """What a body says of an error, an array of one error included."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return Trouble()
    error = body.get("error") or body
    if not isinstance(error, dict):
        error = {**body, "message": body.get("error_message") or error}
    message = next(
        (
            error[name]
            for name in ("message", "msg", "detail", "title")
            if _is_text(error.get(name))
        ),
        "",
    )
    named = (error.get(name) for name in ("code", "type", "status", "error_code"))
    details = list(_details(error))
    words = [*named, *(one.get("reason") for one in details)]
    return Trouble(
        message=message + _log_of(body),
        words=frozenset(word.lower() for word in words if isinstance(word, str)),
        status=_status(error.get("code")),
        wait=next((wait for one in details if (wait := _wait(one)) is not None), None),
        daily=any("perday" in quota.lower() for one in details for quota in _quotas(one)),
    )


def explain(
    trouble: Trouble,
    discretion: Discretion,
    *,
    status: int = 0,
    headers: Mapping[str, str] | None = None,
) -> UpstreamFault:
    """The fault that an error means. Raises Refused if it is the provider's no.

    `status` is that of the response, 0 within a stream.
    """
    if _REFUSING & trouble.words:
        raise Refused(discretion.clean(trouble.message))
    # Some say more by their own number than by a status of 400.
    said = (trouble.status or status) if status in (0, 400) else status
    code = _judge(trouble, said)
    if said == 409 and (headers or {}).get("x-should-retry", "").lower() == "false":
        code = "bad_request"
    hint = read_hint(headers) if headers else None
    reason = trouble.message or (f"answered {said}" if said else "failed without a word")
    return discretion.fault(
        code, reason, status=said, retry_after=trouble.wait if hint is None else hint
    )


def _judge(trouble: Trouble, status: int) -> Code:
    if trouble.daily and (status == 429 or "resource_exhausted" in trouble.words):
        return "quota_exhausted"
    if code := _look_up(_CERTAIN, trouble):
        return code
    if status in (0, 400, 413, 422, 500) and _TOO_LONG.search(trouble.message):
        return "context_too_long"
    if code := _STATUS.get(status):
        return code
    if status >= 500:
        return "server_error"
    if status >= 400:
        return "bad_request"
    return _look_up(_LIKELY, trouble) or "server_error"


def _look_up(table: Mapping[str, Code], trouble: Trouble) -> Code | None:
    return next((table[word] for word in sorted(trouble.words) if word in table), None)


def _status(code: object) -> int:
    """The HTTP status that an error's own code is, or means; 0 for any other."""
    if isinstance(code, str) and code.isdecimal() and len(code) < 10:
        number = _NUMBERS.get(int(code), 0)
    elif isinstance(code, int):
        number = _NUMBERS.get(code, code)
    else:
        return 0
    return number if 400 <= number < 600 else 0


def _log_of(body: Mapping[str, Any]) -> str:
    """Where Coze has logged an error, which its support asks for."""
    detail = body.get("detail")
    logid = detail.get("logid") if isinstance(detail, dict) else None
    return f" (logid {logid})" if isinstance(logid, str) and logid else ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _details(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    details = error.get("details")
    if isinstance(details, list):
        yield from (one for one in details if isinstance(one, dict))


def _wait(detail: Mapping[str, Any]) -> float | None:
    delay = detail.get("retryDelay")
    return read_duration(delay) if isinstance(delay, str) else None


def _quotas(detail: Mapping[str, Any]) -> Iterator[str]:
    violations = detail.get("violations")
    if isinstance(violations, list):
        for one in violations:
            if isinstance(one, dict) and isinstance(one.get("quotaId"), str):
                yield one["quotaId"]
