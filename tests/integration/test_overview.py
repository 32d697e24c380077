"""`callboard actors`: every type at a glance, and one key from close by."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from runtime.terminal.closeup import look_closely
from runtime.terminal.overview import look
from runtime.testing import Kit, running
from schemas.base import Address
from tests.integration.counter import HERE, Counter, Fail, Get, SetAlarm, Wake, failures
from tests.integration.desk import Moody, fail
from tests.integration.test_commands import callboard
from tests.integration.waiting import until_known


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    failures.clear()
    async with running(counter=Counter, doubler=Moody) as kit:
        yield kit


async def show(kit: Kit, *words: str) -> Any:
    done = await asyncio.to_thread(callboard, "actors", *words, "--json", url=kit.server.url)
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout)


async def test_a_type_is_shown_with_its_owners_and_what_waits(kit: Kit) -> None:
    await kit.ask(HERE, Get())
    await until_known(lambda: owned(kit))
    name = kit.host.name
    await kit.stop_host()
    await kit.tell(HERE, Wake(text="one"))
    await kit.tell(HERE, Wake(text="two"))
    facts = await show(kit)
    counter = next(one for one in facts["actors"] if one["name"] == "counter")
    await kit.start_host()

    assert counter["waiting"] == 2
    assert counter["oldest_seconds"] >= 0
    assert counter["hosts"] == {}
    assert kit.host.name != name


async def owned(kit: Kit) -> bool:
    overview = await look(kit.bus)
    return any(node.owned.get("counter") for node in overview.nodes)


async def test_owners_are_named_with_their_shards(kit: Kit) -> None:
    await kit.ask(HERE, Get())
    await until_known(lambda: owned(kit))
    lines = (await look(kit.bus)).lines()
    counter = next(line for line in lines if line.startswith("counter"))

    assert f"{kit.host.name} [" in counter


async def test_keys_that_fail_and_keys_that_are_paused_are_named(kit: Kit) -> None:
    kit.host.system.first_backoff = 5.0
    asking = asyncio.create_task(kit.ask(HERE, Fail(times=4)))
    await asyncio.to_thread(
        callboard, "pause", "counter/b", "--reason", "x\x1b[2J", url=kit.server.url
    )
    await kit.tell(Address("counter", "b"), Wake(text="one"))

    async def told() -> list[str] | None:
        lines = (await look(kit.bus)).lines()
        wanted = ("message 1 failed 1 times", "counter/b: paused by")
        return lines if all(any(each in line for line in lines) for each in wanted) else None

    lines = await until_known(told)
    asking.cancel()

    assert any("1 waiting" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


async def test_one_key_is_shown_from_close_by(kit: Kit) -> None:
    await kit.ask(HERE, SetAlarm(name="tea", text="ring", seconds=3600))
    letter = await fail(kit)
    await asyncio.to_thread(callboard, "pause", "counter/a", url=kit.server.url)
    await kit.tell(HERE, Wake(text="one"))

    async def put_aside() -> bool:
        record = await kit.record(HERE)
        return record is not None and record.parked > 0

    await until_known(put_aside)
    facts = await show(kit, "counter/a")
    shown = await asyncio.to_thread(callboard, "actors", "counter/a", url=kit.server.url)

    assert facts["waiting"] == 1
    assert facts["messages"][0]["type"] == "counter.wake"
    assert facts["paused"].startswith("paused by")
    assert [one["name"] for one in facts["reminders"]] == ["tea"]
    assert [one["letter"] for one in facts["dead_letters"]] == [letter]
    assert facts["state"]["bytes"] > 0
    assert "1 waiting" in shown.stdout
    assert "reminder tea in 59m" in shown.stdout


async def test_a_key_that_never_was_is_shown_as_such(kit: Kit) -> None:
    facts = await look_closely(kit.bus, Address("counter", "nobody"))

    assert facts["state"] is None
    assert facts["waiting"] == 0


@pytest.mark.parametrize(
    ("address", "complaint"), [("nobody/x", "is deployed"), ("doubler/x", "keeps nothing by key")]
)
async def test_what_has_no_keys_is_said(kit: Kit, address: str, complaint: str) -> None:
    done = await asyncio.to_thread(callboard, "actors", address, url=kit.server.url)

    assert done.returncode == 1
    assert complaint in done.stderr
