"""Reminders: durable, replaceable, and never mistaken for one another."""

from datetime import timedelta

from runtime.testing import running
from schemas import subjects
from tests.integration.counter import EVENTS, HERE, Counter, DropAlarm, SetAlarm, Wake


async def test_a_reminder_comes_when_it_is_due() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, SetAlarm(name="tea", text="tea is ready", seconds=3600))
        before = await kit.state(HERE)
        await kit.advance(timedelta(minutes=59))
        await kit.settled()
        early = await kit.state(HERE)
        await kit.advance(timedelta(minutes=1))
        await kit.event(EVENTS, Wake)
        after = await kit.state(HERE)

    assert before.said == early.said == []
    assert after.said == ["tea is ready"]


async def test_the_server_itself_brings_a_reminder() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, SetAlarm(name="tea", text="tea", seconds=0.2))
        heard = await kit.event(EVENTS, Wake)

    assert heard.text == "tea"


async def test_a_reminder_replaces_its_namesake_and_can_be_forgotten() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, SetAlarm(name="tea", text="old", seconds=60))
        await kit.ask(HERE, SetAlarm(name="tea", text="new", seconds=60))
        await kit.ask(HERE, SetAlarm(name="egg", text="egg", seconds=60))
        await kit.ask(HERE, DropAlarm(name="egg"))
        await kit.ask(HERE, DropAlarm(name="never set"))
        await kit.advance(timedelta(hours=1))
        await kit.event(EVENTS, Wake)
        await kit.settled()
        state = await kit.state(HERE)
        timers = await kit.bus.lasts("timer.>")

    assert state.said == ["new"]
    assert timers == []


async def test_a_reminder_that_is_on_its_way_when_it_is_forgotten_is_dropped() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, SetAlarm(name="tea", text="stale", seconds=60))
        stale = (await kit.bus.lasts("timer.>"))[0]
        await kit.ask(HERE, DropAlarm(name="tea"))
        await kit.ask(HERE, SetAlarm(name="tea", text="fresh", seconds=60))
        await kit.bus.publish(subjects.mail(HERE), stale.data)
        await kit.settled()
        state = await kit.state(HERE)

    assert state.said == []
