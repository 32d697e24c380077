"""A remote child holds a task under a lease, which comes back when it is not heard of."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from actors.child import Remote
from actors.master import Master
from runtime.testing import Kit, running
from schemas.relay import (
    Accepted,
    Acknowledge,
    Extend,
    GiveBack,
    Leased,
    LeaseEnded,
    Status,
    TaskCompleted,
    TaskFailed,
    TaskProcessing,
    TaskReturned,
    task_topic,
)
from tests.integration.tasks import call_back, ends, master, refusal, send, take, task


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master, far=Remote) as kit:
        yield kit


async def extend(kit: Kit, task_id: str, lease: str, seconds: float = 60) -> Leased:
    message = Extend(task_id=task_id, lease=lease, seconds=seconds)
    return await kit.ask(master(task_id), message)


async def give_back(kit: Kit, task_id: str, lease: str, reason: str = "") -> Accepted:
    message = GiveBack(task_id=task_id, lease=lease, reason=reason)
    return await kit.ask(master(task_id), message)


async def heard(kit: Kit, task_id: str) -> Status:
    """Where the task stands once its master has applied all that came before this."""
    return (await kit.ask(master(task_id), Acknowledge(task_id=task_id))).task_status


@pytest.mark.promise("CB-27")
async def test_a_task_that_was_taken_is_in_processing(kit: Kit) -> None:
    await send(kit, "t_1", cmd="verify_chart", payload={"large": "x" * 40_000}, text="长")
    leased = await take(kit, "t_1", "c1", seconds=90)
    event = await kit.event(task_topic("t_1"), TaskProcessing)
    found = await task(kit, "t_1")

    assert (leased.task_id, leased.attempt, leased.order.cmd) == ("t_1", 1, "verify_chart")
    assert (leased.order.payload, leased.order.text) == (None, "")
    assert (event.child_id, event.attempt, event.until) == ("c1", 1, leased.until)
    assert found.status == "processing"
    assert found.lease is not None
    assert found.lease.id == leased.lease


async def test_a_task_is_taken_once(kit: Kit) -> None:
    await send(kit, "t_1")
    run = (await task(kit, "t_1")).run
    await take(kit, "t_1", "c1")
    codes = [(await refusal(take(kit, "t_1", child, run=run))).code for child in ("c1", "c2")]

    assert codes == ["not_available", "not_available"]


async def test_an_old_job_and_a_nameless_child_get_nothing(kit: Kit) -> None:
    await send(kit, "t_1")
    old = await refusal(take(kit, "t_1", run="another"))
    nameless = await refusal(take(kit, "t_1", ""))
    unknown = await refusal(take(kit, "t_2", run="any"))

    assert (old.code, old.status) == ("not_available", 409)
    assert (nameless.code, nameless.status) == ("child_id_missing", 400)
    assert (unknown.code, unknown.status) == ("task_not_found", 404)


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (-5, 1), (90, 90), (1e9, 3600)])
async def test_a_lease_is_of_a_second_to_an_hour(kit: Kit, asked: float, given: float) -> None:
    await send(kit, "t_1")
    await take(kit, "t_1", seconds=asked)
    lease = (await task(kit, "t_1")).lease

    assert lease is not None
    assert lease.seconds == given


@pytest.mark.promise("CB-05")
async def test_a_callback_under_the_lease_completes_the_task_and_ends_the_lease(kit: Kit) -> None:
    await send(kit, "t_1")
    leased = await take(kit, "t_1", "c1")
    before = await task(kit, "t_1")
    await call_back(kit, "t_1", {"n": 1}, child_id="", lease=leased.lease)
    await kit.advance(timedelta(days=2))
    await heard(kit, "t_1")
    found = await task(kit, "t_1")

    assert before.status == "processing"
    assert (found.status, found.lease) == ("completed", None)
    assert len(await ends(kit, "t_1")) == 1
    assert await kit.events(task_topic("t_1"), TaskReturned) == []


async def test_only_the_holder_of_a_lease_may_call_back(kit: Kit) -> None:
    await send(kit, "t_1")
    await take(kit, "t_1", "c1")
    refused = await refusal(call_back(kit, "t_1", {}, child_id="c2", lease="guessed"))
    accepted = await call_back(kit, "t_1", {}, child_id="c1")

    assert (refused.code, refused.status) == ("leased_by_another", 409)
    assert "'c1'" in refused.detail
    assert accepted == Accepted(task_status="completed")


async def test_a_lease_that_ends_sends_the_task_to_the_next(kit: Kit) -> None:
    await send(kit, "t_1")
    first = await take(kit, "t_1", "c1", seconds=30)
    run = (await task(kit, "t_1")).run
    await kit.advance(timedelta(seconds=30))
    returned = await kit.event(task_topic("t_1"), TaskReturned)
    found = await task(kit, "t_1")
    second = await take(kit, "t_1", "c2")

    assert returned.child_id == "c1"
    assert "30 s" in returned.reason
    assert (found.status, found.attempts, found.lease) == ("pending", 1, None)
    assert found.run != run
    assert (second.attempt, second.lease != first.lease) == (2, True)


async def test_what_came_too_late_is_still_taken_while_nobody_else_holds_the_task(
    kit: Kit,
) -> None:
    await send(kit, "t_1")
    leased = await take(kit, "t_1", "c1")
    await kit.advance(timedelta(seconds=60))
    await kit.event(task_topic("t_1"), TaskReturned)
    accepted = await call_back(kit, "t_1", {"late": True}, child_id="c1", lease=leased.lease)
    refused = await refusal(take(kit, "t_1", "c2"))

    assert accepted == Accepted(task_status="completed")
    assert refused.code == "not_available"


async def test_a_child_that_is_still_at_it_keeps_its_task(kit: Kit) -> None:
    await send(kit, "t_1")
    leased = await take(kit, "t_1", seconds=60)
    extended = await extend(kit, "t_1", leased.lease, 120)
    await kit.advance(timedelta(seconds=100))
    meanwhile = await heard(kit, "t_1")
    await kit.advance(timedelta(seconds=20))
    returned = await kit.event(task_topic("t_1"), TaskReturned)

    assert (extended.lease, extended.until > leased.until) == (leased.lease, True)
    assert meanwhile == "processing"
    assert "120 s" in returned.reason


async def test_a_lease_that_ended_can_neither_be_extended_nor_given_back(kit: Kit) -> None:
    await send(kit, "t_1")
    leased = await take(kit, "t_1")
    await give_back(kit, "t_1", leased.lease)
    refused = [
        await refusal(extend(kit, "t_1", leased.lease)),
        await refusal(give_back(kit, "t_1", leased.lease)),
    ]

    assert [(each.code, each.status) for each in refused] == [("lease_ended", 409)] * 2
    assert (await task(kit, "t_1")).attempts == 1


async def test_a_task_given_back_too_often_fails(kit: Kit) -> None:
    await send(kit, "t_1")
    answers = []
    for number in range(3):
        leased = await take(kit, "t_1", f"c{number}")
        answers.append(await give_back(kit, "t_1", leased.lease, "out of ink"))
    failed = await kit.event(task_topic("t_1"), TaskFailed)

    assert [answer.task_status for answer in answers] == ["pending", "pending", "failed"]
    assert failed.reason == "given up after 3 attempts: out of ink"
    assert failed.child_id == "c2"
    assert len(await kit.events(task_topic("t_1"), TaskReturned)) == 3
    assert await ends(kit, "t_1") == [failed]


async def test_the_number_of_attempts_is_an_option() -> None:
    async with running(master=(Master, {"attempts": 1}), far=Remote) as kit:
        await send(kit, "t_1")
        leased = await take(kit, "t_1")
        answer = await give_back(kit, "t_1", leased.lease)

        assert answer == Accepted(task_status="failed")


async def test_word_of_a_lease_that_was_replaced_is_ignored(kit: Kit) -> None:
    await send(kit, "t_1")
    leased = await take(kit, "t_1")
    await give_back(kit, "t_1", leased.lease)
    second = await take(kit, "t_1")
    await kit.tell(master("t_1"), LeaseEnded(task_id="t_1", lease=leased.lease))
    accepted = await call_back(kit, "t_1", {}, lease=second.lease)

    assert accepted == Accepted(task_status="completed")
    assert len(await kit.events(task_topic("t_1"), TaskReturned)) == 1
    assert len(await kit.events(task_topic("t_1"), TaskCompleted)) == 1


async def test_a_lease_outlives_the_host_that_gave_it(kit: Kit) -> None:
    await send(kit, "t_1")
    leased = await take(kit, "t_1")
    await kit.stop_host()
    await kit.start_host()
    extended = await extend(kit, "t_1", leased.lease)
    await kit.advance(timedelta(minutes=5))
    returned = await kit.event(task_topic("t_1"), TaskReturned)

    assert extended.lease == leased.lease
    assert returned.task_id == "t_1"


async def test_an_old_lease_is_refused_though_the_same_child_holds_the_task_again(kit: Kit) -> None:
    await send(kit, "t_1")
    first = await take(kit, "t_1", "far")
    await give_back(kit, "t_1", first.lease)
    second = await take(kit, "t_1", "far")
    old = await refusal(call_back(kit, "t_1", {"n": 1}, child_id="far", lease=first.lease))
    done = await call_back(kit, "t_1", {"n": 2}, child_id="other", lease=second.lease)

    assert (old.code, old.status) == ("leased_by_another", 409)
    assert done == Accepted(task_status="completed")


async def test_without_a_lease_the_holder_is_known_by_its_id(kit: Kit) -> None:
    await send(kit, "t_1")
    await take(kit, "t_1", "far")
    stranger = await refusal(call_back(kit, "t_1", child_id="other"))
    done = await call_back(kit, "t_1", child_id="far")

    assert stranger.code == "leased_by_another"
    assert done == Accepted(task_status="completed")
