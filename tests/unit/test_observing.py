"""Every answer carries an id and safe headers; slow ones are told of."""

from typing import Any

import httpx
import pytest
import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge import observing
from edge.observing import Observing, read_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def show(request: Request) -> Response:
    return JSONResponse({"trace": request.state.traceparent, "id": request.state.request_id})


async def wait(request: Request) -> Response:
    request.state.patient = True
    return Response(headers={"X-Frame-Options": "SAMEORIGIN"})


def client() -> httpx.AsyncClient:
    routes = [Route("/show", show), Route("/wait", wait)]
    app = Starlette(routes=routes, middleware=[Middleware(Observing)])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://board.test")


def read(*values: str) -> str:
    return read_traceparent(Headers(raw=[(b"traceparent", v.encode()) for v in values]))


async def test_every_request_has_an_id_of_its_own() -> None:
    async with client() as asked:
        answers = [await asked.get("/show") for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in answers]

    assert ids == [answer.json()["id"] for answer in answers]
    assert len(set(ids)) == 2


async def test_an_answer_may_say_otherwise_about_its_own_safety() -> None:
    async with client() as asked:
        shown, waited = await asked.get("/show"), await asked.get("/wait")

    assert shown.headers["x-frame-options"] == "DENY"
    assert shown.headers["referrer-policy"] == "no-referrer"
    assert waited.headers["x-frame-options"] == "SAMEORIGIN"


@pytest.mark.promise("FD-100")
async def test_a_slow_answer_is_told_of_unless_it_was_meant_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(observing, "SLOW", 0.0)
    with structlog.testing.capture_logs() as logs:
        async with client() as asked:
            await asked.get("/show?secret=x")
            await asked.get("/wait")
    (line,) = logs

    assert line["event"] == "request_slow"
    assert line["log_level"] == "warning"
    assert (line["method"], line["path"]) == ("GET", "'/show'")
    assert line["seconds"] >= 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"00-{TRACE}", f"00-{TRACE}"),
        (f"01-{TRACE}-and-more", f"00-{TRACE}"),
        (f"cc-{TRACE}", f"00-{TRACE}"),
        (f"00-{TRACE}-more", ""),
        (f"01-{TRACE}more", ""),
        (f"ff-{TRACE}", ""),
        (f"00-{TRACE.upper()}", ""),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", ""),
        (f"00-{TRACE[:-1]}", ""),
        (f" 00-{TRACE}", ""),
        ("", ""),
        (f"01-{TRACE}-" + "x" * 300, ""),
    ],
)
def test_a_trace_is_taken_over_where_it_is_one(value: str, expected: str) -> None:
    assert read(value) == expected


def test_no_trace_and_two_of_them_are_none() -> None:
    assert read() == ""
    assert read(f"00-{TRACE}", f"00-{TRACE}") == ""


async def test_the_trace_is_there_for_whoever_serves_the_request() -> None:
    async with client() as asked:
        answer: Any = await asked.get("/show", headers={"TraceParent": f"00-{TRACE}"})

    assert answer.json()["trace"] == f"00-{TRACE}"
