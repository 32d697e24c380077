"""Files of a form: stored before it is answered, had back by their URLs, gone with a refusal."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from runtime.objects import FileStore
from runtime.testing import Kit, running
from tests.integration.asking import (
    BOTH,
    DEEPSEEK,
    GEMINI,
    a_picture,
    ask,
    history_of,
    models,
    polled,
    post,
    stored_files,
)
from tests.integration.edges import Edge, serving
from tests.unit.parcels import png

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**models(gemini=GEMINI, deepseek=DEEPSEEK)) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


@pytest.mark.promise("AC-17", "AC-36", "AC-44")
async def test_files_of_a_form_reach_the_models_and_can_be_had_back(edge: Edge) -> None:
    notes = ("files", ("../no\u202etes.txt", "你好".encode(), "text/markdown"))
    asked = await ask(edge, "what is this?", BOTH, files=[*a_picture(), notes])
    found = await polled(edge, asked)
    task = (await edge.get(f"/v1/tasks/{asked['task_ids'][0]}")).json()
    [said, *_] = (await edge.get(history_of(asked))).json()
    picture, text = [await edge.get(url) for url in said["files"]]
    head = await edge.client.head(said["files"][0])

    assert found["status"] == "SUCCESS"
    assert task["task_type"] == "MULTIMODAL"
    assert all(url.startswith(f"{edge.url}/files/") for url in said["files"])
    assert (picture.content, text.content) == (png(), "你好".encode())
    assert picture.headers["content-type"] == "image/png"
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert picture.headers["content-disposition"].startswith('attachment; filename="cat.png"')
    assert text.headers["content-disposition"].startswith('attachment; filename="notes.txt"')
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in picture.headers["content-security-policy"]
    assert head.headers["content-length"] == picture.headers["content-length"] == str(len(png()))
    assert head.content == b""


@pytest.mark.parametrize("name", ["0" * 32, "nothing", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a%00"])
async def test_a_file_that_is_not_there_is_not_found(edge: Edge, name: str) -> None:
    found = await edge.get(f"/files/{name}")

    assert found.status_code in (400, 404)
    assert found.json()["detail"]


async def test_a_file_whose_time_is_over_is_not_found(edge: Edge) -> None:
    asked = await ask(edge, "look", BOTH, files=a_picture())
    [said, *_] = (await edge.get(history_of(asked))).json()
    before = await edge.get(said["files"][0])
    await FileStore(edge.shared.bus).delete(said["files"][0].rpartition("/")[2])
    after = await edge.get(said["files"][0])

    assert (before.status_code, after.status_code) == (200, 404)
    assert after.json()["code"] == "file_not_found"


async def test_what_is_refused_leaves_no_file(kit: Kit, edge: Edge) -> None:
    before = await stored_files(kit)
    for fields in ({"model": "no-such"}, {"policy": "most"}, {"conversation_id": "a b"}):
        refused = await post(edge, "look", files=a_picture(), **fields)
        assert refused.status_code == 422, refused.text

    bad = [*a_picture(), ("files", ("x.zip", b"PK\x03\x04" + b"\0" * 30, "application/zip"))]
    unsupported = await post(edge, "look", BOTH, files=bad)

    assert unsupported.status_code == 415
    assert unsupported.json()["code"] == "unsupported_file_type"
    assert unsupported.headers["content-type"] == "application/problem+json"
    assert await stored_files(kit) == before


@pytest.mark.promise("AC-07")
async def test_a_form_repeated_under_its_key_starts_nothing_and_keeps_no_file(
    kit: Kit, edge: Edge
) -> None:
    headers = {"Idempotency-Key": '"once"'}
    first = await ask(edge, "look", BOTH, files=a_picture(), headers=headers)
    await polled(edge, first)
    files = await stored_files(kit)
    again = await ask(edge, "look", BOTH, files=a_picture(), headers={"Idempotency-Key": "once"})
    other = await post(edge, "look again", BOTH, files=a_picture(), headers=headers)
    others_file = await post(edge, "look", BOTH, files=a_picture("dog.png"), headers=headers)

    assert again == first
    for refused in (other, others_file):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reuse")
    assert await stored_files(kit) == files
    assert len((await edge.get(history_of(first))).json()) == 3


async def test_a_form_with_files_is_refused_at_once_while_the_server_is_away(
    edge: Edge, kit: Kit
) -> None:
    await kit.server.kill()
    try:
        # A file that is under way waits for longer than this.
        async with asyncio.timeout(10):
            answer = await post(edge, "hi", BOTH, files=a_picture())
    finally:
        await kit.server.start()

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
