"""The table of operations: what it refuses, and the routes made from it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.operation import Operation, Parameter, operation_of, routes
from tests.unit.letters import LIST, POST, TABLE, Letter, Posted, client_of, read


def letter(method: str = "GET", path: str = "/x", **more: Any) -> Operation:
    given: dict[str, Any] = {"summary": "Read", "answers": {200: Letter}, **more}
    return Operation(method, path, read, **given)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: letter("FETCH"), "FETCH /x: method 'FETCH' must be one of DELETE, GET, PATCH,"),
        (lambda: letter("HEAD"), "HEAD /x: method 'HEAD' must be one of"),
        (lambda: letter(path="x"), "GET x: path 'x' must start with '/'"),
        (lambda: letter(summary=" "), "GET /x needs a summary"),
        (lambda: letter(body=Letter), "GET /x cannot take a body"),
        (lambda: letter(answers={}), "GET /x needs at least one answer"),
        (lambda: letter(answers={299: Letter}), "GET /x: 299 is not the status of an answer"),
        (lambda: letter(answers={100: ""}), "GET /x: 100 is not the status of an answer"),
        (
            lambda: letter(answers={404: ""}, stream_event=Posted),
            "GET /x is a stream, so its answers need a 200",
        ),
        (
            lambda: letter(path="/x/{id}", variables=(Parameter("ip"),)),
            "GET /x/{id} describes ['ip'], which its path does not have",
        ),
    ],
)
def test_an_operation_that_cannot_be_published_is_refused(
    make: Callable[[], Operation], complaint: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        make()


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ([letter(), letter()], "GET /x is in the table twice"),
        ([letter(), letter(path="/y")], "GET /y needs a name: 'read' is that of GET /x already"),
        (
            [letter(path="/x/{id}"), letter("POST", "/x/{id:int}")],
            "POST /x/{id:int} and GET /x/{id} write one path in two ways",
        ),
        (
            [letter(path="/x/{id}"), letter(path="/x/all", name="all")],
            "GET /x/all is never reached: '/x/{id}' comes first and matches it too",
        ),
    ],
)
def test_operations_in_each_others_way_are_refused(table: list[Operation], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        routes(table)


async def test_each_operation_is_answered_by_its_endpoint() -> None:
    async with client_of(routes(TABLE)) as client:
        posted = await client.post("/letters", json={"to": "child"})
        one = await client.get("/letters/7")
        gone = await client.delete("/letters/7")
        feed = await client.get("/letters/7/events")

    assert posted.json() == {"letter_id": "l1"}
    assert one.json() == {"operation": "read_one", "number": 7}
    assert (gone.status_code, gone.content) == (204, b"")
    assert feed.headers["content-type"].startswith("text/event-stream")


async def test_head_is_get_without_the_body() -> None:
    async with client_of(routes(TABLE)) as client:
        get, head = await client.get("/letters"), await client.head("/letters")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == get.headers
    assert int(head.headers["content-length"]) == len(get.content) > 0


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/letters", "GET, HEAD, OPTIONS, POST"),
        ("/letters/7", "DELETE, GET, HEAD, OPTIONS"),
        ("/letters/7/events", "GET, OPTIONS"),
    ],
)
async def test_options_tells_the_methods_of_a_path(path: str, allowed: str) -> None:
    async with client_of(routes(TABLE)) as client:
        answer = await client.options(path)

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/letters", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/letters/7", "DELETE, GET, HEAD, OPTIONS"),
        ("HEAD", "/letters/7/events", "GET, OPTIONS"),
        ("BREW", "/export", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_method_that_is_not_in_the_table_is_refused_with_those_that_are(
    method: str, path: str, allowed: str
) -> None:
    async with client_of(routes(TABLE)) as client:
        answer = await client.request(method, path)

    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":
        assert f"method {method!r} is not offered here" in answer.text


async def test_a_path_that_is_not_in_the_table_is_not_found() -> None:
    async with client_of(routes(TABLE)) as client:
        answer = await client.get("/letters/seven")

    assert answer.status_code == 404


class Guard:
    """Middleware that notes which operation it stands before."""

    def __init__(self, app: ASGIApp, seen: list[Operation | None]) -> None:
        self._app, self._seen = app, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._seen.append(operation_of(Request(scope)))
        await self._app(scope, receive, send)


async def test_middleware_of_the_routes_knows_the_operation() -> None:
    seen: list[Operation | None] = []
    guarded = routes(TABLE, [Middleware(Guard, seen=seen)])

    async with client_of(guarded) as client:
        await client.post("/letters")
        await client.head("/letters")
        await client.options("/letters")
        await client.put("/letters")

    assert seen == [POST, LIST, None, None]


async def test_an_exception_handler_knows_the_operation() -> None:
    async def complain(request: Request, error: Exception) -> Response:
        operation = operation_of(request)
        return JSONResponse({"operation": operation and operation.id}, 404)

    async with client_of(routes(TABLE), exception_handlers={404: complain}) as client:
        raised, missing = await client.get("/letters/count"), await client.get("/nowhere")

    assert raised.json() == {"operation": "count"}
    assert missing.json() == {"operation": None}
