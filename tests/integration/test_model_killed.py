"""A host that is killed while its model speaks: one whole answer, and nothing glued to anything."""

import asyncio
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from runtime.ask import ask
from runtime.bus import Bus
from runtime.store.server import EmbeddedServer
from schemas import subjects
from schemas.base import Address, Message, Topic, tag_of
from schemas.conversation import MessageAnswered
from schemas.envelope import decode_any
from schemas.model import Generate, Generated, Prompt, conversation_topic, history_topic
from schemas.record import Delta, RunSuperseded
from tests.chaos.processes import Process
from tests.integration.talking import TOPIC, Begin, user
from tests.integration.waiting import until_known
from tests.integration.wordy import Reply, Wordy

CONFIG = """
[log]
format = "json"

[[actor]]
name = "asker"
type = "tests.integration.talking:Asker"

[[actor]]
name = "model"
type = "actors.model:Model"
options = {{ provider = "openai", model = "m", upstreams = [{{ url = "{url}" }}] }}
"""
SPOKEN = conversation_topic("c")
PATIENCE = 40.0
Told = TypeVar("Told", bound=Message)

pytestmark = pytest.mark.timeout(120)


async def told(bus: Bus, topic: Topic, kind: type[Told]) -> list[Told]:
    """Every event of a type on a topic."""
    found = [decode_any(one.data) for one in await bus.read_all(subjects.event(topic), after=0)]
    return [msgspec.json.decode(e.data, type=kind) for e in found if e.type == tag_of(kind)]


class Site:
    """Hosts as processes of their own, with one model, and one job for it."""

    def __init__(
        self,
        folder: Path,
        bus: Bus,
        url: str,
        upstream: Wordy,
        program: str = "tests.integration.wordyhost",
        more: str = "",
    ) -> None:
        self.bus = bus
        config = folder / "callboard.toml"
        config.write_text(more + CONFIG.format(url=upstream.url))
        command = [program, "host", "--config", str(config), "--nats", url]
        self.hosts = [Process(n, folder / f"{n}.log", command) for n in ("first", "second")]

    async def __aenter__(self) -> "Site":
        await self.hosts[0].start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for host in self.hosts:
            if host.pid:
                await host.kill()

    async def begin(self) -> None:
        """Start the job, and wait until something of it is said."""
        prompt = Prompt(messages=(user("hello"),))
        job = Generate(task="b-1", batch="b", conversation="c", model="m", prompt=prompt)
        begin = Begin(actor="model", job=job)
        await ask(self.bus, Address("asker", "a"), begin, timeout=PATIENCE)
        await until_known(lambda: is_told(self.bus, SPOKEN, Delta), PATIENCE)

    async def result(self) -> Generated:
        """What came of the job."""
        await until_known(lambda: is_told(self.bus, TOPIC, Generated), PATIENCE)
        (result,) = await told(self.bus, TOPIC, Generated)
        return result


@pytest.mark.promise("AC-08", "AC-50")
async def test_a_model_whose_host_is_killed_midway_answers_again_and_whole(
    bus: Bus, shared_server: EmbeddedServer, tmp_path: Path
) -> None:
    gate = asyncio.Event()

    def stuck_at_first(number: int, body: object) -> Reply:
        return Reply(gate=gate) if number == 1 else Reply()

    async with (
        Wordy(stuck_at_first) as upstream,
        Site(tmp_path, bus, shared_server.url, upstream) as site,
    ):
        await site.begin()
        await site.hosts[1].start()
        await site.hosts[0].kill()
        async with asyncio.timeout(PATIENCE):
            await upstream.left.acquire()
        result = await site.result()

    (kept,) = await told(bus, history_topic("c"), MessageAnswered)
    deltas = await told(bus, SPOKEN, Delta)
    attempt = kept.attempt
    assert (result.outcome, kept.text) == ("answered", "one two three")
    assert "".join(one.text for one in deltas if one.attempt == 1) == "one "
    assert "".join(one.text for one in deltas if one.attempt == attempt) == "one two three"
    assert {one.attempt for one in deltas} == {1, attempt}
    assert (await told(bus, SPOKEN, RunSuperseded))[-1].attempt == attempt
    assert len(upstream.calls) == 2


@pytest.mark.promise("AC-16")
async def test_an_answer_that_takes_much_longer_than_the_ack_wait_is_asked_for_once(
    bus: Bus, shared_server: EmbeddedServer, tmp_path: Path
) -> None:
    # As 30 s are to 300 s, so is the 1 s of these hosts to 4 s, and both hosts pull.
    async with (
        Wordy(lambda n, body: Reply(("more ",) * 20, gap=0.2)) as upstream,
        Site(tmp_path, bus, shared_server.url, upstream) as site,
    ):
        await site.hosts[1].start()
        await site.begin()
        result = await site.result()

    (kept,) = await told(bus, history_topic("c"), MessageAnswered)
    assert (result.outcome, kept.attempt, kept.text) == ("answered", 1, "more " * 20)
    assert len(upstream.calls) == 1


async def is_told(bus: Bus, topic: Topic, kind: type[Message]) -> bool:
    """Whether there is such an event."""
    return bool(await told(bus, topic, kind))
