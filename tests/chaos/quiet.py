"""Waiting until nothing is left to be done anywhere."""

import asyncio

from runtime.bus import Bus
from runtime.errors import BusFault


async def until_quiet(bus: Bus, timeout: float) -> None:
    """Wait until nothing is left to be done; raises TimeoutError with what is."""
    left = "nothing was heard"
    try:
        async with asyncio.timeout(timeout):
            while True:
                left = await what_is_left(bus)
                if not left:
                    return
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise TimeoutError(f"not quiet within {timeout:g} s: {left}") from None


async def what_is_left(bus: Bus) -> str:
    """What is still to be done, in words; nothing if all is quiet."""
    try:
        before = await last_sequence(bus)
        timers = await bus.lasts("timer.>")
        answer = await bus.api(f"CONSUMER.LIST.{bus.stream}", {"offset": 0})
        after = await last_sequence(bus)
    except BusFault as fault:
        return f"the server does not answer: {fault}"
    waiting = [
        f"{one['name']}: {one['num_pending']} wait, {one['num_ack_pending']} are under way"
        for one in answer["consumers"]
        if one["num_pending"] or one["num_ack_pending"]
    ]
    waiting += [f"{name} has no leader" for name in answer.get("missing") or []]
    waiting += [f"{timer.subject} is to come" for timer in timers]
    # One of them may have become another while they were looked at.
    waiting += [f"message {after} has just come"] if after != before else []
    return "; ".join(waiting)


async def last_sequence(bus: Bus) -> int:
    """The sequence of the newest message that the stream has had."""
    info = await bus.api(f"STREAM.INFO.{bus.stream}")
    return int(info["state"]["last_seq"])
