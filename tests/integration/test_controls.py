"""One key under an operator's hands: paused, resumed, skipped, killed; and whole types."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from runtime.controls import Controls
from runtime.errors import AskTimeout
from runtime.testing import Kit, running
from schemas.base import Address, Topic
from schemas.control import Control
from schemas.record import Audited
from tests.integration.counter import (
    HERE,
    Add,
    Counter,
    CounterState,
    Fail,
    Get,
    SetAlarm,
    StartTwice,
    Wake,
    failures,
)
from tests.integration.desk import Moody, moods
from tests.integration.test_commands import callboard
from tests.integration.waiting import until_known

AUDIT = Topic("system", "audit")
THERE = Address("counter", "b")


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    failures.clear()
    moods.clear()
    async with running(counter=Counter, doubler=Moody) as kit:
        yield kit


async def do(kit: Kit, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command beside the host of this process, which has something to do for it."""
    return await asyncio.to_thread(callboard, *words, url=kit.server.url)


async def parked(kit: Kit, upto: int, address: Address = HERE) -> None:
    """Wait until messages were put aside, up to one."""

    async def look() -> bool:
        record = await kit.record(address)
        return record is not None and record.parked >= upto

    await until_known(look)


async def said(kit: Kit, address: Address = HERE) -> list[str]:
    return (await kit.ask(address, Get())).said


async def words_of(kit: Kit) -> list[str]:
    state = await kit.state(HERE)
    assert isinstance(state, CounterState)
    return state.said


async def heard(kit: Kit, words: list[str]) -> None:
    """Wait until an actor has heard as many words, and check that it is these."""

    async def look() -> bool:
        return len((await kit.state(HERE)).said) >= len(words)

    await until_known(look)

    assert (await kit.state(HERE)).said == words


async def write(kit: Kit, *words: str, address: Address = HERE) -> int:
    """Send words to an actor; the sequence of the last."""
    return [await kit.tell(address, Wake(text=word)) for word in words][-1]


async def test_what_is_sent_to_a_paused_key_waits_and_others_go_on(kit: Kit) -> None:
    await write(kit, "one")
    await kit.settled()
    paused = await do(kit, "pause", "counter/a", "--reason", "looking into it")
    await parked(kit, await write(kit, "two", "three"))
    await kit.settled()  # nothing is held: the broker has nothing in hand either
    with pytest.raises(AskTimeout):
        await kit.ask(HERE, Get(), timeout=0.3)
    other = await kit.ask(THERE, Get())
    waiting = (await kit.state(HERE)).said
    resumed = await do(kit, "resume", "counter/a")

    assert paused.returncode == resumed.returncode == 0
    assert other.n == 0
    assert waiting == ["one"]
    assert "done" in resumed.stdout
    assert await said(kit) == ["one", "two", "three"]


async def test_a_pause_outlives_its_host(kit: Kit) -> None:
    await do(kit, "pause", "counter/a")
    await write(kit, "one")
    await kit.stop_host()
    await write(kit, "two")
    await kit.start_host()
    await parked(kit, await write(kit, "three"))
    await do(kit, "resume", "counter/a")

    assert await said(kit) == ["one", "two", "three"]


async def test_a_key_that_was_resumed_while_no_host_was_there_goes_on(kit: Kit) -> None:
    await do(kit, "pause", "counter/a")
    await parked(kit, await write(kit, "one", "two"))
    await kit.stop_host()
    resumed = await do(kit, "resume", "counter/a")
    await kit.start_host()

    async def look() -> bool:
        return await words_of(kit) == ["one", "two"]

    assert "not done yet" in resumed.stdout
    assert await until_known(look)


async def test_many_messages_of_a_paused_key_hold_up_nobody(kit: Kit) -> None:
    await do(kit, "pause", "counter/a")
    sent: list[tuple[int, str]] = []
    for start in range(0, 3000, 100):
        words = [str(n) for n in range(start, start + 100)]
        batch = await asyncio.gather(*(kit.tell(HERE, Wake(text=word)) for word in words))
        sent += zip(batch, words, strict=True)
    await parked(kit, max(sent)[0])
    for n in range(40):  # of every shard
        await kit.ask(Address("counter", f"k{n}"), Add(n=1))
    await do(kit, "resume", "counter/a")
    await heard(kit, [word for _, word in sorted(sent)])


async def test_whoever_catches_up_may_be_ended_anywhere(kit: Kit) -> None:
    await do(kit, "pause", "counter/a")
    await parked(kit, await write(kit, *(f"{n}" for n in range(500))))
    await kit.stop_host()
    await do(kit, "resume", "counter/a")
    for _ in range(5):
        await kit.start_host()
        before = len((await kit.state(HERE)).said)

        async def went_on(before: int = before) -> bool:
            return len((await kit.state(HERE)).said) > before

        with contextlib.suppress(TimeoutError):  # it may be through
            await until_known(went_on, timeout=0.5)
        await kit.stop_host(grace=0)
    await kit.start_host()
    await heard(kit, [f"{n}" for n in range(500)])


async def test_a_paused_message_is_tried_anew(kit: Kit) -> None:
    kit.host.system.first_backoff = 0.2
    asking = asyncio.create_task(kit.ask(HERE, Fail(times=4)))
    await until_known(lambda: _failing(kit))
    await do(kit, "pause", "counter/a")
    await parked(kit, 1)
    asking.cancel()
    failures["a"] = 0
    kit.host.system.first_backoff = 0.001
    await do(kit, "resume", "counter/a")

    assert (await kit.ask(HERE, Get())).n == 1000
    assert await kit.dead_letters() == []


async def _failing(kit: Kit) -> bool:
    return bool(kit.host.system.failing)


async def test_the_first_message_is_skipped_as_a_dead_letter(kit: Kit) -> None:
    await do(kit, "pause", "counter/a")
    await parked(kit, await write(kit, "one", "two", "three"))
    skipped = await do(kit, "skip", "counter/a")
    state = (await kit.state(HERE)).said
    await do(kit, "resume", "counter/a")
    letters = await kit.dead_letters()

    assert skipped.returncode == 0
    assert "done" in skipped.stdout
    assert state == []
    assert await said(kit) == ["two", "three"]
    assert [one.attempts for one in letters] == [0]
    assert letters[0].reason.startswith("skipped by")


async def test_a_message_further_back_is_skipped_when_it_comes(kit: Kit) -> None:
    await do(kit, "pause", "counter/a")
    await write(kit, "one")
    second = await write(kit, "two")
    await parked(kit, await write(kit, "three"))
    await do(kit, "skip", "counter/a", "--seq", second)
    await do(kit, "resume", "counter/a")

    assert await said(kit) == ["one", "three"]


async def test_a_message_that_fails_is_skipped(kit: Kit) -> None:
    kit.host.system.first_backoff = 0.3
    asking = asyncio.create_task(kit.ask(HERE, Fail(times=5)))
    await until_known(lambda: _failing(kit))
    skipped = await do(kit, "skip", "counter/a")
    with pytest.raises(Exception, match="handler_failed"):
        await asking

    assert skipped.returncode == 0
    assert (await kit.dead_letters())[0].reason.startswith("skipped by")
    assert kit.host.system.failing == {}


async def test_a_killed_instance_starts_afresh_without_what_waited(kit: Kit) -> None:
    await write(kit, "one")
    await kit.ask(HERE, SetAlarm(name="x", text="ring", seconds=60))
    await do(kit, "pause", "counter/a")
    await parked(kit, await write(kit, "two", "three"))
    refused = await do(kit, "kill", "counter/a")
    killed = await do(kit, "kill", "counter/a", "--yes")
    await do(kit, "resume", "counter/a")
    scheduled = await kit.bus.lasts("timer.>")
    await kit.advance(timedelta(minutes=2))
    await write(kit, "four")
    letters = await kit.dead_letters()
    record = await kit.record(HERE)
    assert record is not None

    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    assert "done" in killed.stdout
    assert await said(kit) == ["four"]
    assert record.timers == {}
    assert scheduled == []
    assert len(letters) == 2
    assert all("its instance was killed by" in one.reason for one in letters)


async def test_an_instance_is_killed_each_time_it_is_said_and_only_then(kit: Kit) -> None:
    for word in ("one", "two"):
        await write(kit, word)
        await do(kit, "kill", "counter/a", "--yes")
    await kit.stop_host()
    await kit.start_host()
    await write(kit, "three")

    assert await said(kit) == ["three"]


async def test_an_instance_that_never_was_may_be_killed(kit: Kit) -> None:
    killed = await do(kit, "kill", "counter/nobody", "--yes")

    assert "done" in killed.stdout
    assert (await kit.ask(Address("counter", "nobody"), Get())).n == 0


async def test_a_state_nobody_can_read_is_killed_and_its_type_goes_on(kit: Kit) -> None:
    await kit.ask(HERE, Add(n=1))
    record = await kit.record(HERE)
    assert record is not None
    await kit.bus.publish(
        "state.counter.a",
        b'{"stream":"%s","done":%d,"key":"a","data":{"n":"none"}}'
        % (record.stream.encode(), record.done),
        headers={"Nats-Rollup": "sub"},
    )
    await kit.stop_host()
    await kit.start_host()
    with pytest.raises(AskTimeout):
        await kit.ask(HERE, Get(), timeout=0.3)
    await until_known(lambda: _stands_still(kit))
    killed = await do(kit, "kill", "counter/a", "--yes")
    await do(kit, "resume", "counter")

    assert "done" in killed.stdout
    assert (await kit.ask(HERE, Get())).n == 0
    assert (await kit.ask(THERE, Get())).n == 0
    assert kit.host.paused == {}


async def _stands_still(kit: Kit) -> bool:
    return "counter" in kit.host.paused


@pytest.mark.parametrize("actor", ["counter", "doubler"])
async def test_a_whole_type_is_paused_and_goes_on(kit: Kit, actor: str) -> None:
    await kit.ask(HERE, Get())
    paused = await do(kit, "pause", actor, "--reason", "maintenance")
    await until_known(lambda: _is_paused(kit, actor))
    reason = kit.host.paused[actor]
    await kit.tell(HERE, StartTwice())
    await kit.tell(THERE, Wake(text="one"))
    shown = (await do(kit, "actors")).stdout
    resumed = await do(kit, "resume", actor)
    await kit.settled()

    async def doubled() -> bool:
        return await words_of(kit) == ["doubled 42"]

    assert (paused.returncode, resumed.returncode) == (0, 0)
    assert "maintenance" in reason
    assert "paused" in shown
    assert await until_known(doubled)
    assert await said(kit, THERE) == ["one"]


async def _is_paused(kit: Kit, actor: str) -> bool:
    return actor in kit.host.paused


async def test_what_was_said_is_forgotten_once_it_is_done(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.controls.KEPT", 0.0)
    await do(kit, "pause", "counter/a")
    await parked(kit, await write(kit, "one"))
    await do(kit, "resume", "counter/a")
    await said(kit)
    kit.host.system.controls.stir()

    async def forgotten() -> bool:
        controls = Controls(kit.bus)
        await controls.read()
        return not controls.keys

    assert await until_known(forgotten)


async def test_what_operators_do_is_kept_with_who_did_it(kit: Kit) -> None:
    for words in (("pause", "counter/a"), ("resume", "counter/a"), ("kill", "counter/a", "--yes")):
        await do(kit, *words)
    kept = [await kit.event(AUDIT, Audited) for _ in range(3)]

    assert [one.action for one in kept] == ["pause", "resume", "kill"]
    assert {one.target for one in kept} == {"counter/a"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("pause", "nobody/x"), "no actor 'nobody' is deployed"),
        (("pause", "doubler/x"), "pause all of it"),
        (("pause", "counter/"), "expected actor/key"),
        (("skip", "counter"), "expected actor/key, for example counter/k1"),
        (("skip", "counter/a"), "nothing waits for 'counter/a'"),
        (("skip", "counter/a", "--seq", "9999"), "message 9999 does not wait"),
        (("kill", "doubler/x", "--yes"), "callboard run stop"),
        (("run", "stop", "none"), "there is no run 'none'"),
    ],
)
async def test_what_cannot_be_done_is_said(
    kit: Kit, words: tuple[str, ...], complaint: str
) -> None:
    done = await do(kit, *words)

    assert done.returncode == 1
    assert complaint in done.stderr


async def test_a_stopped_run_ends_and_its_sender_is_told(kit: Kit) -> None:
    await do(kit, "pause", "doubler")
    await until_known(lambda: _is_paused(kit, "doubler"))
    await kit.ask(HERE, StartTwice())
    stored = [one for one in await kit.bus.lasts("run.*") if b"stopped" not in one.data]
    run = stored[0].subject.removeprefix("run.")
    stopped = await do(kit, "run", "stop", run, "--reason", "not needed")
    again = await do(kit, "run", "stop", run)
    shown = await do(kit, "run", "show", run)
    await do(kit, "resume", "doubler")
    await kit.settled()
    heard = await said(kit)

    assert stopped.returncode == 0
    assert "was stopped before" in again.stdout
    assert "job:      doubler/a" in shown.stdout
    assert len(heard) == 1
    assert heard[0].endswith(": not needed")


def test_a_control_says_why() -> None:
    control: Any = Control(address="a/b", paused=True, by="ada@desk", reason="x")

    assert control.says == "paused by ada@desk: x"
