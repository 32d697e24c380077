"""Async-Chat's surface, from the form to the last poll, on a real server."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from runtime.testing import Kit, running
from tests.integration.asking import DEEPSEEK, GEMINI, ask, batch, models, polled
from tests.integration.edges import Edge, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = "gemini-2.5-flash, deepseek-r1:1.5b"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**models(gemini=GEMINI, deepseek=DEEPSEEK)) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


@pytest.mark.promise("AC-02", "AC-04", "AC-33", "AC-35", "AC-38", "AC-40", "AC-41", "AC-45")
async def test_one_form_asks_several_models_and_is_polled_until_all_have_answered(
    edge: Edge,
) -> None:
    asked = await ask(edge, "你好 there", BOTH)
    begun = await batch(edge, asked)
    found = await polled(edge, asked)

    assert asked["message"] == "Tasks dispatched successfully"
    assert len(asked["task_ids"]) == len(set(asked["task_ids"])) == 2
    assert begun["status"] in ("PENDING", "PROCESSING", "SUCCESS")
    assert found["batch_id"] == asked["batch_id"]
    assert found["conversation_id"] == asked["conversation_id"]
    assert (found["status"], found["status_code"]) == ("SUCCESS", 1)
    assert found["user_prompt"] == "你好 there"
    assert [one["task_id"] for one in found["results"]] == asked["task_ids"]
    assert [one["model_name"] for one in found["results"]] == BOTH.split(", ")
    assert {one["response_text"] for one in found["results"]} == {"你好 there"}
    assert {one["status"] for one in found["results"]} == {"SUCCESS"}
    assert all(one["error_msg"] is None for one in found["results"])
    assert all(one["cost_time"] >= 0 for one in found["results"])
