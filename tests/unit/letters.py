"""A small HTTP interface, about letters, for the tests of how one is published."""

from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, Literal

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute

from edge.operation import Operation, Parameter, operation_of


class Letter(msgspec.Struct):
    """What is sent, and to whom."""

    to: Annotated[str, msgspec.Meta(min_length=1, examples=["child"])]
    text: str | None = None
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    place: tuple[int, str] = (1, "a")
    kind: Literal["letter", "card"] = "letter"
    seal: bytes = b""
    answer_to: "Letter | None" = None


class Receipt(msgspec.Struct):
    """Proof that a letter is stored."""

    letter_id: str


class Posted(msgspec.Struct, tag="letter.posted", tag_field="type"):
    """A letter is on its way."""

    letter_id: str


class Delivered(msgspec.Struct, tag="letter.delivered", tag_field="type"):
    """A letter arrived."""

    letter_id: str


class Refusal(msgspec.Struct):
    """An error in the words of another protocol."""

    msg: str


async def post(request: Request) -> Response:
    return JSONResponse({"letter_id": "l1"})


async def read(request: Request) -> Response:
    operation = operation_of(request)
    return JSONResponse({"operation": operation and operation.id, **request.path_params})


async def count(request: Request) -> Response:
    raise HTTPException(404, "no letters")


async def erase(request: Request) -> Response:
    return Response(status_code=204)


async def follow(request: Request) -> Response:
    async def events() -> AsyncIterator[str]:
        yield 'id: 1\ndata: {"type":"letter.posted","letter_id":"l1"}\n\n'

    return StreamingResponse(events(), media_type="text/event-stream")


LIMIT = Parameter("limit", Annotated[int, msgspec.Meta(ge=1, le=1000)], "How many.", default=100)

POST = Operation(
    "POST",
    "/letters",
    post,
    "Post a letter",
    answers={200: Receipt, 400: Refusal},
    body=Letter,
    scope="letters.write",
    error=Refusal,
    tag="letters",
)
LIST = Operation(
    "GET", "/letters", read, "List letters", answers={200: list[Receipt]}, query=(LIMIT,)
)
COUNT = Operation("GET", "/letters/count", count, "Count", answers={200: int, 404: "No letters"})
READ = Operation(
    "GET",
    "/letters/{number:int}",
    read,
    "Read one",
    name="read_one",
    answers={200: Letter},
    variables=(Parameter("number", str, "Its number."),),
)
ERASE = Operation("DELETE", "/letters/{number:int}", erase, "Erase", answers={204: "It is gone"})
FOLLOW = Operation(
    "GET",
    "/letters/{number:int}/events",
    follow,
    "Follow one",
    answers={200: "Its events"},
    stream_event=Posted | Delivered | None,
    scope="letters.read",
    tag="feeds",
)
EXPORT = Operation(
    "GET",
    "/export",
    read,
    "Export all",
    name="export",
    answers={200: Letter},
    media="application/jsonl",
)
TABLE = (POST, LIST, COUNT, READ, ERASE, FOLLOW, EXPORT)


def client_of(routes: Iterable[BaseRoute], **options: Any) -> httpx.AsyncClient:
    app = Starlette(routes=list(routes), **options)
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://board.test")
