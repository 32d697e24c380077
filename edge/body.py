"""The body of a request as what a route needs: JSON, strictly, of one type.

Bytes become text, then a tree without surprises (`edge/strict.py`), then a checked value.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, TypeVar, overload

import msgspec
from starlette.requests import ClientDisconnect, Request

from edge.problem import Refusal, quote
from edge.strict import check_json

LIMIT = 256 * 1024
LONGEST_REASON = 120

# msgspec ends a message with the place: "… - at `$.a[0]`", or "… - at `key` in `$.a`".
PLACE = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
MISSING = re.compile(r"Object missing required field `(.+)`", re.DOTALL)
UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)

T = TypeVar("T")
Count: TypeAlias = Callable[[int], None]


def uncounted(size: int) -> None:
    """Let any body come that is within its own limit."""


@overload
async def read_json(
    request: Request,
    type: type[T],
    limit: int = ...,
    *,
    any_content_type: bool = ...,
    missing: int = ...,
    count: Count = ...,
) -> T: ...


@overload
async def read_json(
    request: Request,
    type: Any,
    limit: int = ...,
    *,
    any_content_type: bool = ...,
    missing: int = ...,
    count: Count = ...,
) -> Any: ...


async def read_json(
    request: Request,
    type: Any,
    limit: int = LIMIT,
    *,
    any_content_type: bool = False,
    missing: int = 422,
    count: Count = uncounted,
) -> Any:
    """Return the body of a request as a `type`, which msgspec can describe.

    `any_content_type` takes JSON whatever Content-Type calls it, or if there is none. `missing`
    is the status of the refusal if a required field is not there. `count` is told the size of
    each piece of the body as it comes, and may refuse it.

    Raises Refusal 415 for another media type, charset or Content-Encoding, 413 as soon as the
    body is known to exceed `limit` bytes, 400 `invalid_json` for what is not strict JSON, and
    422 `invalid_field` for JSON of another type.
    """
    _check_encoding(request)
    _check_content_type(request, any_content_type)
    raw = await read_body(request, limit, count)
    check_json(raw)
    return decode(raw, type, missing=missing)


async def read_json_if_any(request: Request, type: type[T], *, missing: int = 422) -> T:
    """Return the body as `read_json` does; a request without a body means `type()`."""
    length = request.headers.get("content-length", "0")
    if length == "0" and "transfer-encoding" not in request.headers:
        return type()
    return await read_json(request, type, missing=missing)


async def read_body(request: Request, limit: int = LIMIT, count: Count = uncounted) -> bytes:
    """Return the body of a request. Raises Refusal 413 for one of more than `limit` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            count(len(piece))
            pieces.append(piece)
    except ClientDisconnect:
        raise Refusal(400, "body_incomplete", "the connection ended before the body") from None
    return b"".join(pieces)


def decode(raw: bytes, type: Any, *, missing: int = 422) -> Any:
    """Return checked JSON as a `type`. Raises Refusal 422 `invalid_field`."""
    try:
        return _decoder(type).decode(raw)
    except msgspec.ValidationError as error:
        raise _translate(str(error), missing) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # check_json() refuses all of these, and more precisely; this is the second lock.
        raise Refusal(400, "invalid_json", quote(str(error))) from None


@cache
def _decoder(type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "body_too_large", f"the body is longer than {limit} bytes", limit=limit)


def _check_encoding(request: Request) -> None:
    for value in request.headers.getlist("content-encoding"):
        if value.strip().lower() not in {"", "identity"}:
            detail = f"Content-Encoding is {quote(value)}, expected none: compressed bodies are out"
            # RFC 9110 15.5.16: this tells it from a media type that is not supported.
            raise _unsupported(detail, "Accept-Encoding", "identity")


def _check_content_type(request: Request, any_type: bool) -> None:
    values = request.headers.getlist("content-type")
    if len(values) > 1:
        raise _unsupported("the request has more than one Content-Type")
    media, *parameters = (part.strip() for part in "".join(values).lower().split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8"}:
            raise _unsupported(f"the charset is {quote(value)}, expected utf-8")
    if media != "application/json" and not any_type:
        raise _unsupported(f"Content-Type is {quote(media)}, expected application/json")


def _unsupported(detail: str, name: str = "Accept", value: str = "application/json") -> Refusal:
    return Refusal(415, "unsupported_media_type", detail, headers={name: value})


def _translate(message: str, missing: int) -> Refusal:
    """Return what msgspec found as a refusal with a JSON pointer."""
    place = PLACE.search(message)
    reason = message[: place.start()] if place else message
    pointer = to_pointer(place[1]) if place else ""
    if absent := MISSING.fullmatch(reason):
        return _invalid(missing, pointer + _step(absent[1]), "required, but missing")
    if stranger := UNKNOWN.fullmatch(reason):
        return _invalid(422, pointer + _step(stranger[1]), "unknown, expected no such field")
    return _invalid(422, pointer, reason[:1].lower() + reason[1:].replace("`", ""))


def to_pointer(path: str) -> str:
    """Return msgspec's path `.a[0]` as the JSON pointer `/a/0`. It ends where msgspec does not
    say which key of an object it means."""
    known = path.partition("[...]")[0]
    return "".join(_step(name or index) for name, index in STEP.findall(known))


def _step(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _invalid(status: int, pointer: str, reason: str) -> Refusal:
    pointer = _clip(pointer)
    reason = _clip(reason)
    detail = f"{pointer or 'the body'}: {reason}"
    fault = {"detail": reason, **({"pointer": pointer} if pointer else {})}
    return Refusal(status, "invalid_field", detail, errors=[fault])


def _clip(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 3]}..."
