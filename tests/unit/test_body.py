"""Bodies: their size, their media type, and the type of what is in them."""

import json
from typing import Annotated, Any, Literal

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge.body import decode, read_body, read_json
from edge.problem import Answering, Answers, Refusal


class Line(msgspec.Struct):
    text: str
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 5


class Letter(msgspec.Struct, forbid_unknown_fields=True):
    sender: str = msgspec.field(name="from")
    lines: list[Line] = []
    kind: Literal["task", "message"] = "task"
    payload: Any = None
    by_name: dict[str, int] = {}


def request(
    chunks: list[bytes], headers: dict[str, str] | None = None, *, left: bool = False
) -> tuple[Request, list[bytes]]:
    """A request, and its chunks that nobody has asked for yet."""
    waiting = list(chunks)

    async def receive() -> dict[str, Any]:
        if left and not waiting:
            return {"type": "http.disconnect"}
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting) or left}

    given = {"content-type": "application/json"} if headers is None else headers
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()]
    scope = {"type": "http", "method": "POST", "headers": raw}
    return Request(scope, receive), waiting


async def refusal_of(
    chunks: list[bytes], headers: dict[str, str] | None = None, **options: Any
) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await read_json(request(chunks, headers)[0], Letter, **options)
    return refusal.value


BODY = b'{"from":"master"}'


async def test_a_body_is_read_as_its_type() -> None:
    raw = '{"from":"m","lines":[{"text":"你好","priority":9}],"payload":{"a":[1]}}'.encode()
    letter = await read_json(request([raw[:7], raw[7:]])[0], Letter)

    assert letter == Letter(sender="m", lines=[Line("你好", 9)], payload={"a": [1]})


async def test_a_union_is_read_too() -> None:
    value: Any = await read_json(request([b"[1]"])[0], list[int] | str)

    assert value == [1]


@pytest.mark.parametrize(
    "media",
    ["application/json", "Application/JSON", 'application/json; charset="UTF-8"; x=y'],
)
async def test_json_in_utf_8_is_taken(media: str) -> None:
    letter = await read_json(request([BODY], {"Content-Type": media})[0], Letter)

    assert letter.sender == "master"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; charset"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "identity, br"},
    ],
)
async def test_another_media_type_is_refused_before_the_body_is_read(
    headers: dict[str, str],
) -> None:
    asked, waiting = request([BODY], headers)
    with pytest.raises(Refusal) as refusal:
        await read_json(asked, Letter)

    assert (refusal.value.status, refusal.value.code) == (415, "unsupported_media_type")
    assert waiting == [BODY]


@pytest.mark.promise("CB-18")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Encoding": "identity"},
    ],
)
async def test_a_route_may_take_json_whatever_it_is_called(headers: dict[str, str]) -> None:
    letter = await read_json(request([BODY], headers)[0], Letter, any_content_type=True)

    assert letter.sender == "master"


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain; charset=latin-1"}, {"Content-Encoding": "gzip"}]
)
async def test_no_route_takes_another_charset_or_coding(headers: dict[str, str]) -> None:
    refusal = await refusal_of([BODY], headers, any_content_type=True)

    assert refusal.status == 415


async def test_a_coding_is_told_from_a_media_type_by_its_header() -> None:
    coding = await refusal_of([BODY], {"Content-Encoding": "gzip"})
    media = await refusal_of([BODY], {})

    assert coding.headers["accept-encoding"] == "identity"
    assert media.headers["accept"] == "application/json"


async def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    chunks = [b" " * 60, b" " * 60]
    asked, waiting = request(chunks, {"Content-Length": "120"})
    with pytest.raises(Refusal) as refusal:
        await read_body(asked, limit=100)

    assert (refusal.value.status, refusal.value.code) == (413, "body_too_large")
    assert refusal.value.members == {"limit": 100}
    assert waiting == chunks


async def test_a_body_that_turns_out_too_large_is_not_read_to_its_end() -> None:
    asked, waiting = request([b" " * 60] * 5, {})
    with pytest.raises(Refusal) as refusal:
        await read_body(asked, limit=100)

    assert refusal.value.status == 413
    assert len(waiting) == 3


async def test_a_body_may_be_as_large_as_the_limit() -> None:
    assert len(await read_body(request([b" " * 60, b" " * 40])[0], limit=100)) == 100


async def test_a_body_whose_sender_left_is_refused() -> None:
    with pytest.raises(Refusal) as refusal:
        await read_body(request([b"{"], left=True)[0])

    assert refusal.value.code == "body_incomplete"


@pytest.mark.parametrize(
    ("body", "pointer", "reason"),
    [
        ({"from": 1}, "/from", "expected str, got int"),
        ({"from": "m", "lines": [{"text": "a"}, {"text": 2}]}, "/lines/1/text", "expected str, "),
        ({"from": "m", "lines": [{}]}, "/lines/0/text", "required, but missing"),
        ({"from": "m", "lines": [{"text": "", "priority": -1}]}, "/lines/0/priority", "expected"),
        ({"from": "m", "lines": {}}, "/lines", "expected array, got object"),
        ({"from": "m", "kind": "x"}, "/kind", "invalid enum value 'x'"),
        ({"from": "m", "by_name": {"a": "b"}}, "/by_name", "expected int, got str"),
        ({"from": "m", "a/b~c": 1}, "/a~1b~0c", "unknown, expected no such field"),
        ({}, "/from", "required, but missing"),
        ({"from": "m", "lines": [{"text": "", "priority": 2**63}]}, "/lines/0/priority", "expe"),
        ({"from": "m", "payload": {"a": 2**70}}, "/payload/a", "expected an integer of 64 bits"),
    ],
)
async def test_a_field_of_the_wrong_type_is_refused_with_its_place(
    body: Any, pointer: str, reason: str
) -> None:
    refusal = await refusal_of([json.dumps(body).encode()])
    (error,) = refusal.members["errors"]

    assert (refusal.status, refusal.code) == (422, "invalid_field")
    assert error["pointer"] == pointer
    assert error["detail"].startswith(reason)
    assert refusal.detail == f"{pointer}: {error['detail']}"


async def test_a_body_of_the_wrong_type_has_no_place() -> None:
    refusal = await refusal_of([b"[]"])

    assert refusal.detail == "the body: expected object, got array"
    assert refusal.members["errors"] == [{"detail": "expected object, got array"}]


async def test_a_surface_may_have_its_own_status_for_missing_fields() -> None:
    refusal = await refusal_of([b"{}"], missing=400)

    assert (refusal.status, refusal.code) == (400, "invalid_field")


async def test_a_refusal_repeats_little_of_a_field() -> None:
    refusal = await refusal_of([b'{"from":"m","' + b"x" * 9000 + b'":1}'])
    other = await refusal_of([b'{"from":"m","kind":"' + b"x" * 9000 + b'"}'])

    assert len(refusal.detail) < 400
    assert len(other.detail) < 200


@pytest.mark.parametrize("raw", [b"{", b'"\xff"', b"[" * 100_000, b'{"from":"\\ud800"}'])
def test_decoding_is_safe_without_a_check_before_it(raw: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        decode(raw, dict[str, Any] if raw.startswith(b"{") else Any)

    assert (refusal.value.status, refusal.value.code) == (400, "invalid_json")


async def endpoint(request: Request) -> Response:
    letter = await read_json(request, Letter, any_content_type=True)
    return JSONResponse({"code": letter.sender})


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (BODY, 200, "master"),
        (b"", 400, "invalid_json"),
        (b" " * 262_145, 413, "body_too_large"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"from":"\x00"}', 400, "invalid_json"),
        (rb'{"from":"\u0000"}', 400, "invalid_json"),
        (b'{"from":%d}' % 2**70, 422, "invalid_field"),
        (b'{"from":"a","payload":{"b":1,"b":1}}', 400, "invalid_json"),
        (b'{"from":"a","payload":1e999}', 400, "invalid_json"),
        (b"null", 422, "invalid_field"),
    ],
)
async def test_an_application_answers_every_body(raw: bytes, status: int, code: str) -> None:
    answers = Answers()
    routes = [Route("/", endpoint, methods=["POST"])]
    app = Answering(Starlette(routes=routes, exception_handlers=answers.handlers()), answers)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/", content=raw)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
