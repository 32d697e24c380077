"""A task's way from Send to its one end, whoever brings it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from actors.child import Child, Remote
from actors.limits import DEPTH_LIMIT, RESULT_LIMIT
from actors.master import MOST_ACKS, Master
from runtime.actor import read_options
from runtime.errors import ConfigError
from runtime.testing import Kit, running
from schemas.deployment import Deployment
from schemas.record import RunFailed
from schemas.relay import (
    LOG,
    Accepted,
    Acknowledge,
    Clear,
    Cleared,
    Executed,
    Logged,
    Send,
    Sent,
    TaskCompleted,
    TaskCreated,
    TaskFailed,
    task_topic,
)
from tests.integration.tasks import CALLABLE, call_back, ends, master, order, refusal, send, task


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master, child=(Child, CALLABLE), far=Remote) as kit:
        yield kit


# -- sending ----------------------------------------------------------------------------------


@pytest.mark.promise("CB-01", "CB-02", "CB-04", "CB-14", "CB-15")
async def test_a_task_is_done_by_its_child_and_completed(kit: Kit) -> None:
    sent = await send(kit, "t_1", "child", cmd="generate_brief", payload={"topic": "八字"})
    created = await kit.event(task_topic("t_1"), TaskCreated)
    completed = await kit.event(task_topic("t_1"), TaskCompleted)
    lines = await kit.events(LOG, Logged)

    assert sent == Sent(task_id="t_1")
    assert created.order.payload == {"topic": "八字"}
    assert completed == TaskCompleted(
        task_id="t_1", child_id="child", result={"brief": "A brief on 八字."}
    )
    assert (await task(kit, "t_1")).status == "completed"
    assert [(line.event, line.status) for line in lines] == [("send", ""), ("callback", "done")]


@pytest.mark.promise("CB-16")
async def test_an_order_may_have_text_and_no_payload(kit: Kit) -> None:
    await send(kit, "t_1", "child", cmd="test", text="请验证命盘")
    completed = await kit.event(task_topic("t_1"), TaskCompleted)

    assert completed.result == {"echo": None}
    assert (await task(kit, "t_1")).order.text == "请验证命盘"


@pytest.mark.parametrize("to", ["nobody", "master", "Child", "child.*", "", "孩子"])
async def test_a_task_for_a_child_that_is_not_deployed_is_refused(kit: Kit, to: str) -> None:
    refused = await refusal(send(kit, "t_1", to))

    assert (refused.code, refused.status) == ("unknown_child", 404)
    assert repr(to) in refused.detail
    assert (await kit.state(master("t_1"))).tasks == {}


@pytest.mark.promise("CB-20")
async def test_the_same_task_sent_again_gets_the_same_answer_and_one_job(kit: Kit) -> None:
    answers = [await send(kit, "mine", cmd="a", payload={"x": 1, "y": 2}) for _ in range(2)]
    answers.append(await send(kit, "mine", cmd="a", payload={"y": 2, "x": 1}))
    run = (await task(kit, "mine")).run

    assert answers == [Sent(task_id="mine")] * 3
    assert len(await kit.events(task_topic("mine"), TaskCreated)) == 1
    assert len(await kit.bus.lasts("work.>")) == 1
    assert run


@pytest.mark.promise("CB-33")
async def test_an_urgent_task_waits_in_another_line_than_a_patient_one(kit: Kit) -> None:
    for task_id, priority in (("t_0", 0), ("t_1", 1), ("t_2", 2)):
        await send(kit, task_id, priority=priority)
    lines = sorted(stored.subject for stored in await kit.bus.lasts("work.far.>"))

    assert lines == ["work.far.0.t_0", "work.far.1.t_1", "work.far.2.t_2"]


async def test_a_task_id_is_not_taken_for_another_order(kit: Kit) -> None:
    await send(kit, "t_1", payload={"n": 1})
    refused = await refusal(send(kit, "t_1", payload={"n": True}))

    assert (refused.code, refused.status) == ("task_exists", 409)
    assert (await task(kit, "t_1")).order.payload == {"n": 1}


async def test_a_task_goes_to_the_master_of_its_own_id(kit: Kit) -> None:
    message = Send(order=order(), task_id="t_2")
    refused = await refusal(kit.ask(master("t_1"), message))
    nameless = await refusal(kit.ask(master("t_1"), Send(order=order())))

    assert (refused.code, nameless.code) == ("bad_task_id", "bad_task_id")


@pytest.mark.promise("CB-09", "CB-12")
async def test_a_message_to_anybody_is_only_put_on_the_log(kit: Kit) -> None:
    message = Send(order=order("user", "message", text="你好"))
    sent = await kit.ask(master("made-up"), message)
    lines = await kit.events(LOG, Logged)

    assert sent == Sent(task_id=None)
    assert [(line.event, line.order) for line in lines] == [("send", message.order)]
    assert (await kit.state(master("made-up"))).tasks == {}


async def test_a_message_about_a_task_is_heard_where_the_task_is_followed(kit: Kit) -> None:
    await send(kit, "t_1")
    message = Send(order=order("user", "message", text="working on it"), task_id="t_1")
    sent = await kit.ask(master("t_1"), message)
    heard = await kit.event(task_topic("t_1"), Logged)

    assert sent == Sent(task_id="t_1")
    assert heard.order == message.order
    assert (await task(kit, "t_1")).status == "pending"


@pytest.mark.parametrize(
    ("wrong", "code", "status"),
    [
        ({"priority": 3}, "bad_priority", 422),
        ({"priority": -1}, "bad_priority", 422),
        ({"payload": "x" * 50_000}, "order_too_large", 413),
        ({"text": "字" * 17_000}, "order_too_large", 413),
        ({"cmd": "x" * 201}, "cmd_too_long", 422),
    ],
)
async def test_an_order_that_cannot_be_kept_is_refused(
    kit: Kit, wrong: dict[str, Any], code: str, status: int
) -> None:
    refused = await refusal(send(kit, "t_1", **wrong))

    assert (refused.code, refused.status) == (code, status)


async def test_a_payload_too_deep_to_be_read_again_is_refused(kit: Kit) -> None:
    deep: Any = {}
    for _ in range(DEPTH_LIMIT):
        deep = {"in": deep}
    refused = await refusal(send(kit, "t_1", payload={"in": deep}))
    accepted = await send(kit, "t_2", payload=deep["in"])

    assert (refused.code, refused.status) == ("payload_too_deep", 422)
    assert accepted == Sent(task_id="t_2")


# -- results of children on this host ---------------------------------------------------------


async def test_a_result_of_a_run_that_is_not_current_is_ignored(kit: Kit) -> None:
    await send(kit, "t_1")
    for message in (
        Executed(task_id="t_1", result={"old": True}),
        RunFailed(run="old", reason="x", attempts=1),
    ):
        await kit.tell(master("t_1"), message, runid="old")
    await kit.tell(master("t_1"), Executed(task_id="t_1", result={}))
    answer = await kit.ask(master("t_1"), Acknowledge(task_id="t_1"))

    assert answer == Accepted(task_status="pending")
    assert await ends(kit, "t_1") == []


async def test_a_result_too_large_to_be_kept_fails_the_task(kit: Kit) -> None:
    await send(kit, "t_1")
    run = (await task(kit, "t_1")).run
    large = Executed(task_id="t_1", result="x" * RESULT_LIMIT)
    await kit.tell(master("t_1"), large, runid=run)
    failed = await kit.event(task_topic("t_1"), TaskFailed)

    assert failed.reason.startswith("result_too_large")
    assert (await task(kit, "t_1")).result is None


async def sleep_for_ever(order: dict[str, Any]) -> None:
    await asyncio.Event().wait()


@pytest.mark.promise("CB-22")
async def test_a_child_that_never_answers_fails_its_task_once() -> None:
    stuck = Deployment(
        name="child",
        type="actors.child:Child",
        kind="worker",
        options={"kind": "callable", "call": f"{__name__}:sleep_for_ever"},
        deadline=timedelta(seconds=0.2),
        attempts=1,
    )
    async with running(master=Master, child=(Child, stuck)) as kit:
        await send(kit, "t_1", "child")
        failed = await kit.event(task_topic("t_1"), TaskFailed)
        letters = await kit.dead_letters()

        assert "no result within" in failed.reason
        assert await ends(kit, "t_1") == [failed]
        assert [letter.reason for letter in letters] == [failed.reason]


async def test_a_task_that_nobody_takes_fails_at_its_deadline(kit: Kit) -> None:
    await send(kit, "t_1")
    await kit.advance(timedelta(hours=24))
    failed = await kit.event(task_topic("t_1"), TaskFailed)
    late = await refusal(call_back(kit, "t_1", {"late": True}))

    assert failed.reason == "not done within 24h"
    assert (late.code, late.status) == ("already_final", 409)
    assert failed.reason in late.detail
    assert await ends(kit, "t_1") == [failed]


async def test_the_deadline_of_tasks_is_an_option() -> None:
    async with running(master=(Master, {"deadline": "10m"}), far=Remote) as kit:
        await send(kit, "t_1")
        await kit.advance(timedelta(minutes=10))
        failed = await kit.event(task_topic("t_1"), TaskFailed)

        assert failed.reason == "not done within 10m"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"attempts": 0}, "attempts = 0: expected 1 or more"),
        ({"deadline": "soon"}, "'soon' is not a duration"),
        ({"deadlin": "1h"}, "unknown field `deadlin`"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f'actor "master".*{problem}'):
        read_options(Master, "master", options)


@pytest.mark.promise("CB-04", "CB-38")
async def test_a_task_survives_its_host(kit: Kit) -> None:
    await send(kit, "t_1")
    before = await task(kit, "t_1")
    await kit.stop_host()
    await kit.start_host()
    accepted = await call_back(kit, "t_1", {"score": 0.85})
    after = await task(kit, "t_1")

    assert before.status == "pending"
    assert accepted == Accepted(task_status="completed")
    assert (after.status, after.result) == ("completed", {"score": 0.85})


# -- the log ----------------------------------------------------------------------------------


@pytest.mark.promise("CB-28")
async def test_acks_and_clearing_are_noted_on_the_log(kit: Kit) -> None:
    await send(kit, "t_1")
    for number in range(MOST_ACKS + 1):
        await kit.ask(master("t_1"), Acknowledge(task_id="t_1", ack_by=f"user{number}"))
    again = await kit.ask(master("t_1"), Acknowledge(task_id="t_1", ack_by="user0"))
    cleared = await kit.ask(master("c"), Clear(by="admin"))
    lines = await kit.events(LOG, Logged)

    assert again == Accepted(task_status="pending")
    assert cleared == Cleared()
    assert (await task(kit, "t_1")).acked_by == [f"user{n}" for n in range(MOST_ACKS)]
    assert [line.event for line in lines] == ["send", *["ack"] * (MOST_ACKS + 2), "clear"]
    assert lines[-1].by == "admin"


async def test_an_ack_of_an_unknown_task_is_refused(kit: Kit) -> None:
    refused = await refusal(kit.ask(master("t_1"), Acknowledge(task_id="t_1", ack_by="user")))

    assert (refused.code, refused.status) == ("task_not_found", 404)
