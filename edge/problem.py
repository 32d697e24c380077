"""How the edge says no: a refusal, its shapes on the wire, and what becomes of exceptions.

Shapes are chosen by path: problem+json (RFC 9457), the relay's, Fiido's, or OpenAI's.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, ExceptionHandler, Message, Receive, Scope, Send

from schemas.ownership import IN_MANUAL

log = structlog.get_logger("edge")

NOTHING: Mapping[str, str] = MappingProxyType({})

EVERYWHERE: Mapping[str, str] = MappingProxyType(
    {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
)
NEEDED: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        401: ("WWW-Authenticate", 'Bearer realm="callboard"'),
        429: ("Retry-After", "1"),
        503: ("Retry-After", "1"),
    }
)
CODES: Mapping[int, str] = MappingProxyType(
    {
        401: "unauthorized",
        403: "forbidden",
        404: "not_found",
        405: "method_not_allowed",
        406: "not_acceptable",
        409: "conflict",
        413: "body_too_large",
        415: "unsupported_media_type",
        422: "invalid_field",
        429: "rate_limited",
        500: "internal_error",
        503: "unavailable",
    }
)
OWN_MEMBERS = frozenset({"type", "title", "status", "code", "detail"})

OPENAI_CODES: Mapping[str, str] = MappingProxyType(
    {
        "unauthorized": "invalid_api_key",
        "not_found": "unknown_url",
        "rate_limited": "rate_limit_exceeded",
        "locked_out": "rate_limit_exceeded",
        "too_many_waiting": "rate_limit_exceeded",
        "too_many_streams": "rate_limit_exceeded",
    }
)
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
IN_MANUAL_MODE = "SESSION_IN_MANUAL_MODE"
"""What earlier clients look for where a person has a session."""
FORM_PATH = "/v1/chat/completions"
STEPS = re.compile(r"\.(\d+)(?=\.|$)")


class Refusal(Exception):
    """Why a request is not done, as its client is told.

    `code` is stable: programs decide by it. `detail` is for people and may change. `members`
    are further members of the problem, such as `errors`. What a status needs is added if
    `headers` lacks it: WWW-Authenticate to a 401, Retry-After to a 429 and a 503.

    Raises ValueError for a member that a problem has anyway.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str = "",
        *,
        title: str = "",
        headers: Mapping[str, str] = NOTHING,
        **members: Any,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}" if detail else f"{status} {code}")
        if taken := OWN_MEMBERS & set(members):
            raise ValueError(f"{code}: a problem has {sorted(taken)} of its own")
        self.status = status
        self.code = code
        self.detail = detail
        self.title = title or _phrase(status)
        self.headers = _merged(_needed(status), EVERYWHERE, headers)
        self.members = members


Shape: TypeAlias = Callable[[Refusal], Response]
Translation: TypeAlias = Callable[[Any], Refusal]


def problem(refusal: Refusal) -> Response:
    """Return a refusal as problem details (RFC 9457) with a `code`."""
    body = {
        "type": "about:blank",
        "title": refusal.title,
        "status": refusal.status,
        "code": refusal.code,
        **({"detail": refusal.detail} if refusal.detail else {}),
        **refusal.members,
    }
    return _response(refusal, body, "application/problem+json")


def relay_error(refusal: Refusal) -> Response:
    """Return a refusal in the relay's shape, `{"status": "error", "msg": ..., "code": ...}`."""
    body = {
        "status": "error",
        "msg": refusal.detail or refusal.title,
        "code": refusal.code,
        **({"task_id": refusal.members["task_id"]} if "task_id" in refusal.members else {}),
    }
    return _response(refusal, body, "application/json")


def support_error(refusal: Refusal) -> Response:
    """Return a refusal as Fiido's clients read it: `{"success": false, "detail", "error", …}`.

    They compare `detail` with words in capitals: where the code is such a word it is the detail,
    and what people read is the `message`. `status` is that of the session.
    """
    words = refusal.detail or refusal.title
    detail = refusal.code if refusal.code.isupper() else words
    told = {name: value for name, value in refusal.members.items() if name != "mode"}
    if detail != words:
        told["message"] = words
    if mode := refusal.members.get("mode"):
        told["status"] = mode
    if refusal.status == 409:
        refusal.headers.setdefault("x-should-retry", "false")
    manual = f"{IN_MANUAL_MODE}: {mode}" if mode and refusal.code == IN_MANUAL else ""
    body = {"success": False, "detail": detail, "error": manual or words, "code": refusal.code}
    return _response(refusal, {**body, **told}, "application/json")


def openai_error(refusal: Refusal) -> Response:
    """Return a refusal as OpenAI's clients read it: `{"error": {message, type, param, code}}`.

    They repeat a 409 by themselves unless they are told not to, and nothing is won by it here.
    """
    body = {
        "error": {
            "message": refusal.detail or refusal.title,
            "type": _openai_type(refusal),
            "param": refusal.members.get("param") or _first_field(refusal.members),
            "code": OPENAI_CODES.get(refusal.code, refusal.code),
        }
    }
    if refusal.status in {409, 422}:
        refusal.headers.setdefault("x-should-retry", "false")
    return _response(refusal, body, "application/json")


def _openai_type(refusal: Refusal) -> str:
    if refusal.code == "insufficient_quota":
        return "insufficient_quota"
    if refusal.status == 429:
        return "rate_limit_error"
    return "server_error" if refusal.status >= 500 else "invalid_request_error"


def _first_field(members: Mapping[str, Any]) -> str | None:
    """The first field that is at fault."""
    pointers = (str(fault.get("pointer", "")) for fault in members.get("errors", ()))
    return field_at(next((pointer for pointer in pointers if pointer), "")) or None


def field_at(pointer: str) -> str:
    """Return a JSON pointer as OpenAI names fields: `messages[0].content`."""
    return STEPS.sub(r"[\1]", pointer.lstrip("/").replace("/", "."))


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "/api/agent/": support_error,
        "/api/chat": support_error,
        "/api/conversation/": support_error,
        "/api/manual/": support_error,
        "/api/relay/": relay_error,
        "/api/sessions": support_error,
        "/api/shift/": support_error,
        "/v1/audio/": openai_error,
        "/v1/chat/": openai_error,
        "/v1/completions": openai_error,
        "/v1/embeddings": openai_error,
        "/v1/images/": openai_error,
        "/v1/models": openai_error,
        "/v1/responses": openai_error,
    }
)


def refused_at(path: str, refusal: Refusal, media: str = "") -> Response:
    """Return a refusal in the shape of its path, for a request of that Content-Type."""
    return _shape_at(path, media, SHAPES.items())(refusal)


def _shape_at(path: str, media: str, shapes: Iterable[tuple[str, Shape]]) -> Shape:
    shape = next((shape for prefix, shape in shapes if path.startswith(prefix)), problem)
    # A form is not OpenAI's: whoever sends one there speaks our own protocol.
    return problem if path == FORM_PATH and read_media(media) in FORMS else shape


def read_media(content_type: str) -> str:
    """Return the media type that a Content-Type names, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


class Answers:
    """What is answered to every failure, by the path it happened at.

    `shapes` gives the shape below a path prefix, the longest one decides; problem+json elsewhere.
    `translations` says which refusal another exception means, by its class or a base of it.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape] = SHAPES,
        translations: Mapping[type[Exception], Translation] = MappingProxyType({}),
    ) -> None:
        self._shapes = sorted(shapes.items(), key=lambda item: len(item[0]), reverse=True)
        self._translations = translations

    def handlers(self) -> dict[Any, ExceptionHandler]:
        """Return Starlette's `exception_handlers`. What is unexpected is left to `Answering`."""
        return dict.fromkeys((Refusal, HTTPException, *self._translations), self.handle)

    async def handle(self, request: Request, fault: Exception) -> Response:
        """Answer an exception; one that nobody expected is logged, and told to nobody."""
        return self.answer(request.scope, fault)

    def answer(self, scope: Scope, fault: Exception) -> Response:
        """Return the response to a failure of the request `scope`."""
        if isinstance(fault, HTTPException) and fault.status_code in {204, 304}:
            return Response(status_code=fault.status_code, headers=fault.headers)
        refusal = self.refusal(fault)
        if refusal is None:
            # Without the query, which may hold what does not belong in a log.
            log.error(
                "request_failed",
                method=scope.get("method"),
                path=quote(scope.get("path", "")),
                exc_info=fault,
            )
            refusal = Refusal(500, "internal_error", "the request failed; the log says why")
        media = Headers(scope=scope).get("content-type", "") if "headers" in scope else ""
        return _shape_at(scope.get("path", ""), media, self._shapes)(refusal)

    def refusal(self, fault: Exception) -> Refusal | None:
        """Return what an exception means to a client, None if nobody expected it."""
        if isinstance(fault, Refusal):
            return fault
        for kind in type(fault).__mro__:
            if kind in self._translations:
                return self._translations[kind](fault)
        return _from_starlette(fault) if isinstance(fault, HTTPException) else None


class Answering:
    """Middleware, to be put first: whatever fails inside it is answered and logged once.

    Every response leaves with `X-Content-Type-Options: nosniff`, and with `Cache-Control:
    no-store` unless it says otherwise. A response that fails halfway is cut off, not completed.
    """

    def __init__(self, app: ASGIApp, answers: Answers) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in EVERYWHERE.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except ClientDisconnect:
            log.debug("client_left", path=quote(scope["path"]))
        except Exception as fault:
            if started:
                log.error("response_cut_off", path=quote(scope["path"]), exc_info=fault)
                return
            await self._answers.answer(scope, fault)(scope, receive, send_marked)


def quote(value: str | bytes, longest: int = 80) -> str:
    """Return the repr of a value, cut to `longest` characters. Never pass it a secret."""
    # Cut before as well: the repr of a whole body is not free.
    shown = repr(value[:longest])
    return (
        shown if len(shown) <= longest and len(value) <= longest else f"{shown[: longest - 3]}..."
    )


def _from_starlette(fault: HTTPException) -> Refusal:
    phrase = _phrase(fault.status_code)
    detail = "" if fault.detail == phrase else fault.detail
    if fault.status_code == 404 and not detail:
        detail = "nothing is served at this path"
    code = CODES.get(fault.status_code) or re.sub(r"[^a-z0-9]+", "_", phrase.lower())
    return Refusal(fault.status_code, code, detail, headers=fault.headers or NOTHING)


def _response(refusal: Refusal, body: Mapping[str, Any], media: str) -> Response:
    try:
        content = msgspec.json.encode(body)
    except UnicodeEncodeError:
        # What somebody sent may be in it, and half a surrogate pair cannot be encoded.
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return Response(content, refusal.status, refusal.headers, media)


def _needed(status: int) -> dict[str, str]:
    return dict([NEEDED[status]]) if status in NEEDED else {}


def _merged(*several: Mapping[str, str]) -> dict[str, str]:
    """Return headers in lower case; a later one replaces an earlier one of its name."""
    return {name.lower(): value for headers in several for name, value in headers.items()}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown Status"
