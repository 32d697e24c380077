"""Async-Chat's surface, from the form to the last poll, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from runtime.testing import Kit, running
from tests.integration.answering import Answering
from tests.integration.asking import (
    BOTH,
    DEEPSEEK,
    GEMINI,
    ask,
    batch,
    history_of,
    models,
    polled,
    post,
    until_status,
)
from tests.integration.edges import Edge, serving
from tests.integration.terminal import Hand

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = {"extra": {"delay": 3600}}
PHI = """
[[actor]]
name = "phi"
type = "actors.model:Model"
options = { provider = "echo", model = "phi4-mini" }
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    named = models(gemini=GEMINI, deepseek=DEEPSEEK, slow=SLOW, slower=SLOW)
    async with running(broken=(Answering, {"does": "fail"}), **named) as kit:
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


# -- what a form may say ---------------------------------------------------------------------


@pytest.mark.promise("AC-34", "AC-35", "AC-37", "AC-39")
@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("prompt", {}),
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": " \n"}),
        ("model", {"prompt": "x", "model": "gemini-2.5-flash, nobody"}),
        ("model", {"prompt": "x", "model": ",".join(f"m{n}" for n in range(100))}),
        ("conversation_id", {"prompt": "x", "conversation_id": "../x"}),
        ("conversation_id", {"prompt": "x", "conversation_id": "a" * 65}),
        ("conversation_id", {"prompt": "x", "conversation_id": "mail.>"}),
        ("mode", {"prompt": "x", "mode": "video"}),
        ("gemini_concurrency", {"prompt": "x", "gemini_concurrency": "-1"}),
        ("gemini_concurrency", {"prompt": "x", "gemini_concurrency": "0"}),
        ("gemini_concurrency", {"prompt": "x", "gemini_concurrency": "1e9"}),
        ("gemini_concurrency", {"prompt": "x", "gemini_concurrency": "1000000000"}),
        ("gemini_concurrency", {"prompt": "x", "gemini_concurrency": "abc"}),
        ("policy", {"prompt": "x", "policy": "quorum:0"}),
        ("policy", {"prompt": "x", "policy": "judge:nobody"}),
        ("deadline", {"prompt": "x", "deadline": "0"}),
        ("deadline", {"prompt": "x", "deadline": "soon"}),
        ("deadline", {"prompt": "x", "deadline": "30d"}),
        ("'temperature'", {"prompt": "x", "temperature": "1"}),
    ],
)
async def test_a_field_that_is_not_as_expected_is_named(
    edge: Edge, field: str, fields: dict[str, str]
) -> None:
    parts = [(name, (None, value)) for name, value in fields.items()] or [("model", (None, "x"))]
    refused = await edge.client.post("/v1/chat/completions", files=parts)

    assert refused.status_code == 422, refused.text
    assert refused.json()["code"] == "invalid_field"
    assert refused.json()["errors"][0]["pointer"] == f"/{field}"
    assert refused.json()["detail"].startswith(field)


async def test_a_body_that_is_neither_json_nor_a_form_is_told_what_is_taken(edge: Edge) -> None:
    for media in ("text/plain", "multipart/mixed", ""):
        refused = await edge.client.post(
            "/v1/chat/completions", content=b"prompt=x", headers={"Content-Type": media}
        )
        assert refused.status_code == 415, media


async def test_a_form_without_files_may_come_without_parts(edge: Edge) -> None:
    path, fields = "/v1/chat/completions", {"prompt": "你好 & more", "model": BOTH}
    asked = await edge.client.post(path, data=fields)
    found = await polled(edge, asked.json())
    unknown = await edge.client.post(path, data={"prompt": "x", "files": "y"})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    encoded = await edge.client.post(path, content=b"prompt=%ff", headers=headers)
    many = await edge.client.post(path, content=b"&".join([b"a=b"] * 40), headers=headers)
    long = await edge.client.post(path, data={"prompt": "x" * 40_000})

    assert found["user_prompt"] == "你好 & more"
    assert [one["status"] for one in found["results"]] == ["SUCCESS", "SUCCESS"]
    assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_field")
    assert (encoded.status_code, encoded.json()["code"]) == (400, "invalid_form")
    assert (many.status_code, many.json()["code"]) == (413, "too_many_parts")
    assert (long.status_code, long.json()["code"]) == (413, "field_too_large")


@pytest.mark.promise("AC-14", "AC-37")
async def test_a_gemini_model_may_be_asked_several_times_at_once(edge: Edge) -> None:
    asked = await ask(edge, "hello", BOTH, gemini_concurrency="2")
    found = await polled(edge, asked)

    labels = [one["model_name"] for one in found["results"]]
    assert labels == ["gemini-2.5-flash(#1)", "gemini-2.5-flash(#2)", "deepseek-r1:1.5b"]
    assert found["status"] == "SUCCESS"


@pytest.mark.promise("AC-39")
async def test_without_a_model_the_default_one_is_asked_and_none_is_asked_twice(
    edge: Edge,
) -> None:
    default = await polled(edge, await ask(edge, "hello"))
    again = await polled(edge, await ask(edge, "hello", "gemini,gemini-2.5-flash , gemini,"))

    assert [one["model_name"] for one in default["results"]] == ["gemini-2.5-flash"]
    assert [one["model_name"] for one in again["results"]] == ["gemini"]


@pytest.mark.promise("AC-39")
async def test_in_image_mode_a_picture_is_asked_for_and_the_prompt_stays_as_it_was(
    edge: Edge,
) -> None:
    asked = await ask(edge, "a cat", mode="image")
    found = await polled(edge, asked)
    task = (await edge.get(f"/v1/tasks/{asked['task_ids'][0]}")).json()

    assert found["user_prompt"] == task["prompt"] == "a cat"
    assert task["task_type"] == "IMAGE"
    assert task["response_text"].endswith("\na cat")
    assert (task["status"], task["status_code"]) == ("SUCCESS", 1)
    assert (task["batch_id"], task["conversation_id"]) == (
        asked["batch_id"],
        asked["conversation_id"],
    )


async def test_a_policy_says_when_a_batch_is_done(edge: Edge) -> None:
    first = await polled(edge, await ask(edge, "hello", "gemini, slow", policy="first"))
    quorum = await polled(edge, await ask(edge, "hello", BOTH, policy="quorum:2"))
    judged = await polled(edge, await ask(edge, "2", BOTH, policy="judge:deepseek-r1:1.5b"))

    assert first["status"] == "SUCCESS"
    assert [one["winner"] for one in first["results"]] == [True, False]
    assert quorum["status"] == "SUCCESS"
    assert judged["status"] in ("SUCCESS", "PARTIAL")


async def test_a_batch_ends_at_its_deadline(kit: Kit, edge: Edge) -> None:
    asked = await ask(edge, "hello", "gemini, slow", deadline="90")
    await until_status(edge, asked, 0, "SUCCESS")
    await kit.advance(timedelta(seconds=91))
    found = await polled(edge, asked)
    late = found["results"][1]

    assert (found["status"], found["status_code"]) == ("PARTIAL", 4)
    assert (late["status"], late["status_code"], late["response_text"]) == ("FAILED", 2, None)
    assert late["error_msg"]


# -- conversations ---------------------------------------------------------------------------


@pytest.mark.promise("AC-12", "AC-39", "AC-42", "AC-43")
async def test_a_conversation_goes_on_and_its_history_is_read_as_one_list(edge: Edge) -> None:
    one = await ask(edge, "first", BOTH, conversation_id="talk-1")
    await polled(edge, one)
    two = await ask(edge, "second", "gemini", conversation_id="talk-1")
    await polled(edge, two)
    history = (await edge.get(history_of(one))).json()

    assert one["conversation_id"] == two["conversation_id"] == "talk-1"
    assert [(each["role"], each["content"]) for each in history] == [
        ("user", "first"),
        ("assistant", "first"),
        ("assistant", "first"),
        ("user", "second"),
        ("assistant", "second"),
    ]
    assert {each["model"] for each in history[1:3]} == {"gemini-2.5-flash", "deepseek-r1:1.5b"}
    assert sorted(history[0]["model"].split(", ")) == sorted(BOTH.split(", "))
    assert [each["is_loading"] for each in history] == [False] * 5
    assert [each["files"] for each in history] == [[]] * 5
    newest = (await edge.get(f"{history_of(one)}?limit=2")).json()
    assert newest == history[-2:]


@pytest.mark.promise("AC-43", "AC-45")
async def test_who_is_still_answering_is_shown_as_thinking_and_failures_are_left_out(
    edge: Edge,
) -> None:
    asked = await ask(edge, "hello", "broken, slow, gemini")
    await until_status(edge, asked, 0, "FAILED")
    await until_status(edge, asked, 2, "SUCCESS")
    begun = await batch(edge, asked)
    history = (await edge.get(history_of(asked))).json()
    stopped = await edge.post(f"/v1/batches/{asked['batch_id']}/abort", {"reason": "enough"})
    ended = await polled(edge, asked)
    after = (await edge.get(history_of(asked))).json()

    assert (begun["status"], begun["status_code"]) == ("PROCESSING", 3)
    assert [(each["role"], each["content"], each["is_loading"]) for each in history] == [
        ("user", "hello", False),
        ("assistant", "hello", False),
        ("assistant", "thinking...", True),
    ]
    assert history[2]["model"] == "slow"
    assert stopped.status_code == 200
    assert len(stopped.json()["runs"]) == 1
    assert ended["status"] == "PARTIAL"
    assert [one["status"] for one in ended["results"]] == ["FAILED", "FAILED", "SUCCESS"]
    assert [each["content"] for each in after] == ["hello", "hello"]


async def test_a_form_may_wait_for_its_turn_or_be_the_end_of_what_is_going(edge: Edge) -> None:
    place: dict[str, Any] = {"conversation_id": "talk-2"}
    queue = {"X-Arriving": "queue"}
    going = await ask(edge, "first", "slow", **place)
    later = await ask(edge, "second", "gemini, deepseek", headers=queue, **place)
    waiting = await batch(edge, later)
    history = (await edge.get(history_of(later))).json()
    aborted = await edge.post(f"/v1/tasks/{later['task_ids'][0]}/abort", {})
    beside = await batch(edge, going)
    last = await ask(edge, "third", "gemini", headers={"X-Arriving": "interrupt"}, **place)
    ended = [await polled(edge, asked) for asked in (going, later, last)]
    wrong = await post(edge, "fourth", "gemini", headers={"X-Arriving": "later"}, **place)
    path, json = "/v1/conversations/talk-2/arriving", {"Content-Type": "application/json"}
    own = await edge.post(path, {"arriving": "queue"}, headers=json)
    odd = await edge.post(path, {"arriving": "later"}, headers=json)
    first = await ask(edge, "fifth", "slow", **place)
    after = await batch(edge, await ask(edge, "sixth", "gemini", **place))
    await edge.post(f"/v1/batches/{first['batch_id']}/abort", {})

    assert (waiting["status"], [one["status"] for one in waiting["results"]]) == (
        "PENDING",
        ["PENDING", "PENDING"],
    )
    assert [one["content"] for one in history if one["is_loading"]] == ["thinking..."] * 3
    assert aborted.json() == {"runs": [], "tasks": later["task_ids"][:1]}
    assert beside["status"] == "PROCESSING"
    assert [one["status"] for one in ended] == ["FAILED", "FAILED", "SUCCESS"]
    assert ended[2]["results"][0]["response_text"] == "first\n\nsecond\n\nthird"
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_parameter")
    assert "expected one of parallel, queue, interrupt" in wrong.json()["detail"]
    assert (own.status_code, own.json(), odd.status_code) == (200, {"arriving": "queue"}, 422)
    assert after["status"] == "PENDING"


@pytest.mark.promise("AC-44")
async def test_conversations_are_listed_the_one_that_changed_last_first(edge: Edge) -> None:
    for name, prompt in (("list-1", "one"), ("list-2", "two"), ("list-1", "three")):
        await polled(edge, await ask(edge, prompt, "gemini", conversation_id=name))
    listed = (await edge.get("/v1/conversations?limit=2")).json()["conversations"]
    many = await edge.get("/v1/conversations?limit=201")

    assert [each["conversation_id"] for each in listed] == ["list-1", "list-2"]
    assert [each["title"] for each in listed] == ["one", "two"]
    assert listed[0]["modified"] > listed[1]["modified"]
    assert (many.status_code, many.json()["code"]) == (400, "invalid_parameter")


@pytest.mark.promise("AC-41", "AC-44")
@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("batches/" + "0" * 32, "Batch ID not found"),
        ("batches/mail.*.%3E", "Batch ID not found"),
        ("tasks/" + "0" * 32 + "-1", "Task not found"),
        ("tasks/none", "Task not found"),
        ("conversations/none", "Conversation not found"),
        ("conversations/none/history", "Conversation not found"),
        ("conversations/none/events", "Conversation not found"),
    ],
)
async def test_what_is_unknown_is_told_so(edge: Edge, path: str, detail: str) -> None:
    found = await edge.get(f"/v1/{path}")

    assert found.status_code == 404
    assert found.json()["detail"] == detail


# -- stopping --------------------------------------------------------------------------------


async def test_a_task_or_all_of_a_conversation_can_be_stopped(edge: Edge) -> None:
    asked = await ask(edge, "hello", "slow, slower")
    one, other = asked["task_ids"]
    first = await edge.post(f"/v1/tasks/{one}/abort")
    rest = await edge.post(f"/v1/conversations/{asked['conversation_id']}/abort")
    again = await edge.post(f"/v1/conversations/{asked['conversation_id']}/abort")
    ended = await polled(edge, asked)
    unknown = await edge.post("/v1/conversations/none/abort")

    assert [len(each.json()["runs"]) for each in (first, rest, again)] == [1, 1, 0]
    assert ended["status"] == "FAILED"
    assert {each["task_id"] for each in ended["results"]} == {one, other}
    assert unknown.status_code == 404


# -- a model more ----------------------------------------------------------------------------


@pytest.mark.promise("AC-49")
async def test_a_new_model_is_one_table_more_while_everything_runs(
    kit: Kit, edge: Edge, tmp_path: Path
) -> None:
    before = await post(edge, "hello", "phi4-mini")
    done = await Hand(kit, tmp_path).deploy(PHI)
    found = await polled(edge, await ask(edge, "hello", "phi4-mini"))

    assert before.status_code == 422
    assert done.said[-1] == f"{kit.host.name} runs it"
    assert [one["response_text"] for one in found["results"]] == ["hello"]


@pytest.mark.promise("AC-01", "AC-03", "AC-06")
async def test_many_users_ask_many_models_at_once_and_a_slow_one_delays_nobody(edge: Edge) -> None:
    stuck = await ask(edge, "hello", "slow, slower")
    forms = [ask(edge, f"question {n}", BOTH, conversation_id=f"user-{n}") for n in range(50)]
    asked = await asyncio.gather(*forms)
    found = await asyncio.gather(*(polled(edge, one) for one in asked))
    slow = await batch(edge, stuck)
    await edge.post(f"/v1/batches/{stuck['batch_id']}/abort")

    for number, one in enumerate(found):
        assert {each["response_text"] for each in one["results"]} == {f"question {number}"}
    assert slow["status"] == "PROCESSING"
