"""What a request says outside its body: strict readers of query parameters and headers."""

import re
from typing import get_args
from urllib.parse import parse_qsl

from starlette.requests import HTTPConnection

from edge.problem import Refusal, quote
from schemas.ownership import Arriving

ARRIVING: tuple[Arriving, ...] = get_args(Arriving)
NUMBER = re.compile(r"[0-9]{1,19}")
HIGHEST_SEQUENCE = 2**63 - 1

LONGEST_KEY = 255
VISIBLE = re.compile(r"[\x21-\x7e]+")
# RFC 9651 3.3.3: a string in quotes, where only the quote and the backslash are escaped.
QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')

# Compared in lower case, with - as _.
CREDENTIALS = frozenset(
    {
        "access_token",
        "api_key",
        "apikey",
        "auth_token",
        "authorization",
        "bearer",
        "client_secret",
        "key",
        "passwd",
        "password",
        "refresh_token",
        "secret",
        "token",
        "x_api_key",
        "x_relay_api_key",
    }
)


def read_int(request: HTTPConnection, name: str, *, default: int, low: int, high: int) -> int:
    """Return a query parameter that is an integer from `low` to `high`.

    Raises Refusal 400 `invalid_parameter` for anything but ASCII digits, and for a repeat.
    """
    value = _read_once(request, name)
    if value is None:
        return default
    if not NUMBER.fullmatch(value) or not low <= int(value) <= high:
        raise _invalid(name, value, f"an integer from {low} to {high}")
    return int(value)


def read_text(request: HTTPConnection, name: str, *, longest: int) -> str:
    """Return a query parameter that is a text, empty if it is not there.

    Raises Refusal 400 `invalid_parameter` for a repeat, and for more than `longest` characters.
    """
    value = _read_once(request, name) or ""
    if len(value) > longest:
        raise _invalid(name, value, f"at most {longest} characters")
    return value


def read_cursor(request: HTTPConnection) -> int | None:
    """Return the stream sequence after which a client wants to go on, None if it names none.

    The header Last-Event-ID has it, or `?after=`. If both do the header is right, because a
    browser repeats the URL of its first connection for ever. Raises Refusal 400
    `invalid_parameter` for a cursor that cannot be one.
    """
    after = _read_once(request, "after")
    in_query = None if after is None else _sequence("after", after)
    seen = request.headers.getlist("last-event-id")
    if len(seen) > 1:
        raise _repeated("header Last-Event-ID")
    # The header is empty where a stream took its ids back (WHATWG HTML 9.2.6).
    return _sequence("Last-Event-ID", seen[0]) if seen and seen[0] else in_query


def read_idempotency_key(request: HTTPConnection) -> str | None:
    """Return the key under which a request may be repeated, None if it has none.

    It is a string in quotes, as draft-ietf-httpapi-idempotency-key-header says, or bare, as
    most clients send it; both are the same key. Raises Refusal 400 `invalid_idempotency_key`
    unless it is 1 to 255 visible ASCII characters, once.
    """
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    key = _unquoted(values[0]) if len(values) == 1 else None
    if key is None or len(key) > LONGEST_KEY or not VISIBLE.fullmatch(key):
        detail = f"Idempotency-Key must be 1 to {LONGEST_KEY} visible ASCII characters, once"
        raise Refusal(400, "invalid_idempotency_key", detail)
    return key


def read_arriving(request: HTTPConnection) -> Arriving | None:
    """Return what is to become of a message if a run is going, None if it does not say.

    Raises Refusal 400 `invalid_parameter` for any other word, and for a repeat.
    """
    values = request.headers.getlist("x-arriving")
    if len(values) > 1:
        raise _repeated("header X-Arriving")
    found: Arriving | None = next((word for word in ARRIVING if [word] == values), None)
    if values and found is None:
        raise _invalid("X-Arriving", values[0], f"one of {', '.join(ARRIVING)}")
    return found


def refuse_credentials(request: HTTPConnection) -> None:
    """Raise Refusal 400 `credential_in_url` if the query names a credential.

    URLs end up in logs, histories and Referer headers; the value is not looked at.
    """
    query = request.scope.get("query_string", b"").decode("latin-1")
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name.strip().lower().replace("-", "_") in CREDENTIALS:
            detail = f"{quote(name)} does not belong in a URL, send it in a header"
            raise Refusal(400, "credential_in_url", detail)


def _read_once(request: HTTPConnection, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise _repeated(f"parameter {name!r}")
    return values[0] if values else None


def _sequence(name: str, value: str) -> int:
    if not NUMBER.fullmatch(value) or int(value) > HIGHEST_SEQUENCE:
        raise _invalid(name, value, f"an integer from 0 to {HIGHEST_SEQUENCE}")
    return int(value)


def _unquoted(value: str) -> str | None:
    if not value.startswith('"'):
        return value
    found = QUOTED.fullmatch(value)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else None


def _repeated(what: str) -> Refusal:
    return Refusal(400, "invalid_parameter", f"{what} is given more than once")


def _invalid(name: str, value: str, expected: str) -> Refusal:
    detail = f"{name!r} is {quote(value)}, expected {expected}"
    return Refusal(400, "invalid_parameter", detail)
