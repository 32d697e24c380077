"""Every bad request in tests/data/http_inputs.json gets the answer it says, and no 500."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from actors.child import Remote
from actors.master import Master
from runtime.testing import running
from tests.integration.edges import KEY, Edge, serving
from tests.integration.wire import Answer, Wire

INPUTS = msgspec.json.decode((Path(__file__).parents[1] / "data/http_inputs.json").read_bytes())
Input = Mapping[str, Any]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge() -> AsyncIterator[Edge]:
    async with (
        running(master=Master, child=Remote) as kit,
        serving(kit.server.url) as edge,
    ):
        yield edge


class Filled:
    """What an input's texts stand for, once: its tasks are sent only where it needs them."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        host = edge.url.removeprefix("http://")
        self.values = {"host": host, "key": KEY, "unique": secrets.token_hex(8)}

    async def prepare(self, needs: list[str]) -> None:
        for name in needs:
            task_id = self.values[name] = await self._edge.send(to="child")
            if name == "finished":
                body = {
                    "task_id": task_id,
                    "child_id": "child_test",
                    "status": "done",
                    "result": {"summary": "good"},
                }
                assert (await self._edge.post("/api/relay/callback", body)).status_code == 200

    def text(self, text: Any) -> bytes:
        pieces = [text] if isinstance(text, str) else text
        whole = "".join(p if isinstance(p, str) else p[0] * p[1] for p in pieces)
        for name, value in self.values.items():
            whole = whole.replace(f"{{{name}}}", value)
        return whole.encode("latin-1")

    def request(self, given: Input, *, key: bool) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (self.text(given["method"]), self.text(given["path"]))]
        lines.append(b"Host: " + self.text("{host}"))
        if key:
            lines.append(b"X-Relay-API-Key: " + KEY.encode())
        lines += [
            self.text(name) + b": " + self.text(value) for name, value in given.get("headers", [])
        ]
        body = self.text(given["body"]) if "body" in given else None
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join([*lines, b"", body or b""])


async def exchange(edge: Edge, raw: bytes, *, answers: int, closed: bool) -> Answer:
    wire = await Wire.open(edge.port)
    try:
        wire.send(raw)
        with contextlib.suppress(ConnectionError):
            answer = await wire.answer(content=not raw.startswith(b"HEAD"))
        for _ in range(answers - 1):
            await wire.answer()
        if closed:
            assert await wire.is_closed(), "the connection should have been closed"
        return answer
    finally:
        await wire.close()


def wrong(given: Input, answer: Answer) -> Iterator[str]:
    """Everything in which an answer is not as it should be."""
    if answer.status not in given["expect_status"]:
        yield f"status {answer.status}, expected {given['expect_status']}"
    missing = [n for n in given.get("expect_headers", []) if n.lower() not in answer.headers]
    too_much = [n for n in given.get("absent_headers", []) if n.lower() in answer.headers]
    if missing or too_much:
        yield f"headers missing: {missing}, too much: {too_much}"
    body = answer.json if answer.body else {}
    if given.get("expect_code") and body.get("code") != given["expect_code"]:
        yield f"code {body.get('code')}, expected {given['expect_code']}"
    if not SHAPES[given["shape"]](answer, body):
        yield f"not in the shape {given['shape']!r}"


SHAPES: Mapping[str, Callable[[Answer, Any], bool]] = {
    "any": lambda answer, body: True,
    "ok": lambda answer, body: body["status"] == "ok",
    "problem": lambda answer, body: answer.media == "application/problem+json",
    "relay": lambda answer, body: body["status"] == "error" and bool(body["msg"]),
    "stream": lambda answer, body: answer.is_stream,
}


@pytest.mark.promise("CB-03", "CB-11", "CB-12", "CB-18", "CB-19", "CB-23", "CB-27")
@pytest.mark.parametrize("given", [pytest.param(each, id=each["id"]) for each in INPUTS["inputs"]])
async def test_a_bad_request_gets_its_answer(edge: Edge, given: Input) -> None:
    filled = Filled(edge)
    await filled.prepare(given.get("needs", []))
    before = [
        await exchange(edge, filled.request(each, key=True), answers=1, closed=False)
        for each in given.get("before", [])
    ]
    if "raw" in given:
        raw = filled.text(given["raw"])
    else:
        raw = filled.request(given["request"], key=given.get("key", True))
    closed, answers = given.get("closed", False), 1
    answer = await exchange(edge, raw, answers=answers, closed=closed)

    assert [one.status for one in before] == [200] * len(before)
    assert list(wrong(given, answer)) == [], answer
    assert b"Traceback" not in answer.body
    if given.get("same_answer"):
        assert answer.json == before[-1].json
    if "then_status" in given:
        path = f"/api/relay/task-status/{filled.values[given['needs'][-1]]}"
        assert (await edge.get(path)).json()["task_status"] == given["then_status"]
