"""A host follows what is deployed while it runs, and nothing is lost or doubled by it."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from runtime.alarm import ALARMS
from runtime.bus import Bus
from runtime.deployments import KEY
from runtime.errors import AskTimeout
from runtime.kv import Bucket
from runtime.terminal.overview import read_nodes
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.deployment import Deployment
from schemas.node import Node
from schemas.record import Alarm
from tests.chaos.processes import Process
from tests.integration.rosters import (
    AdderState,
    Order,
    Put,
    Seen,
    Sum,
    Weigher,
    adder,
    deploy,
    followed,
    weigher,
)
from tests.integration.waiting import until, until_known

A = Address("adder", "a")
KEYS = [Address("adder", f"k{n}") for n in range(8)]


@pytest.fixture(autouse=True)
async def weigher_is_fresh() -> None:
    Weigher.reset()


async def change(kit: Kit, *deployments: Deployment, remove: str = "") -> None:
    """Deploy, and wait until the host runs it."""
    await followed(kit.host, await deploy(kit.bus, *deployments, remove=remove))


async def units(kit: Kit, count: int) -> list[tuple[int, str]]:
    """What was weighed, once there is so much of it."""

    async def look() -> list[tuple[int, str]] | None:
        record = await kit.record(A)
        data = record.data if record else b"{}"
        weighed = msgspec.json.decode(data, type=AdderState).weighed
        return [(w.number, w.unit) for w in weighed] if len(weighed) >= count else None

    return await until_known(look)


async def paused(kit: Kit, name: str) -> str:
    """Why a type stands still, as the host tells everybody."""

    async def look() -> str | None:
        return next((n.paused[name] for n in await read_nodes(kit.bus) if name in n.paused), None)

    return await until_known(look)


async def test_a_type_that_is_added_is_run_at_once() -> None:
    async with running() as kit:
        await change(kit, adder(5))
        answer = await kit.ask(A, Put())
        node = await until_known(lambda: host_at(kit.bus, kit.host.revision))

    assert answer == Sum(n=5, count=1)
    assert node.actors == ["adder"]


async def host_at(bus: Bus, revision: int) -> Node | None:
    return next((node for node in await read_nodes(bus) if node.revision == revision), None)


async def test_options_class_and_name_may_change_and_the_state_stays() -> None:
    async with running() as kit:
        await change(kit, adder())
        await kit.ask(A, Put())
        await change(kit, adder(10))
        more = await kit.ask(A, Put())
        await change(kit, adder(3, cls="Subtracter"))
        less = await kit.ask(A, Put())

    assert (more, less) == (Sum(n=11, count=2), Sum(n=8, count=3))


async def test_under_load_no_message_is_lost_doubled_or_held_up_by_changes() -> None:
    async with running() as kit:
        await change(kit, adder())
        stop = asyncio.Event()

        async def load(address: Address) -> int:
            sent = 0
            while not stop.is_set():
                await kit.ask(address, Put())
                sent += 1
            return sent

        loads = [asyncio.create_task(load(address)) for address in KEYS]
        for step in range(2, 12):
            await change(kit, adder(step, cls=("Adder", "Subtracter")[step % 2]))
        stop.set()
        sent = await asyncio.gather(*loads)
        counts = [(await kit.ask(address, Seen())).count for address in KEYS]

    assert counts == sent
    assert min(sent) > 0


async def test_what_waits_for_a_removed_type_is_handled_when_it_is_deployed_again() -> None:
    async with running() as kit:
        await change(kit, adder())
        await kit.ask(A, Put())
        await change(kit, remove="adder")
        for _ in range(5):
            await kit.tell(A, Put())
        with pytest.raises(AskTimeout):
            await kit.ask(A, Put(), timeout=0.3)
        ran = "adder" in kit.host.shards
        await change(kit, adder(100))
        answer = await kit.ask(A, Put())

    assert not ran
    assert answer == Sum(n=1 + 7 * 100, count=8)


async def test_removed_and_added_under_load_no_message_is_lost_or_doubled() -> None:
    async with running() as kit:
        await change(kit, adder())
        stop = asyncio.Event()

        async def load(address: Address) -> int:
            sent = 0
            while not stop.is_set():
                await kit.tell(address, Put())
                sent += 1
            return sent

        loads = [asyncio.create_task(load(address)) for address in KEYS]
        for _ in range(4):
            await change(kit, remove="adder")
            await change(kit, adder(1))
        stop.set()
        sent = await asyncio.gather(*loads)
        counts = [(await kit.ask(address, Seen())).count for address in KEYS]

    assert counts == sent


async def test_a_worker_ends_its_jobs_as_they_began_and_takes_new_ones_as_it_is_deployed() -> None:
    async with running() as kit:
        await change(kit, adder())
        await change(kit, weigher("g", concurrency=2))
        await kit.ask(A, Order(number=1, held=True))
        await until(lambda: Weigher.begun == [1])
        await change(kit, weigher("kg", concurrency=2))
        await kit.ask(A, Order(number=2))
        first = await units(kit, 1)
        stopped_early = list(Weigher.stopped)
        Weigher.release.set()
        both = await units(kit, 2)
        await until(lambda: Weigher.stopped)

    assert first == [(2, "kg")]
    assert both == [(2, "kg"), (1, "g")]
    assert stopped_early == []
    assert Weigher.stopped[0] == "g"
    assert Weigher.begun == [1, 2]


async def test_jobs_are_done_once_each_while_their_worker_changes_again_and_again() -> None:
    async with running() as kit:
        await change(kit, adder())
        await change(kit, weigher("0", concurrency=4))
        ordered = 0
        for n in range(1, 9):
            for _ in range(20):
                await kit.ask(A, Order(number=ordered))
                ordered += 1
            await change(kit, weigher(str(n), concurrency=4))
        done = await units(kit, ordered)

    assert sorted(number for number, _ in done) == list(range(ordered))
    assert sorted(Weigher.begun) == list(range(ordered))


async def test_a_removed_workers_job_ends_and_those_that_wait_are_done_when_it_is_back() -> None:
    async with running() as kit:
        await change(kit, adder())
        await change(kit, weigher("g", concurrency=1))
        await kit.ask(A, Order(number=1, held=True))
        await kit.ask(A, Order(number=2))
        await until(lambda: Weigher.begun == [1])
        await change(kit, remove="weigher")
        Weigher.release.set()
        ended = await units(kit, 1)
        await change(kit, weigher("kg"))
        both = await units(kit, 2)

    assert ended == [(1, "g")]
    assert both == [(1, "g"), (2, "kg")]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Deployment(name="bad", type="no.such:Thing", kind="keyed"), "No module named 'no'"),
        (Deployment(name="bad", type="tests.integration.rosters:None_", kind="keyed"), "None_"),
        (adder(name="bad", step="x"), "Expected `int`, got `str`"),  # type: ignore[arg-type]  # on purpose
        (
            Deployment(name="bad", type="tests.integration.rosters:Adder", kind="worker"),
            "is keyed here, but was deployed as worker",
        ),
    ],
)
async def test_what_cannot_be_run_stands_still_with_an_alarm_and_the_rest_goes_on(
    bad: Deployment, said: str
) -> None:
    async with running() as kit:
        await change(kit, bad, adder(2))
        reason = await paused(kit, "bad")
        alarm = await kit.event(ALARMS, Alarm)
        answer = await kit.ask(A, Put())
        await change(kit, adder(7, name="bad"))
        mended = await kit.ask(Address("bad", "a"), Put())

    assert said in reason
    assert alarm.what == "type_not_run"
    assert said in alarm.detail
    assert answer == Sum(n=2, count=1)
    assert mended == Sum(n=7, count=1)
    assert kit.host.paused == {}


async def test_a_worker_that_fails_to_start_stands_still_until_it_is_deployed_right() -> None:
    async with running() as kit:
        await change(kit, adder())
        await change(kit, weigher("g"))
        await change(kit, weigher("kg", broken="no scales"))
        reason = await paused(kit, "weigher")
        await kit.ask(A, Order(number=1))
        await change(kit, weigher("t"))
        done = await units(kit, 1)

    assert reason == "OSError: no scales"
    assert done == [(1, "t")]


async def test_a_host_starts_although_a_live_deployment_cannot_be_loaded() -> None:
    async with running() as kit:
        await change(kit, adder())
        await kit.stop_host()
        await deploy(kit.bus, Deployment(name="bad", type="no.such:Thing", kind="keyed"))
        await kit.start_host()
        answer = await kit.ask(A, Put())

    assert answer == Sum(n=1, count=1)
    assert "bad" in kit.host.paused


async def test_of_many_changes_at_once_the_last_is_run() -> None:
    async with running() as kit:
        rosters = [await deploy(kit.bus, adder(step)) for step in range(1, 30)]
        await followed(kit.host, rosters[-1])
        answer = await kit.ask(A, Put())

    assert answer == Sum(n=29, count=1)


async def test_a_roster_nobody_can_read_or_that_is_gone_changes_nothing() -> None:
    async with running() as kit:
        await change(kit, adder(5))
        bucket = Bucket(kit.bus, "config")
        await bucket.put(KEY, b"not a roster")
        first = await kit.ask(A, Put())
        await bucket.delete(KEY)
        second = await kit.ask(A, Put())
        await deploy(kit.bus, adder(1))
        await until(lambda: kit.host.shards["adder"][0].kind.options.step == 1)

    assert (first, second) == (Sum(n=5, count=1), Sum(n=10, count=2))


async def test_a_kind_may_change_under_a_name_that_nothing_waits_for() -> None:
    async with running() as kit:
        await change(kit, adder(1, name="weigher"), adder(1))
        await change(kit, weigher("g"))
        await kit.ask(A, Order(number=1))
        done = await units(kit, 1)

    assert done == [(1, "g")]
    assert "weigher" not in kit.host.shards


async def test_a_host_killed_in_the_middle_of_it_comes_back_right(tmp_path: Path) -> None:
    async with running() as kit:
        await kit.stop_host()
        sent = dict.fromkeys(KEYS, 0)
        await deploy(kit.bus, adder(1))
        for n in range(6):
            host = await start_process(kit, tmp_path / f"host-{n}.log")
            for address in KEYS * 3:
                await kit.tell(address, Put())
                sent[address] += 1
            if n % 2:
                await deploy(kit.bus, remove="adder")
            await deploy(kit.bus, adder(n + 1, cls=("Adder", "Subtracter")[n % 2]), weigher())
            # Each time a little later: as it hears of it, as it reads, as it starts and stops.
            await asyncio.sleep(0.015 * n)
            await host.kill()
        await kit.start_host()
        counts = {address: (await kit.ask(address, Seen())).count for address in KEYS}
        running_now = sorted([*kit.host.shards, *kit.host.pools])

    assert counts == sent
    assert running_now == ["adder", "weigher"]


async def start_process(kit: Kit, log: Path) -> Process:
    """A host in a process of its own, once it is ready."""
    config = log.with_suffix(".toml")
    config.write_text('[log]\nformat = "json"\n')
    arguments = ["runtime", "host", "--config", str(config), "--nats", kit.server.url]
    host = Process(log.stem, log, arguments)
    await host.start()
    await host.say("host_ready")
    return host
