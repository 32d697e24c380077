"""A reminder that is set again at the moment when it comes is neither lost nor doubled."""

from datetime import timedelta

from runtime.testing import running
from runtime.turn import cancel
from schemas import subjects
from tests.integration.counter import EVENTS, HERE, Counter, SetAlarm, Wake


async def test_a_reminder_that_comes_does_not_take_its_successor_with_it() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, SetAlarm(name="tea", text="old", seconds=60))
        old = (await kit.bus.lasts("timer.>"))[0]
        await kit.ask(HERE, SetAlarm(name="tea", text="new", seconds=60))
        # The server says it like this, when it had begun before the new one was stored.
        await kit.bus.publish(subjects.mail(HERE), old.data, headers=cancel(old.subject))
        await kit.settled()
        left = await kit.bus.lasts("timer.>")
        await kit.advance(timedelta(hours=1))
        heard = await kit.event(EVENTS, Wake)

    assert len(left) == 1
    assert heard.text == "new"


async def test_a_turn_that_sends_nothing_else_still_cancels_what_it_replaces() -> None:
    async with running(counter=Counter) as kit:
        for text in ("first", "second", "third"):
            await kit.ask(HERE, SetAlarm(name="tea", text=text, seconds=60))
        left = await kit.bus.lasts("timer.>")

    assert len(left) == 1
    assert b"third" in left[0].data
