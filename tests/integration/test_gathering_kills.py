"""Hosts end at every point of a batch: each task still ends once, and so does its batch."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.batch import Batch
from actors.session import Session
from runtime.ask import Origin, ask
from runtime.bus import Bus
from runtime.store.server import EmbeddedServer
from runtime.testing import Kit
from schemas.conversation import (
    BatchBegan,
    BatchFinished,
    BatchOpened,
    MessageSaid,
    Policy,
    TaskMoved,
)
from schemas.model import history_topic
from schemas.record import Delta
from tests.chaos.processes import Process
from tests.integration.answering import MODELS, Talk, opening, wanted
from tests.integration.waiting import until_known

MODEL = "tests.integration.answering:Answering"
CONFIG = f"""
[log]
format = "json"

[host]
run = {{run}}

[[actor]]
name = "session"
type = "actors.session:Session"

[[actor]]
name = "batch"
type = "actors.batch:Batch"

[[actor]]
name = "one"
type = "{MODEL}"

[[actor]]
name = "two"
type = "{MODEL}"
options = {{{{ says = "2" }}}}

[[actor]]
name = "refuses"
type = "{MODEL}"
options = {{{{ does = "refuse" }}}}

[[actor]]
name = "slow"
type = "{MODEL}"
options = {{{{ pause = 1.5 }}}}
"""
KEYED = ["session", "batch"]
MODELS_HERE = ["one", "two", "refuses", "slow"]
PATIENCE = 40.0
CRASHES = (
    "turn.fetched:2",
    "batch.before:5",
    "batch.inside:3",
    "batch.after:6",
    "ack.before:3",
    "job.claimed:2",
    "job.done:2",
)

pytestmark = pytest.mark.timeout(180)


class Site:
    """A server, hosts in processes of their own, and a hand to watch the conversation with."""

    def __init__(self, folder: Path, bus: Bus, url: str) -> None:
        self.kit = Kit(folder, {"session": Session, "batch": Batch, **MODELS})
        self.kit.bus = bus
        self.hosts: list[Process] = []
        self._folder = folder
        self._url = url

    async def host(self, run: list[str], crash: str = "") -> Process:
        name = f"host-{len(self.hosts)}"
        config = self._folder / f"{name}.toml"
        config.write_text(CONFIG.format(run=run))
        arguments = ["tests.integration.killers", "host", "--config", str(config)]
        process = Process(
            name, self._folder / f"{name}.log", [*arguments, "--nats", self._url], crash=crash
        )
        self.hosts.append(process)
        await process.start()
        return process

    async def open(self, talk: Talk) -> BatchOpened:
        """Ask three models, one by way of another that refuses, and have a fourth judge them."""
        tasks = ("one", wanted("refuses", "two"), "two")
        request = opening(*tasks, policy=Policy(kind="judge", judge="two"))
        origin = Origin(id=f"open-{talk.id}", bodyhash="h")
        return await ask(self.kit.bus, talk.session, request, timeout=PATIENCE, origin=origin)

    async def ended(self, *talks: Talk) -> None:
        """Wait until every batch has ended and every session knows."""

        async def look() -> bool:
            return all([await talk.told(BatchFinished) for talk in talks])

        await until_known(look, PATIENCE)
        await self.kit.settled(PATIENCE)

    async def stop(self) -> None:
        for host in self.hosts:
            if host.code is None:
                await host.kill()


@pytest.fixture
async def site(own_server: EmbeddedServer, own_bus: Bus, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, own_bus, own_server.url)
    yield site
    await site.stop()


async def look_at(talk: Talk, opened: BatchOpened) -> None:
    """Everything of a batch came once, and what is stored agrees with what was told."""
    began, said = await talk.told(BatchBegan), await talk.told(MessageSaid)
    (done,) = await talk.told(BatchFinished)
    state, session = await talk.batch(opened), await talk.state()

    assert [one.tasks for one in began] == [opened.tasks]
    assert said == await talk.kit.events(history_topic(talk.id), MessageSaid)
    assert len(said) == 1
    assert await talk.codes() == {"1": "SUCCESS", "2": "SUCCESS", "3": "SUCCESS"}
    assert [one.task for one in await talk.told(TaskMoved)] == [f"{opened.batch}-2"]
    assert (done.status, done.winner, done.reason) == ("SUCCESS", f"{opened.batch}-2", "")
    assert (state.status, state.winner) == (done.status, done.winner)
    assert {name: task.run for name, task in state.tasks.items()} == {
        end.task: end.run for end in (await talk.ends()).values()
    }
    assert (session.live, session.batches) == ({}, 1)


@pytest.mark.promise("AC-02", "AC-07", "AC-08", "AC-50")
async def test_wherever_hosts_end_each_task_and_each_batch_ends_once(site: Site) -> None:
    asked: dict[Talk, asyncio.Task[BatchOpened]] = {}
    for number, crash in enumerate(CRASHES):
        host = await site.host([*KEYED, *MODELS_HERE], crash)
        talk = Talk(site.kit, f"c{number}")
        # Whoever asks waits for as many hosts as it takes.
        asked[talk] = asyncio.create_task(site.open(talk))
        async with asyncio.timeout(PATIENCE):
            await host.wait()
    await site.host([*KEYED, *MODELS_HERE])
    opened = {talk: await task for talk, task in asked.items()}
    await site.ended(*asked)

    for talk in asked:
        await look_at(talk, opened[talk])
    assert [host.crashed for host in site.hosts] == [True] * len(CRASHES) + [False]
    assert await site.kit.dead_letters() == []


@pytest.mark.promise("AC-07", "AC-08", "AC-50")
async def test_a_model_whose_host_is_killed_while_it_speaks_is_asked_again_and_answers_once(
    site: Site,
) -> None:
    await site.host(KEYED)
    worker = await site.host(MODELS_HERE)
    talk = Talk(site.kit, "c")
    opened = await talk.open("slow", "one")
    await until_known(lambda: said(talk, opened.tasks[0].run), PATIENCE)
    await worker.kill()
    await site.host(MODELS_HERE)
    await site.ended(talk)
    heard = [kind for kind, run in await talk.heard() if run == opened.tasks[0].run]

    assert await talk.codes() == {"1": "SUCCESS", "2": "SUCCESS"}
    assert heard == ["run.started", "run.delta", "run.superseded", "run.delta", "task.finished"]
    assert len(await talk.told(BatchFinished)) == 1
    assert (await talk.state()).live == {}


async def said(talk: Talk, run: str) -> bool:
    return any(one.run == run for one in await talk.told(Delta))
