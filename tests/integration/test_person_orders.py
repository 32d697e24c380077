"""Functions that ask a person while they do an order, and persons that orders are sent to."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from actors.approval import Approval
from actors.child import Child
from actors.master import Master
from actors.person import ask_person, wait_for_person
from runtime.testing import Kit, running
from schemas.approval import APPROVAL, ApprovalAsked, Decide, Decided, approval_topic
from schemas.base import Address
from schemas.deployment import Deployment
from schemas.ownership import desk_topic
from schemas.relay import Task
from tests.integration.tasks import send
from tests.integration.waiting import until_known

pytestmark = pytest.mark.asyncio(loop_scope="module")

ended = threading.Event()


async def refund(order: dict[str, Any]) -> Any:
    """A tool that pays only what a person has allowed."""
    amount = order["payload"]["amount"]
    decided = await ask_person(f"Pay back {amount} EUR?", tool="refund", details=order["payload"])
    return {"paid": amount if decided.decision == "approved" else 0, "by": decided.by}


def refund_in_a_thread(order: dict[str, Any]) -> Any:
    try:
        decided = wait_for_person("Pay back?", seconds=60, choices=["all", "half"])
        return decided.answer
    finally:
        ended.set()


def child(call: str) -> tuple[type[Child], Deployment]:
    options = {"kind": "callable", "call": call if ":" in call else f"{__name__}:{call}"}
    fields: dict[str, Any] = {"options": options, "deadline": timedelta(hours=1), "attempts": 1}
    return Child, Deployment(name="child", type="-", kind="worker", **fields)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    children = {
        "refunds": child("refund"),
        "threads": child("refund_in_a_thread"),
        "colleague": child("actors.person:do_order"),
    }
    named = {
        name: (cls, Deployment(**{**_fields(one), "name": name}))
        for name, (cls, one) in children.items()
    }
    async with running(approval=Approval, master=Master, **named) as kit:
        yield kit


def _fields(deployment: Deployment) -> dict[str, Any]:
    return {name: getattr(deployment, name) for name in deployment.__struct_fields__}


async def end_of(kit: Kit, task_id: str) -> tuple[str, Any]:
    """How a task has ended, once it has: its result, or why it failed."""

    async def look() -> Task | None:
        found = (await kit.state(Address("master", task_id))).tasks[task_id]
        return found if found.status in ("completed", "failed") else None

    task = await until_known(look)
    return task.status, task.result if task.status == "completed" else task.reason


async def question(kit: Kit) -> ApprovalAsked:
    return await kit.event(desk_topic("support"), ApprovalAsked)


async def answer(kit: Kit, asked: ApprovalAsked, **given: Any) -> Decided:
    decide = Decide(**{"decision": "approved", "by": "ann", **given})
    return await kit.ask(Address(APPROVAL, asked.approval), decide)


async def test_a_tool_asks_a_person_and_does_what_they_allow(kit: Kit) -> None:
    await send(kit, "t_1", to="refunds", payload={"amount": 20})
    asked = await question(kit)
    await answer(kit, asked)
    status, result = await end_of(kit, "t_1")

    assert asked.ask.question == "Pay back 20 EUR?"
    assert (asked.ask.details, asked.ask.tool) == ({"amount": 20}, "refund")
    assert (status, result) == ("completed", {"paid": 20, "by": "ann"})


async def test_a_plain_function_waits_in_its_thread(kit: Kit) -> None:
    await send(kit, "t_2", to="threads")
    await answer(kit, await question(kit), decision="answered", answer="half")

    assert await end_of(kit, "t_2") == ("completed", "half")


async def test_a_thread_ends_with_its_attempt_and_the_next_one_waits_for_the_same(
    kit: Kit,
) -> None:
    ended.clear()
    await send(kit, "t_3", to="threads")
    asked = await question(kit)
    await kit.stop_host(grace=0)
    assert await asyncio.to_thread(ended.wait, 20)
    await kit.start_host()
    await answer(kit, asked, decision="answered", answer="all")

    assert await end_of(kit, "t_3") == ("completed", "all")
    assert len(await kit.events(approval_topic(asked.approval), ApprovalAsked)) == 1


async def test_a_person_does_an_order_as_any_child_does(kit: Kit) -> None:
    schema = {"type": "integer"}
    payload = {"question": "How many?", "answers": schema}
    await send(kit, "t_4", to="colleague", cmd="count", payload=payload)
    asked = await question(kit)
    await answer(kit, asked, decision="answered", answer=3)
    status, result = await end_of(kit, "t_4")

    assert (asked.ask.question, asked.ask.tool, asked.ask.answers) == ("How many?", "count", schema)
    assert (status, result) == ("completed", {"decision": "answered", "answer": 3, "by": "ann"})


async def test_an_order_that_a_person_denies_has_failed(kit: Kit) -> None:
    await send(kit, "t_5", to="colleague", text="Close the shop?")
    await answer(kit, await question(kit), decision="denied", note="not today")
    status, reason = await end_of(kit, "t_5")

    assert (status, reason) == ("failed", "denied: not today")


async def test_an_order_that_nobody_can_be_asked_is_refused_with_the_reason(kit: Kit) -> None:
    await send(kit, "t_6", to="colleague", payload={"seconds": "soon"})
    status, reason = await end_of(kit, "t_6")

    assert status == "failed"
    assert "bad_order: payload: Expected `float | null`, got `str` - at `$.seconds`" in reason


async def test_outside_of_an_order_there_is_nobody_to_ask() -> None:
    with pytest.raises(RuntimeError, match="only what does an order can ask"):
        wait_for_person("Well?")
