"""Hosts end anywhere while agents come, fall silent and take over: nobody is left waiting."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from actors.batch import Batch
from actors.desk import Desk
from actors.human_agent import HumanAgent
from actors.session import Session
from runtime.ask import Origin, ask
from runtime.bus import Bus, new_id
from runtime.errors import BusFault, Refused
from runtime.store.server import EmbeddedServer
from runtime.testing import Kit
from schemas.base import Address, Request
from schemas.desk import AgentState, Attend, DeskState
from schemas.model import conversation_topic
from schemas.ownership import Assignee, Escalate, ModeChanged, TakeOver
from tests.chaos.processes import Process
from tests.integration.waiting import until_known

CONFIG = """
[log]
format = "json"

[[actor]]
name = "session"
type = "actors.session:Session"

[[actor]]
name = "batch"
type = "actors.batch:Batch"

[[actor]]
name = "desk"
type = "actors.desk:Desk"
options = { grace = "2s", offer = "3s" }

[[actor]]
name = "human_agent"
type = "actors.human_agent:HumanAgent"
options = { away = "2s", offline = "1h" }
"""
CRASHES = (
    "turn.fetched:4",
    "batch.before:9",
    "batch.inside:6",
    "batch.after:11",
    "ack.before:14",
    "batch.inside:17",
)
ANN, BOB = Assignee("ann", "Ann"), Assignee("bob", "Bob")
DESK = Address("desk", "support")
PATIENCE = 60.0

pytestmark = pytest.mark.timeout(240)


class Office:
    """A server, hosts in processes of their own, and two agents: one stays, one does not."""

    def __init__(self, folder: Path, bus: Bus, url: str) -> None:
        actors: dict[str, Any] = {
            "session": Session,
            "batch": Batch,
            "desk": Desk,
            "human_agent": HumanAgent,
        }
        self.kit = Kit(folder, actors)
        self.kit.bus = bus
        self.hosts: list[Process] = []
        self._folder = folder
        self._url = url

    async def host(self, crash: str = "") -> Process:
        config = self._folder / "host.toml"
        config.write_text(CONFIG)
        name = f"host-{len(self.hosts)}"
        arguments = ["tests.integration.killers", "host", "--config", str(config)]
        log = self._folder / f"{name}.log"
        host = Process(name, log, [*arguments, "--nats", self._url], crash=crash)
        self.hosts.append(host)
        await host.start()
        return host

    async def say(self, to: Address, message: Request[Any]) -> Any:
        origin = Origin(id=new_id(), bodyhash="h")
        return await ask(self.kit.bus, to, message, timeout=PATIENCE, origin=origin)

    async def leave(self, name: str) -> None:
        """The customer calls, Ann takes it, and nothing more is heard of her."""
        await self.say(_agent(ANN), Attend(name="Ann", presence="online"))
        await self.say(_session(name), Escalate(details="help"))
        await self.say(_session(name), TakeOver(agent=ANN, force=True))

    async def stay(self) -> None:
        """Bob is there, and takes whatever he is offered."""
        while True:
            with contextlib.suppress(BusFault, TimeoutError, Refused):
                await self.say(_agent(BOB), Attend(name="Bob", presence="online", capacity=50))
                for name, waiting in (await self.desk()).waiting.items():
                    if waiting.offered is not None and waiting.offered.id == "bob":
                        await self.say(_session(name), TakeOver(agent=BOB))
            await asyncio.sleep(0.2)

    async def desk(self) -> DeskState:
        found = await self.kit.state(DESK)
        assert isinstance(found, DeskState)
        return found

    async def holders(self, names: list[str]) -> dict[str, str]:
        """Who has each of the conversations."""
        found = {}
        for name in names:
            hold = (await self.kit.state(_session(name))).hold
            live = hold.mode == "manual_live" and hold.assignee is not None
            found[name] = hold.assignee.id if live else hold.mode
        return found

    async def stop(self) -> None:
        for host in self.hosts:
            if host.code is None:
                await host.kill()


def _session(name: str) -> Address:
    return Address("session", name)


def _agent(who: Assignee) -> Address:
    return Address("human_agent", who.id)


@pytest.fixture
async def office(own_server: EmbeddedServer, own_bus: Bus, tmp_path: Path) -> AsyncIterator[Office]:
    office = Office(tmp_path, own_bus, own_server.url)
    yield office
    await office.stop()


async def agree(office: Office, names: list[str]) -> bool:
    """Whether the desk and the agents know what the sessions say: all of it is Bob's."""
    holders = await office.holders(names)
    agents = [await office.kit.state(_agent(who)) for who in (ANN, BOB)]
    assert all(isinstance(one, AgentState) for one in agents)
    desk = await office.desk()
    return (
        holders == dict.fromkeys(names, "bob")
        and holders == {name: one.agent for name, one in desk.taken.items()}
        and not desk.waiting
        and [set(one.open) for one in agents] == [set(), set(names)]
    )


@pytest.mark.promise("FD-45")
async def test_wherever_hosts_end_whoever_was_left_comes_to_the_agent_who_stays(
    office: Office,
) -> None:
    names = [f"c{number}" for number in range(len(CRASHES))]
    leaving = []
    staying = asyncio.create_task(office.stay())
    try:
        for name, crash in zip(names, CRASHES, strict=True):
            host = await office.host(crash)
            leaving.append(asyncio.create_task(office.leave(name)))
            async with asyncio.timeout(PATIENCE):
                await host.wait()
        await office.host()
        await asyncio.gather(*leaving)
        await until_known(lambda: agree(office, names), PATIENCE)
    finally:
        staying.cancel()
        await asyncio.gather(staying, return_exceptions=True)

    for name in names:
        steps = await office.kit.events(conversation_topic(name), ModeChanged)
        assert all(one.mode == other.was for one, other in pairwise(steps))
        assert [one.epoch for one in steps] == sorted({one.epoch for one in steps})
        assert [bool(one.notice) for one in steps if one.reason == "lost"].count(True) >= 1
    assert [host.crashed for host in office.hosts] == [True] * len(CRASHES) + [False]
    assert await office.kit.dead_letters() == []
