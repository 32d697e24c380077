"""Hosts and servers end between a question and its answer: it is asked and answered once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.approval import Approval
from runtime.ask import Origin, ask
from runtime.bus import Bus
from runtime.errors import BusFault, Refused
from runtime.store.server import EmbeddedServer
from runtime.testing import Kit
from schemas.approval import APPROVAL, ApprovalAsked, Decide, Decided, approval_topic
from schemas.base import Address
from schemas.ownership import desk_topic
from tests.chaos.processes import Process
from tests.integration.persons import TOPIC, Adviser, Clerk, Consult, Consulted
from tests.integration.waiting import until_known

CONFIG = """
[log]
format = "json"

[host]
run = {run}

[[actor]]
name = "approval"
type = "actors.approval:Approval"

[[actor]]
name = "clerk"
type = "tests.integration.persons:Clerk"

[[actor]]
name = "adviser"
type = "tests.integration.persons:Adviser"
deadline = "1h"
"""
KEYED, WORKERS = ["approval", "clerk"], ["adviser"]
CLERK = Address("clerk", "c")
PATIENCE = 40.0

pytestmark = pytest.mark.timeout(180)


class Site:
    """A server, hosts in processes of their own, and a hand to watch and answer with."""

    def __init__(self, folder: Path, bus: Bus, server: EmbeddedServer) -> None:
        self.kit = Kit(folder, {"approval": Approval, "clerk": Clerk, "adviser": Adviser})
        self.kit.bus = bus
        self.server = server
        self.hosts: list[Process] = []
        self._folder = folder

    async def host(self, run: list[str], crash: str = "") -> Process:
        name = f"host-{len(self.hosts)}"
        config = self._folder / f"{name}.toml"
        config.write_text(CONFIG.format(run=run))
        arguments = ["tests.integration.killers", "host", "--config", str(config)]
        named = [*arguments, "--nats", self.server.url]
        process = Process(name, self._folder / f"{name}.log", named, crash=crash)
        self.hosts.append(process)
        await process.start()
        return process

    async def consult(self, text: str) -> None:
        """Have a worker ask, even if the host that starts it ends over it."""
        origin = Origin(id=f"consult-{text}", bodyhash="h")
        await ask(self.kit.bus, CLERK, Consult(text=text), timeout=PATIENCE, origin=origin)

    async def question(self) -> ApprovalAsked:
        async def look() -> ApprovalAsked | None:
            found = await self.kit.events(desk_topic("support"), ApprovalAsked)
            return found[0] if found else None

        return await until_known(look, PATIENCE)

    async def answer(self, asked: ApprovalAsked, by: str = "ann") -> Decided:
        to, given = Address(APPROVAL, asked.approval), Decide(decision="approved", by=by)
        origin = Origin(id=f"answer-{asked.approval}-{by}", bodyhash="h")
        return await ask(self.kit.bus, to, given, timeout=PATIENCE, origin=origin)

    async def result(self) -> Consulted:
        async def look() -> Consulted | None:
            found = await self.kit.events(TOPIC, Consulted)
            return found[0] if found else None

        return await until_known(look, PATIENCE)

    async def look_at(self, asked: ApprovalAsked, decided: Decided) -> None:
        """It was asked once, answered once, and whoever asked has heard it once."""
        topic = approval_topic(asked.approval)
        consulted = await self.result()
        await self.kit.settled(PATIENCE)
        state = await self.kit.state(CLERK)

        assert await self.kit.events(topic, ApprovalAsked) == [asked]
        assert await self.kit.events(topic, Decided) == [decided]
        assert consulted.decided == decided
        assert [one.decided for one in state.consulted] == [decided]
        assert await self.kit.dead_letters() == []


@pytest.fixture
async def site(own_server: EmbeddedServer, own_bus: Bus, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, own_bus, own_server)
    yield site
    for host in site.hosts:
        if host.code is None:
            await host.kill()


async def test_a_worker_is_killed_while_it_waits_and_another_has_the_answer(site: Site) -> None:
    await site.host(KEYED)
    first = await site.host(WORKERS)
    await site.consult("killed")
    asked = await site.question()
    await first.kill()
    decided = await site.answer(asked)
    await site.host(WORKERS)

    await site.look_at(asked, decided)


async def test_the_keeper_is_killed_before_the_answer_and_another_takes_it(site: Site) -> None:
    first = await site.host(KEYED)
    await site.host(WORKERS)
    await site.consult("kept")
    asked = await site.question()
    await first.kill()
    answering = asyncio.create_task(site.answer(asked))
    await site.host(KEYED)

    await site.look_at(asked, await answering)


@pytest.mark.parametrize("crash", ["batch.inside:2", "batch.after:3", "ack.before:3"])
async def test_the_keeper_ends_in_the_midst_of_it_and_of_two_answers_one_still_counts(
    site: Site, crash: str
) -> None:
    first = await site.host(KEYED, crash=crash)
    await site.host(WORKERS)
    consulting = asyncio.create_task(site.consult("crash"))
    spare = asyncio.create_task(take_over(site, first))
    await consulting
    asked = await site.question()
    answers = await asyncio.gather(
        site.answer(asked, "ann"), site.answer(asked, "bob"), return_exceptions=True
    )
    [decided] = [one for one in answers if isinstance(one, Decided)]
    [refused] = [one for one in answers if isinstance(one, Refused)]

    await site.look_at(asked, decided)
    assert first.crashed
    assert refused.refusal.code == "ALREADY_DECIDED"
    assert decided.by in refused.refusal.detail
    spare.cancel()


async def take_over(site: Site, first: Process) -> None:
    """Start another host once the first has ended."""
    await first.wait()
    await site.host(KEYED)


async def test_the_server_restarts_while_somebody_waits(site: Site) -> None:
    await site.host(KEYED)
    await site.host(WORKERS)
    await site.consult("restart")
    asked = await site.question()
    await site.server.kill()
    await site.server.start()
    await site.kit.bus.link.connected.wait()
    decided = await answered(site, asked)

    await site.look_at(asked, decided)


async def answered(site: Site, asked: ApprovalAsked) -> Decided:
    """The answer, said again under the same id until it is known to be taken."""

    async def look() -> Decided | None:
        try:
            return await site.answer(asked)
        except BusFault:
            return None

    return await until_known(look, PATIENCE)
