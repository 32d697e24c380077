"""Mail and jobs that wait for half of their time raise an alarm, once for each oldest message."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from actors.child import Remote
from runtime.alarm import ALARMS
from runtime.deployments import seed_deployments
from runtime.system import System
from runtime.terminal.overview import read_nodes
from runtime.testing import Kit, running
from runtime.waiting import Vigil
from schemas.base import Address
from schemas.deployment import Deployment
from schemas.record import Alarm
from tests.integration.counter import HERE, Counter, Wake
from tests.integration.desk import Moody
from tests.integration.test_commands import callboard
from tests.integration.waiting import until_known

HALF = timedelta(hours=12, seconds=1)


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with running(counter=Counter, doubler=Moody, far=Remote) as kit:
        yield kit


async def command(kit: Kit, *words: str) -> None:
    done = await asyncio.to_thread(callboard, *words, url=kit.server.url)
    assert done.returncode == 0, done.stderr


async def pause(kit: Kit, actor: str) -> None:
    await command(kit, "pause", actor, "--reason", "lunch")

    async def stands_still() -> bool:
        return any(actor in node.paused for node in await read_nodes(kit.bus))

    await until_known(stands_still)


async def alarms(kit: Kit) -> list[Alarm]:
    """What the host raises when it looks, of what waits."""
    await kit.host.vigil.look()
    return [one for one in await kit.events(ALARMS, Alarm) if one.what.endswith(("waits", "wait"))]


async def test_mail_that_waits_for_half_its_time_is_alarmed_once(kit: Kit) -> None:
    await pause(kit, "counter")
    first = await kit.tell(HERE, Wake(text="one"))
    await kit.tell(HERE, Wake(text="two"))
    early = await alarms(kit)
    kit.clock.advance(HALF)
    raised = await alarms(kit)
    again = await alarms(kit)

    assert early == []
    assert [(one.what, one.actor, one.seq) for one in raised] == [("mail_waits", "counter", first)]
    assert again == raised
    assert "2 wait" in raised[0].detail
    assert "callboard resume counter" in raised[0].detail


async def test_another_host_does_not_say_it_again(kit: Kit) -> None:
    await pause(kit, "counter")
    await kit.tell(HERE, Wake(text="one"))
    kit.clock.advance(HALF)
    raised = await alarms(kit)
    await kit.stop_host()
    await kit.start_host()

    assert await alarms(kit) == raised
    assert len(raised) == 1


async def test_only_the_first_host_by_name_looks(kit: Kit) -> None:
    await pause(kit, "counter")
    await kit.tell(HERE, Wake(text="one"))
    kit.clock.advance(HALF)
    other = System(kit.bus, name="z", clock=kit.clock)
    await Vigil(other, kit.host.alarm).look()

    assert [one for one in await kit.events(ALARMS, Alarm) if one.seq] == []


async def test_another_message_is_alarmed_after_a_while(kit: Kit) -> None:
    await pause(kit, "counter")
    first = await kit.tell(HERE, Wake(text="one"))
    kit.clock.advance(HALF)
    await alarms(kit)
    await command(kit, "resume", "counter")
    await kit.settled()
    await pause(kit, "counter")
    second = await kit.tell(HERE, Wake(text="two"))
    soon = await alarms(kit)
    kit.clock.advance(timedelta(hours=3))
    later = await alarms(kit)

    assert [one.seq for one in soon] == [first]
    assert [one.seq for one in later] == [first, second]


async def test_jobs_that_no_remote_child_takes_are_alarmed(kit: Kit) -> None:
    ack = await kit.bus.publish("work.far.1.a", b"{}")
    kit.clock.advance(HALF)
    (raised,) = await alarms(kit)

    assert (raised.what, raised.actor, raised.seq) == ("jobs_wait", "far", ack.seq)
    assert "start its child" in raised.detail


async def test_mail_of_a_type_that_never_ran_is_alarmed(kit: Kit) -> None:
    ghost = Deployment(name="ghost", type="nowhere.at_all:Ghost", kind="keyed")
    await seed_deployments(kit.bus, [ghost])
    ack = await kit.bus.publish("mail.ghost.a", b"boo")

    async def stands_still() -> bool:
        return any("ghost" in node.paused for node in await read_nodes(kit.bus))

    await until_known(stands_still)
    kit.clock.advance(HALF)
    (raised,) = await alarms(kit)

    assert (raised.what, raised.actor, raised.seq) == ("mail_waits", "ghost", ack.seq)
    assert "It stands still" in raised.detail


async def test_what_was_put_aside_for_a_paused_key_is_alarmed(kit: Kit) -> None:
    await command(kit, "pause", "counter/a", "--reason", "lunch")
    first = await kit.tell(HERE, Wake(text="one"))

    async def put_aside() -> bool:
        record = await kit.record(HERE)
        return record is not None and record.parked == first

    await until_known(put_aside)
    await kit.tell(Address("counter", "b"), Wake(text="handled"))
    await kit.settled()
    kit.clock.advance(HALF)
    (raised,) = await alarms(kit)

    assert (raised.what, raised.actor, raised.seq) == ("mail_waits", "counter/a", first)
    assert "callboard resume counter/a" in raised.detail


async def test_a_host_looks_by_itself(kit: Kit) -> None:
    ack = await kit.bus.publish("work.far.1.a", b"{}")
    kit.clock.advance(HALF)
    looking = asyncio.create_task(kit.host.vigil.run(every=0.01))
    raised = await kit.event(ALARMS, Alarm)
    looking.cancel()

    assert raised.seq == ack.seq
