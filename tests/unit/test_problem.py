"""What a client is told when something fails, and what the log keeps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.problem import Answering, Answers, Refusal, problem, quote, refused_at, relay_error


class Drowned(Exception):
    """Something of another package that has a meaning for clients."""


def raising(fault: Exception) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        raise fault

    return endpoint


async def fine(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def cached(request: Request) -> Response:
    return Response("x", headers={"Cache-Control": "max-age=60"})


async def halfway(request: Request) -> Response:
    async def words() -> AsyncIterator[bytes]:
        yield b"hello"
        raise RuntimeError("hunter2")

    return StreamingResponse(words())


class Doorkeeper:
    """Middleware of our own that refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/closed"):
            raise Refusal(403, "forbidden", "it is closed")
        await self.app(scope, receive, send)


def application() -> Starlette:
    answers = Answers(translations={Drowned: lambda fault: Refusal(507, "no_room", str(fault))})
    faults = {
        "refused": Refusal(409, "conflict", "it is taken", retries=3),
        "broken": RuntimeError("hunter2"),
        "drowned": Drowned("no room"),
        "teapot": HTTPException(418, "short and stout", headers={"X-Tea": "green"}),
        "left": ClientDisconnect(),
    }
    routes = [
        Route(f"{prefix}/{name}", raising(fault))
        for prefix in ("", "/api/relay")
        for name, fault in faults.items()
    ]
    return Starlette(
        routes=[
            *routes,
            Route("/fine", fine),
            Route("/cached", cached),
            Route("/halfway", halfway),
        ],
        middleware=[Middleware(Answering, answers), Middleware(Doorkeeper)],
        exception_handlers=answers.handlers(),
    )


async def get(path: str, method: str = "GET") -> httpx.Response:
    # Whatever leaves the application would be logged a second time by the server.
    transport = httpx.ASGITransport(application(), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path)


async def test_a_refusal_is_answered_as_problem_details() -> None:
    answer = await get("/refused")

    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "code": "conflict",
        "detail": "it is taken",
        "retries": 3,
    }


async def test_the_relay_is_answered_in_its_own_shape() -> None:
    answer = await get("/api/relay/refused")

    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"status": "error", "msg": "it is taken", "code": "conflict"}


def told(path: str, refusal: Refusal, media: str = "") -> tuple[int, Any]:
    answer = refused_at(path, refusal, media)
    return answer.status_code, msgspec.json.decode(bytes(answer.body))


async def test_clients_of_openai_are_answered_in_its_shape() -> None:
    answer = refused_at("/v1/chat/completions", Refusal(409, "MANUAL_IN_PROGRESS", "a person"))

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == "false"
    assert bytes(answer.body) == (
        b'{"error":{"message":"a person","type":"invalid_request_error","param":null,'
        b'"code":"MANUAL_IN_PROGRESS"}}'
    )


@pytest.mark.parametrize(
    ("refusal", "kind", "param", "code"),
    [
        (Refusal(401, "unauthorized", "no"), "invalid_request_error", None, "invalid_api_key"),
        (Refusal(404, "not_found", "no"), "invalid_request_error", None, "unknown_url"),
        (Refusal(404, "gone", "no", param="model"), "invalid_request_error", "model", "gone"),
        (Refusal(429, "locked_out", "no"), "rate_limit_error", None, "rate_limit_exceeded"),
        (
            Refusal(429, "insufficient_quota", "no"),
            "insufficient_quota",
            None,
            "insufficient_quota",
        ),
        (Refusal(503, "unavailable", "no"), "server_error", None, "unavailable"),
        (
            Refusal(400, "bad", "no", errors=[{"pointer": "/messages/0/content/12/type"}]),
            "invalid_request_error",
            "messages[0].content[12].type",
            "bad",
        ),
    ],
)
async def test_every_openai_error_has_a_type_a_code_and_the_field_at_fault(
    refusal: Refusal, kind: str, param: str | None, code: str
) -> None:
    status, body = told("/v1/models/x", refusal)

    assert status == refusal.status
    assert body == {"error": {"message": "no", "type": kind, "param": param, "code": code}}


async def test_a_form_to_a_path_of_openai_is_answered_as_problem_details() -> None:
    refusal = Refusal(415, "unsupported_media_type", "no")
    form = told("/v1/chat/completions", refusal, "multipart/form-data; boundary=x")
    json = told("/v1/chat/completions", refusal, "application/json")

    assert form[1]["detail"] == "no"
    assert json[1]["error"]["message"] == "no"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nowhere", 404, "not_found"),
        ("/api/relay/nowhere", 404, "not_found"),
        ("/teapot", 418, "i_m_a_teapot"),
        ("/drowned", 507, "no_room"),
        ("/closed", 403, "forbidden"),
        ("/api/relay/closed", 403, "forbidden"),
        ("/broken", 500, "internal_error"),
        ("/api/relay/broken", 500, "internal_error"),
    ],
)
async def test_every_failure_has_a_status_and_a_code(path: str, status: int, code: str) -> None:
    answer = await get(path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_method_that_is_not_offered_is_answered_with_those_that_are() -> None:
    answer = await get("/fine", "PUT")

    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_headers_of_an_exception_are_kept() -> None:
    answer = await get("/teapot")

    assert answer.headers["x-tea"] == "green"


async def test_what_nobody_expected_is_logged_once_and_told_to_nobody() -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await get("/broken?token=hunter3")

    assert "hunter" not in answer.text
    assert "Traceback" not in answer.text
    assert [(entry["event"], entry["path"]) for entry in logs] == [("request_failed", "'/broken'")]
    assert isinstance(logs[0]["exc_info"], RuntimeError)
    assert "hunter3" not in str(logs)


async def test_a_refusal_is_not_logged_as_a_failure() -> None:
    with structlog.testing.capture_logs() as logs:
        await get("/refused")

    assert logs == []


async def test_a_response_that_fails_halfway_is_cut_off_and_logged_once() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/halfway",
        "headers": [],
        "query_string": b"",
    }
    with structlog.testing.capture_logs() as logs:
        await application()(scope, receive, send)

    assert [message.get("body") for message in sent] == [None, b"hello"]
    assert sent[-1]["more_body"]
    assert [entry["event"] for entry in logs] == ["response_cut_off"]


async def test_every_answer_forbids_guessing_and_keeping_unless_it_says_otherwise() -> None:
    plain, kept = await get("/fine"), await get("/cached")

    assert plain.headers["x-content-type-options"] == "nosniff"
    assert plain.headers["cache-control"] == "no-store"
    assert kept.headers["x-content-type-options"] == "nosniff"
    assert kept.headers["cache-control"] == "max-age=60"


@pytest.mark.parametrize(
    ("status", "header", "value"),
    [
        (401, "www-authenticate", 'Bearer realm="callboard"'),
        (429, "retry-after", "1"),
        (503, "retry-after", "1"),
    ],
)
def test_a_status_brings_the_header_it_needs(status: int, header: str, value: str) -> None:
    usual = problem(Refusal(status, "x"))
    own = relay_error(Refusal(status, "x", headers={header.title(): "mine"}))

    assert usual.headers[header] == value
    assert own.headers[header] == "mine"


def test_the_longest_prefix_decides_the_shape() -> None:
    answers = Answers({"/a/": relay_error, "/a/b/": problem})
    media = [
        answers.answer({"path": path}, Refusal(400, "x")).media_type
        for path in ("/a/x", "/a/b/x", "/x")
    ]

    assert media == ["application/json", "application/problem+json", "application/problem+json"]


def test_a_refusal_without_detail_says_its_title() -> None:
    refusal = Refusal(404, "not_found")

    assert msgspec.json.decode(relay_error(refusal).body)["msg"] == "Not Found"
    assert "detail" not in msgspec.json.decode(problem(refusal).body)


def test_a_refusal_may_hold_what_cannot_be_encoded() -> None:
    answer = problem(Refusal(400, "x", "half \ud800", errors=[{"pointer": "/\udfff"}]))

    assert msgspec.json.decode(answer.body)["detail"] == "half ?"


def test_a_member_that_a_problem_has_anyway_is_refused() -> None:
    with pytest.raises(ValueError, match="x: a problem has \\['type'\\] of its own"):
        Refusal(400, "x", type="y")


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("a\n", "'a\\n'"),
        ("a" * 78, repr("a" * 78)),
        ("a" * 1000, "'" + "a" * 76 + "..."),
        ("\0" * 79, "'" + "\\x00" * 19 + "..."),
        (b"\xff", "b'\\xff'"),
    ],
)
def test_a_value_is_quoted_shortly(value: str | bytes, quoted: str) -> None:
    assert quote(value) == quoted
    assert len(quote(value)) <= 80
