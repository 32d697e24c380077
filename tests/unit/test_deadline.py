"""One timer ends whatever takes too long, and nothing else."""

import asyncio

import pytest

from runtime.deadline import Deadline

FAR = 60.0


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def give_back(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def test_what_is_done_in_time_ends_with_its_own_result() -> None:
    assert await Deadline(FAR).keep(give_back(7)) == 7


async def test_what_takes_too_long_is_ended_and_so_is_what_began_later() -> None:
    deadline = Deadline(0.02)
    tasks = [asyncio.create_task(deadline.keep(wait_for_ever())) for _ in range(3)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(deadline.keep(wait_for_ever())))
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(one) for one in ended] == [TimeoutError] * 4


async def test_one_that_is_cancelled_by_somebody_else_is_not_taken_for_late() -> None:
    task = asyncio.create_task(Deadline(FAR).keep(wait_for_ever()))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_whose_deadline_passed_can_go_on_waiting() -> None:
    deadline = Deadline(0.01)

    async def try_twice() -> int:
        with pytest.raises(TimeoutError):
            await deadline.keep(wait_for_ever())
        return await Deadline(FAR).keep(give_back(1))

    task = asyncio.create_task(try_twice())
    async with asyncio.timeout(5):
        assert await task == 1
    assert task.cancelling() == 0


async def test_an_error_of_the_work_is_its_own() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Deadline(FAR).keep(fail())
