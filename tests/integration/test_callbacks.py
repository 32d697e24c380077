"""Callbacks: the first end of a task wins, whoever brings it, and repeats do no harm."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.child import Child, Remote
from actors.limits import DEPTH_LIMIT, RESULT_LIMIT
from actors.master import Master
from runtime.errors import Refused
from runtime.run import decode_run
from runtime.testing import Kit, running
from schemas import subjects
from schemas.relay import LOG, Accepted, CallBack, Logged, TaskCompleted, TaskFailed, task_topic
from tests.integration.tasks import call_back, ends, master, refusal, send, take, task

RELEASED = threading.Event()


def wait_until_released(order: dict[str, Any]) -> dict[str, Any]:
    RELEASED.wait(10)
    return {"by": "the child on this host"}


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    RELEASED.clear()
    options = {"kind": "callable", "call": f"{__name__}:wait_until_released"}
    async with running(master=Master, child=(Child, options), far=Remote) as kit:
        yield kit
        RELEASED.set()


@pytest.mark.promise("CB-02", "CB-04", "CB-21", "CB-22")
async def test_a_child_that_reads_the_log_completes_its_task(kit: Kit) -> None:
    await send(kit, "t_1", cmd="verify_chart")
    result = {"summary": "命盘一致", "score": 0.85}
    accepted = await call_back(kit, "t_1", result)
    completed = await kit.event(task_topic("t_1"), TaskCompleted)
    line = (await kit.events(LOG, Logged))[-1]

    assert accepted == Accepted(task_status="completed")
    assert completed == TaskCompleted(task_id="t_1", child_id="child_bazi", result=result)
    assert (line.event, line.child_id, line.status) == ("callback", "child_bazi", "done")
    assert line.result == result


@pytest.mark.promise("CB-22")
@pytest.mark.parametrize("status", ["failed", "DONE", "", "done "])
async def test_any_status_but_done_fails_the_task(kit: Kit, status: str) -> None:
    await send(kit, "t_1")
    accepted = await call_back(kit, "t_1", {"error": "no chart"}, status=status)
    failed = await kit.event(task_topic("t_1"), TaskFailed)

    assert accepted == Accepted(task_status="failed")
    assert repr(status) in failed.reason
    assert failed.result == {"error": "no chart"}


@pytest.mark.parametrize("task_id", ["t_1", "t_1761141014541"])
async def test_a_callback_for_an_unknown_task_is_refused(kit: Kit, task_id: str) -> None:
    refused = await refusal(call_back(kit, task_id))

    assert (refused.code, refused.status) == ("task_not_found", 404)


async def test_a_callback_for_a_task_of_another_master_is_refused(kit: Kit) -> None:
    await send(kit, "t_1")
    refused = await refusal(kit.ask(master("t_2"), CallBack(task_id="t_1")))

    assert refused.code == "task_not_found"


async def test_the_same_callback_again_gets_the_same_answer_and_no_second_event(kit: Kit) -> None:
    await send(kit, "t_1")
    answers = [await call_back(kit, "t_1", {"a": 1, "b": 2})]
    answers.append(await call_back(kit, "t_1", {"b": 2, "a": 1}))

    assert answers == [Accepted(task_status="completed")] * 2
    assert len(await ends(kit, "t_1")) == 1
    assert len(await kit.events(LOG, Logged)) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"status": "failed", "result": {"n": 1}},
        {"result": {"n": True}},
        {"result": None},
        {"result": {"n": 1}, "child_id": "somebody else"},
    ],
)
async def test_another_callback_after_the_end_is_told_the_first(
    kit: Kit, other: dict[str, Any]
) -> None:
    await send(kit, "t_1")
    await call_back(kit, "t_1", {"n": 1})
    refused = await refusal(call_back(kit, "t_1", **other))

    assert (refused.code, refused.status) == ("already_final", 409)
    assert "completed" in refused.detail
    assert '{"n":1}' in refused.detail
    assert len(await ends(kit, "t_1")) == 1


async def test_a_failed_task_does_not_become_done(kit: Kit) -> None:
    await send(kit, "t_1")
    await call_back(kit, "t_1", {}, status="failed")
    refused = await refusal(call_back(kit, "t_1", {}))

    assert refused.code == "already_final"
    assert (await task(kit, "t_1")).status == "failed"


@pytest.mark.promise("CB-08")
async def test_of_many_callbacks_at_once_one_wins_and_the_others_are_told_its_result(
    kit: Kit,
) -> None:
    await send(kit, "t_1")
    offers = [call_back(kit, "t_1", {"n": n}, child_id=f"c{n}") for n in range(200)]
    outcomes = await asyncio.gather(*offers, return_exceptions=True)
    won = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Accepted)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, Refused)]

    assert len(won) == 1
    assert len(lost) == 199
    assert {refused.refusal.code for refused in lost} == {"already_final"}
    assert all(f'{{"n":{won[0]}}}' in refused.refusal.detail for refused in lost)
    assert (await task(kit, "t_1")).result == {"n": won[0]}
    assert len(await ends(kit, "t_1")) == 1


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    ("result", "code", "status"),
    [
        ("x" * RESULT_LIMIT, "result_too_large", 413),
        (nested(DEPTH_LIMIT + 1), "result_too_deep", 422),
        (nested(400), "result_too_deep", 422),
    ],
)
async def test_a_result_that_cannot_be_kept_changes_nothing(
    kit: Kit, result: Any, code: str, status: int
) -> None:
    await send(kit, "t_1")
    refused = await refusal(call_back(kit, "t_1", result))

    assert (refused.code, refused.status) == (code, status)
    assert (await task(kit, "t_1")).status == "pending"


async def test_the_largest_order_with_the_largest_result_is_kept(kit: Kit) -> None:
    await send(kit, "t_1", payload="x" * (48 * 1024 - 200))
    accepted = await call_back(kit, "t_1", "y" * (RESULT_LIMIT - 2))
    found = await task(kit, "t_1")

    assert accepted == Accepted(task_status="completed")
    assert len(found.result) == RESULT_LIMIT - 2


async def test_a_callback_before_the_task_was_taken_leaves_nothing_to_take(kit: Kit) -> None:
    await send(kit, "t_1")
    await call_back(kit, "t_1", {})
    refused = await refusal(take(kit, "t_1"))

    assert (refused.code, refused.status) == ("not_available", 409)


async def test_a_callback_stops_the_child_that_is_still_at_it(kit: Kit) -> None:
    await send(kit, "t_1", "child")
    run = (await task(kit, "t_1")).run
    accepted = await call_back(kit, "t_1", {"by": "somebody faster"})
    stopped = await kit.bus.last(subjects.run(run))
    RELEASED.set()
    await kit.settled()

    assert accepted == Accepted(task_status="completed")
    assert stopped is not None
    assert decode_run(stopped.data).state == "stopped"
    assert [end.result for end in await kit.events(task_topic("t_1"), TaskCompleted)] == [
        {"by": "somebody faster"}
    ]
