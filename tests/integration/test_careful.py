"""A message that ends its host becomes a dead letter; all others are handled as if it were not."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from runtime.bus import Bus, expiry, new_id
from runtime.controls import change_control
from runtime.record import decode_record
from runtime.store.server import EmbeddedServer
from schemas import subjects
from schemas.base import Address, Message, token
from schemas.envelope import decode_any, encode, seal
from schemas.record import NOTHING, DeadLetter
from tests.chaos.processes import Process, read_lines
from tests.integration import killers
from tests.integration.killers import Do, End, How, KeeperState, Note, Start
from tests.integration.waiting import until, until_known

CONFIG = """
[log]
format = "json"

[host]
block_limit = "2s"

[[actor]]
name = "keeper"
type = "tests.integration.killers:Keeper"

[[actor]]
name = "hand"
type = "tests.integration.killers:Hand"
attempts = 3
"""
PATIENCE = 40.0
REASON = "2 hosts in a row ended, or stood still, while they handled it"

pytestmark = pytest.mark.timeout(120)


class Site:
    """A server and hosts that are started again when they end."""

    def __init__(self, folder: Path, bus: Bus, url: str) -> None:
        self.bus = bus
        self.begun = folder / "begun"
        self.begun.touch()
        self.folder = folder
        self.hosts: list[Process] = []
        self.ends = 0
        self._url = url
        self._keeping: list[asyncio.Task[None]] = []
        (folder / "careful.toml").write_text(CONFIG)

    async def run_host(self) -> None:
        """Run a host, and another one whenever it has ended."""
        process = await self._start()
        self._keeping.append(asyncio.create_task(self._keep(process)))

    async def _start(self) -> Process:
        log = self.folder / f"host-{len(self.hosts)}.log"
        config = ["--config", str(self.folder / "careful.toml"), "--nats", self._url]
        process = Process("host", log, ["tests.integration.killers", "host", *config])
        self.hosts.append(process)
        await process.start()
        return process

    async def _keep(self, process: Process) -> None:
        while True:
            await process.wait()
            self.ends += 1
            process = await self._start()

    async def stop(self) -> None:
        """End all hosts."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        await asyncio.gather(*(host.kill() for host in self.hosts if host.code is None))

    async def tell(self, key: str, *messages: Message) -> None:
        """Send messages to a keeper."""
        for message in messages:
            data = encode(seal(message, id=new_id(), source="test", subject=key))
            subject = subjects.mail(Address("keeper", key))
            await self.bus.publish(subject, data, headers=expiry(timedelta(hours=1)))

    async def state(self, key: str) -> KeeperState:
        """What a keeper has kept: nothing, too, where all that is known is what was put aside."""
        stored = await self.bus.last(subjects.state("keeper", token(key)))
        record = decode_record(stored.data) if stored else None
        kept = record.data if record else NOTHING
        return msgspec.json.decode(kept, type=KeeperState) if kept else KeeperState()

    async def dead(self) -> list[DeadLetter]:
        """All dead letters."""
        found = await self.bus.read_all("dead.>", after=0)
        return [msgspec.json.decode(decode_any(one.data).data, type=DeadLetter) for one in found]

    async def one_dead(self) -> list[DeadLetter]:
        """Wait until there are dead letters."""
        return await until_known(self.dead, PATIENCE)

    async def settled(self) -> None:
        """Wait until nothing is left to do."""
        await until_known(self._is_settled, PATIENCE)

    async def _is_settled(self) -> bool:
        found = await self.bus.api(f"CONSUMER.LIST.{self.bus.stream}", {"offset": 0})
        return all(
            one["num_pending"] == 0 and one["num_ack_pending"] == 0
            for one in found["consumers"] or []
        )

    def runs(self) -> Counter[str]:
        """How often each handler was begun."""
        return Counter(line.rpartition(" ")[0] for line in self.begun.read_text().splitlines())

    def logged(self, event: str) -> int:
        """How often hosts have logged an event."""
        lines = [line for host in self.hosts for line in read_lines(host.log)]
        return sum(line["event"] == event for line in lines)


@pytest.fixture
async def site(
    own_server: EmbeddedServer, own_bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    monkeypatch.setenv(killers.BEGUN, str(tmp_path / "begun"))
    site = Site(tmp_path, own_bus, own_server.url)
    yield site
    await site.stop()


def shard_of(key: str) -> int:
    """Where the server puts a keeper's mail: FNV-1a over the tokens of its subject."""
    value = 0x811C9DC5
    for byte in f"keeper{key}".encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value % subjects.SHARDS


def neighbours(key: str, count: int) -> list[str]:
    """Other keys of the same shard."""
    names = (f"n{number}" for number in range(10**6))
    found = (name for name in names if shard_of(name) == shard_of(key))
    return [next(found) for _ in range(count)]


async def send_around(site: Site, poison: End) -> list[str]:
    """Send a message among others, of its shard and of another one; returns the others' keys."""
    others = [*neighbours("p", 5), *(f"far{n}" for n in range(5))]
    for key in others:
        await site.tell(key, Note(n=1))
    await site.tell("p", Note(n=1), poison, Note(n=2))
    for key in others:
        await site.tell(key, Note(n=2))
    return others


@pytest.mark.parametrize("how", ["exit", "fault", "kill"])
async def test_a_message_whose_handler_ends_the_process_is_dead_before_its_fourth_run(
    site: Site, how: How
) -> None:
    others = await send_around(site, End(how=how))
    await site.run_host()
    dead = await site.one_dead()
    await site.settled()
    notes = {key: (await site.state(key)).notes for key in [*others, "p"]}

    assert [(one.reason, one.attempts) for one in dead] == [(REASON, 2)]
    assert site.runs()[f"{how} p 0"] == 3
    assert notes == {key: [1, 2] for key in [*others, "p"]}
    assert site.ends == 3


async def test_a_handler_that_blocks_the_loop_for_ever_is_dead_before_its_fourth_run(
    site: Site,
) -> None:
    others = await send_around(site, End(how="block"))
    await asyncio.gather(site.run_host(), site.run_host())
    dead = await site.one_dead()
    await site.settled()
    notes = {key: (await site.state(key)).notes for key in [*others, "p"]}

    assert [one.reason for one in dead] == [REASON]
    # Two, if one host had been given it and lost the shard to the other before it came to it.
    assert site.runs()["block p 0"] in (2, 3)
    assert notes == {key: [1, 2] for key in [*others, "p"]}


async def test_handlers_that_call_exit_end_no_host_and_are_tried_as_any_that_fail(
    site: Site,
) -> None:
    others = await send_around(site, End(how="leave"))
    await site.tell("a", Start(jobs=[Do(n=1, how="leave"), Do(n=2)]))
    await site.run_host()
    await until_known(lambda: two(site), PATIENCE)
    dead = await site.dead()
    await site.settled()
    notes = {key: (await site.state(key)).notes for key in [*others, "p"]}

    assert sorted((one.reason, one.attempts) for one in dead) == [
        ("SystemExit: bye", 5),
        ("bye", 3),
    ]
    assert notes == {key: [1, 2] for key in [*others, "p"]}
    assert (await site.state("a")).done == [2]
    assert site.ends == 0


async def two(site: Site) -> bool:
    return len(await site.dead()) == 2


async def test_hosts_killed_from_outside_while_careful_lose_nothing(site: Site) -> None:
    keys = neighbours("p", 4)
    for key in keys:
        await site.tell(key, End(how="sleep", seconds=0.4), Note(n=1))
    await site.run_host()
    for times, key in ((1, keys[0]), (2, keys[0]), *((1, key) for key in keys[1:])):
        await begun(site, f"sleep {key} 0", times)
        await site.hosts[-1].kill()
    await site.settled()
    notes = {key: (await site.state(key)).notes for key in keys}

    assert notes == {key: [-1, 1] for key in keys}
    assert await site.dead() == []
    assert site.ends == 5


async def test_a_job_that_ends_its_host_is_given_up_and_the_others_finish(site: Site) -> None:
    jobs = [Do(n=n) for n in range(1, 7)]
    await site.tell("a", Start(jobs=[*jobs[:3], Do(n=0, how="exit"), *jobs[3:]]))
    await site.run_host()
    dead = await site.one_dead()
    await site.settled()
    state = await site.state("a")

    assert [one.reason for one in dead] == ["3 hosts ended while they did it"]
    assert site.runs()["job a-0 0"] == 3
    assert sorted(state.done) == [1, 2, 3, 4, 5, 6]
    assert state.failed == ["3 hosts ended while they did it"]
    assert site.ends == 3


async def test_a_job_without_a_run_that_ends_its_host_is_given_up_too(site: Site) -> None:
    job = seal(Do(n=0, how="exit"), id="1", source="keeper/a", subject="k")
    await site.bus.publish(subjects.work("hand", 1, "k"), encode(job))
    await site.run_host()
    dead = await site.one_dead()
    await site.settled()

    assert [one.reason for one in dead] == ["3 hosts ended while they did it"]
    assert site.runs()["job k 0"] == 3
    assert (await site.state("a")).failed == ["3 hosts ended while they did it"]


async def test_one_put_aside_while_its_key_was_paused_is_found_as_well(site: Site) -> None:
    await site.tell("a", End(how="exit"), Note(n=1))
    address = Address("keeper", "a")
    await change_control(site.bus, address, lambda one: replace(one, paused=True, by="me"))
    await site.run_host()
    await site.run_host()

    async def put_aside() -> bool:
        stored = await site.bus.last(subjects.state("keeper", "a"))
        return stored is not None and decode_record(stored.data).parked > 0

    await until_known(put_aside, PATIENCE)
    await change_control(site.bus, address, lambda one: replace(one, paused=False))
    dead = await site.one_dead()

    async def heard() -> bool:
        return (await site.state("a")).notes == [1]

    await until_known(heard, PATIENCE)

    assert len(dead) == 1
    assert site.runs()["exit a 0"] <= 3


async def begun(site: Site, what: str, times: int) -> None:
    await until(lambda: site.runs()[what] >= times, PATIENCE)
