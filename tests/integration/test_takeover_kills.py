"""Hosts end anywhere while a conversation changes hands: all agree whose it is, and hear all."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from actors.batch import Batch
from actors.session import Session
from runtime.ask import Origin, ask
from runtime.bus import Bus
from runtime.store.server import EmbeddedServer
from runtime.testing import Kit
from schemas.base import Address
from schemas.conversation import BatchFinished
from schemas.model import history_topic
from schemas.ownership import (
    Assignee,
    AssigneeChanged,
    CaseChanged,
    Escalate,
    ManualMessage,
    ModeChanged,
    Release,
    SayManual,
    TakeOver,
    Transfer,
    Transition,
    desk_topic,
    internal_topic,
)
from tests.chaos.processes import Process
from tests.integration.answering import Answering, Talk, opening
from tests.integration.clerk import Clerk
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
type = "tests.integration.clerk:Clerk"

[[actor]]
name = "human_agent"
type = "tests.integration.clerk:Clerk"

[[actor]]
name = "slow"
type = "tests.integration.answering:Answering"
options = { pause = 600.0 }
"""
CRASHES = (
    "turn.fetched:3",
    "batch.inside:5",
    "batch.after:6",
    "ack.before:7",
    "batch.inside:8",
)
ANN, BOB = Assignee(id="ann", name="Ann"), Assignee(id="bob", name="Bob")
SCRIPT: tuple[Any, ...] = (
    opening("slow", "slow"),
    Escalate(details="help"),
    SayManual(content="anybody?", role="user"),
    TakeOver(agent=ANN),
    SayManual(content="I am here", agent=ANN),
    Transfer(agent="ann", to=BOB),
    SayManual(content="thanks", role="user"),
    SayManual(content="goodbye", agent=BOB),
    Release(agent="bob"),
)
CHANGES = [
    (1, "pending_manual", ""),
    (2, "manual_live", "ann"),
    (3, "manual_live", "bob"),
    (4, "bot_active", ""),
]
PATIENCE = 60.0

pytestmark = pytest.mark.timeout(240)


class Site:
    """A server, hosts in processes of their own, and a hand to watch with."""

    def __init__(self, folder: Path, bus: Bus, url: str) -> None:
        actors: dict[str, Any] = {
            "session": Session,
            "batch": Batch,
            "desk": Clerk,
            "human_agent": Clerk,
            "slow": Answering,
        }
        self.kit = Kit(folder, actors)
        self.kit.bus = bus
        self.hosts: list[Process] = []
        self._folder = folder
        self._url = url

    async def host(self, crash: str = "") -> Process:
        name = f"host-{len(self.hosts)}"
        config = self._folder / "host.toml"
        config.write_text(CONFIG)
        arguments = ["tests.integration.killers", "host", "--config", str(config)]
        log = self._folder / f"{name}.log"
        host = Process(name, log, [*arguments, "--nats", self._url], crash=crash)
        self.hosts.append(host)
        await host.start()
        return host

    async def play(self, talk: Talk) -> None:
        """Say all of it, each once the one before it is answered, however long that takes."""
        for number, message in enumerate(SCRIPT):
            origin = Origin(id=f"{talk.id}-{number}", bodyhash="h")
            await ask(self.kit.bus, talk.session, message, timeout=PATIENCE, origin=origin)

    async def play_through(self, talk: Talk, crash: str) -> None:
        """Play on a host that ends midway, and on the one after it.

        All is settled before another ends: what two in a row end over is a dead letter.
        """
        host = await self.host(crash)
        playing = asyncio.create_task(self.play(talk))
        async with asyncio.timeout(PATIENCE):
            await host.wait()
        rescuer = await self.host()
        await playing
        await until_known(lambda: talk.told(BatchFinished), PATIENCE)
        await self.kit.settled(PATIENCE)
        await rescuer.terminate()

    async def stop(self) -> None:
        for host in self.hosts:
            if host.code is None:
                await host.kill()


@pytest.fixture
async def site(own_server: EmbeddedServer, own_bus: Bus, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, own_bus, own_server.url)
    yield site
    await site.stop()


async def look_at(talk: Talk) -> None:
    """State, notices, desk and agents agree, and nothing was lost or came twice."""
    kit, state = talk.kit, await talk.state()
    steps, assigned = await talk.told(ModeChanged), await talk.told(AssigneeChanged)
    record = await kit.events(internal_topic(talk.id), Transition)
    said = await talk.told(ManualMessage)
    manual = [one.content for one in SCRIPT if isinstance(one, SayManual)]
    changes: list[ModeChanged | AssigneeChanged] = [*steps, *assigned]
    changes.sort(key=lambda one: one.epoch)
    whose = [(one.epoch, one.mode, one.assignee.id if one.assignee else "") for one in changes]

    assert whose == CHANGES
    assert [(one.epoch, one.mode) for one in record] == [change[:2] for change in CHANGES]
    assert all(one.mode == other.was for one, other in pairwise(steps))
    assert (state.hold.mode, state.hold.epoch, state.hold.assignee) == ("bot_active", 4, None)
    assert [one.content for one in said] == manual
    assert said == await kit.events(history_topic(talk.id), ManualMessage)
    assert len(record[0].stopped) == 2
    assert state.live == {}
    assert [one.status for one in await talk.told(BatchFinished)] == ["FAILED"]


async def heard(kit: Kit, actor: str, key: str) -> dict[str, list[tuple[int, str, str]]]:
    """What a desk or an agent was told, conversation by conversation.

    Who speaks as an agent is told of it too, which is no change.
    """
    moved = (await kit.state(Address(actor, key))).moved
    return {name: list(dict.fromkeys(tuple(one) for one in told)) for name, told in moved.items()}


@pytest.mark.promise("FD-26", "FD-27", "FD-69")
async def test_wherever_hosts_end_all_agree_whose_a_conversation_is(site: Site) -> None:
    talks = [Talk(site.kit, f"c{number}") for number in range(len(CRASHES))]
    for talk, crash in zip(talks, CRASHES, strict=True):
        await site.play_through(talk, crash)

    for talk in talks:
        await look_at(talk)
    names = [talk.id for talk in talks]
    boards = await site.kit.events(desk_topic("support"), CaseChanged)
    assert await heard(site.kit, "desk", "support") == dict.fromkeys(names, CHANGES)
    assert await heard(site.kit, "human_agent", "ann") == dict.fromkeys(names, CHANGES[1:3])
    assert await heard(site.kit, "human_agent", "bob") == dict.fromkeys(names, CHANGES[2:])
    assert sorted(
        (one.case.session, one.case.epoch) for one in boards if one.why != "said"
    ) == sorted((name, epoch) for name in names for epoch, _, _ in CHANGES)
    assert [host.crashed for host in site.hosts] == [True, False] * len(CRASHES)
    assert await site.kit.dead_letters() == []
