"""What the edge offers over HTTP: one table of operations, and the routes made from it.

Next: `edge/openapi.py`, which describes the same table.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

import msgspec
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, compile_path, request_response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

# Anything msgspec can describe: a Struct, a union of them, `list[...]`, `Annotated[int, Meta()]`.
Shape: TypeAlias = Any

JSON = "application/json"
READS = frozenset({"GET"})
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
STATUSES = frozenset(status.value for status in HTTPStatus if status >= 200)


class Fault(msgspec.Struct, omit_defaults=True):
    """One of several things wrong with a request, and where: a JSON pointer into its body."""

    detail: str
    pointer: str = ""


class Problem(msgspec.Struct, omit_defaults=True):
    """Why a request failed (RFC 9457). `status` is also the status of the response.

    Programs decide by `code`.
    """

    title: str
    status: int
    code: str
    type: str = "about:blank"
    detail: str = ""
    instance: str = ""
    errors: list[Fault] = []


@dataclass(frozen=True)
class Parameter:
    """One value of a query, a header or a path.

    `default` is what is assumed when it is not sent; None says nothing about that.
    """

    name: str
    shape: Shape = str
    description: str = ""
    _: KW_ONLY
    required: bool = False
    default: Any = None


@dataclass(frozen=True)
class Operation:
    """One method on one path: what answers it, who may use it and how it is described.

    `body` is what it takes as JSON, `form` what it takes as a form; either or both, or neither if
    it may be `bodiless`.
    `also` are scopes that open it as well as its `scope` does.
    `answers` gives a shape for each status (several as a tuple), or a sentence for one that has no
    body of its own: below 400 there is then no JSON body, from 400 on the body is an `error`.
    `media` is the type of the answers below 400. A `stream_event` means that the operation answers
    a stream of server-sent events whose data is of that shape, beside the 200 of `answers` if that
    is a shape. `variables` describes what is in braces in the path. `name` is the operation's id,
    the endpoint's own name if empty. Writes take an `Idempotency-Key` unless `repeatable` is off;
    the events of a stream have ids unless `resumable` is off.

    Raises ValueError for a method, path, status or summary that cannot be published.
    """

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    _: KW_ONLY
    answers: Mapping[int, Shape]
    scope: str | None = None
    also: tuple[str, ...] = ()
    body: Shape = None
    form: Shape = None
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    variables: tuple[Parameter, ...] = ()
    media: str = JSON
    stream_event: Shape = None
    error: Shape = Problem
    repeatable: bool = True
    resumable: bool = True
    bodiless: bool = False
    description: str = ""
    tag: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.method not in READS | WRITES:
            expected = ", ".join(sorted(READS | WRITES))
            raise ValueError(f"{self}: method {self.method!r} must be one of {expected}")
        if not self.path.startswith("/"):
            raise ValueError(f"{self}: path {self.path!r} must start with '/'")
        if not self.summary.strip():
            raise ValueError(f"{self} needs a summary")
        if self.method in READS and (self.body is not None or self.form is not None):
            raise ValueError(f"{self} cannot take a body")
        self._check_answers()
        self._check_variables()

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def id(self) -> str:
        """The name of the operation in the published document."""
        return self.name or str(getattr(self.endpoint, "__name__", type(self.endpoint).__name__))

    @property
    def takes_key(self) -> bool:
        """Whether the operation takes an `Idempotency-Key`."""
        return self.repeatable and self.method in WRITES

    def _check_answers(self) -> None:
        if not self.answers:
            raise ValueError(f"{self} needs at least one answer, such as answers={{200: Accepted}}")
        for status in self.answers:
            if status not in STATUSES:
                raise ValueError(f"{self}: {status!r} is not the status of an answer")
        if self.stream_event is not None and 200 not in self.answers:
            raise ValueError(f"{self} is a stream, so its answers need a 200")

    def _check_variables(self) -> None:
        unknown = {v.name for v in self.variables} - set(compile_path(self.path)[2])
        if unknown:
            raise ValueError(f"{self} describes {sorted(unknown)}, which its path does not have")


class OnePath:
    """Every operation of one path, as an ASGI app that chooses by method.

    OPTIONS is answered with what is allowed. HEAD is GET without its body; a stream has no HEAD,
    for its endpoint would follow something that nobody reads.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = {each.method: each for each in operations}
        get = self._operations.get("GET")
        if get is not None and get.stream_event is None:
            self._operations["HEAD"] = get
        self._apps: dict[str, ASGIApp] = {
            method: request_response(each.endpoint) for method, each in self._operations.items()
        }
        self._allow = ", ".join(sorted({*self._apps, "OPTIONS"}))

    def operation(self, method: str) -> Operation | None:
        """Return what `method` does here, None if it is not offered."""
        return self._operations.get(method)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Raises HTTPException 405 for a method that is not offered."""
        method = scope["method"]
        if method == "OPTIONS":
            await Response(status_code=204, headers={"Allow": self._allow})(scope, receive, send)
            return
        if method not in self._apps:
            detail = f"method {method!r} is not offered here, expected one of {self._allow}"
            raise HTTPException(405, detail, headers={"Allow": self._allow})
        await self._apps[method](scope, receive, _without_body(send) if method == "HEAD" else send)


def routes(operations: Iterable[Operation], middleware: Sequence[Middleware] = ()) -> list[Route]:
    """Return one route for each path of the table, in its order.

    `middleware` runs inside each route, where `operation_of` already knows the operation.
    Raises ValueError where two operations are in each other's way.
    """
    made: list[Route] = []
    for path, found in by_path(operations).items():
        for earlier in made:
            if earlier.path_regex.match(path):
                raise ValueError(
                    f"{found[0]} is never reached: {earlier.path!r} comes first and matches it too"
                )
        name, app = found[0].id, OnePath(found)
        made.append(Route(found[0].path, app, name=name, middleware=middleware))
    return made


def operation_of(connection: HTTPConnection) -> Operation | None:
    """Return the operation that answers this request, None if the table has none.

    Known from the moment the request is routed: in the endpoint, in the middleware of `routes`
    and in exception handlers, but not in middleware of the whole application.
    """
    chosen = connection.scope.get("endpoint")
    if not isinstance(chosen, OnePath):
        return None
    return chosen.operation(connection.scope.get("method", ""))


def by_path(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Return the operations of each path, as `/task/{id}`, in the order of the table.

    Raises ValueError for one method twice, one path written in two ways, and one id twice.
    """
    paths: dict[str, list[Operation]] = {}
    ids: dict[str, Operation] = {}
    for each in operations:
        beside = paths.setdefault(compile_path(each.path)[1], [])
        _check_beside(each, beside)
        beside.append(each)
        if each.id in ids:
            raise ValueError(f"{each} needs a name: {each.id!r} is that of {ids[each.id]} already")
        ids[each.id] = each
    return paths


def _check_beside(operation: Operation, others: Iterable[Operation]) -> None:
    for other in others:
        if other.path != operation.path:
            raise ValueError(f"{operation} and {other} write one path in two ways")
        if other.method == operation.method:
            raise ValueError(f"{operation} is in the table twice")


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head
