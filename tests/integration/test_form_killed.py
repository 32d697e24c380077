"""A form that is polled and followed while the host that answers it is killed mid-word."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.fakes.upstream import Upstream, fake
from runtime.bus import Bus
from runtime.store.server import EmbeddedServer
from tests.chaos.processes import Process
from tests.integration.asking import BOTH, Files, ask, history_of, polled
from tests.integration.edges import Edge, serving
from tests.integration.feed import Block, feed
from tests.integration.waiting import until_known
from tests.unit.parcels import png

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
name = "gemini"
type = "actors.model:Model"
options = {{ provider = "gemini", model = "gemini-2.5-flash", upstreams = [{{ url = "{first}" }}] }}

[[actor]]
name = "deepseek"
type = "actors.model:Model"
options = {{ provider = "openai", model = "deepseek-r1:1.5b", upstreams = [{{ url = "{other}" }}] }}
"""

TEXT = ("It ", "is a ", "picture ", "of ", "one ", "pixel.")
WHOLE = "".join(TEXT)
PATIENCE = 60.0

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def hosts(
    bus: Bus, shared_server: EmbeddedServer, upstreams: tuple[Upstream, Upstream], tmp_path: Path
) -> AsyncIterator[list[Process]]:
    """Two hosts that run everything, the first of them started; jobs come again after a second."""
    config = tmp_path / "callboard.toml"
    gemini, openai = upstreams
    config.write_text(CONFIG.format(first=gemini.url, other=openai.url))
    command = ["tests.integration.hastyhost", "host", "--config", str(config)]
    command += ["--nats", shared_server.url]
    made = [Process(name, tmp_path / f"{name}.log", command) for name in ("first", "second")]
    await made[0].start()
    await made[0].say("host_ready")
    yield made
    for host in made:
        if host.pid:
            await host.kill()


@pytest.fixture
async def upstreams() -> AsyncIterator[tuple[Upstream, Upstream]]:
    async with fake("gemini", text=TEXT) as gemini, fake("openai", text=TEXT) as openai:
        yield gemini, openai


@pytest.fixture
async def edge(bus: Bus, shared_server: EmbeddedServer) -> AsyncIterator[Edge]:
    async with serving(shared_server.url) as edge:
        yield edge


def texts(blocks: list[Block]) -> dict[tuple[str, int], str]:
    """What each attempt of each run has said."""
    found: dict[tuple[str, int], str] = {}
    for block in blocks:
        if block.name == "run.delta":
            said = block.said
            spoken = (said["run"], said["attempt"])
            found[spoken] = found.get(spoken, "") + said["text"]
    return found


async def follow(edge: Edge, asked: Any) -> list[Block]:
    """Everything up to the end of the batch, from its beginning."""
    path = f"/v1/conversations/{asked['conversation_id']}/events?after=0"
    async with feed(edge, path) as stream:
        return await stream.until("batch.finished")


async def are_speaking(edge: Edge, asked: Any) -> bool:
    """Whether some of both answers is stored."""
    view = (await edge.get(f"/v1/conversations/{asked['conversation_id']}")).json()
    return [one["text"] for one in view["running"]] == ["It is a ", "It is a "]


@pytest.mark.promise("AC-05", "AC-07", "AC-08", "AC-17", "AC-19", "AC-46", "AC-50")
async def test_a_host_killed_mid_word_costs_one_more_call_and_nothing_is_glued(
    edge: Edge, hosts: list[Process], upstreams: tuple[Upstream, Upstream]
) -> None:
    picture: Files = [("files", ("pixel.png", png(), "image/png"))]
    for upstream in upstreams:
        upstream.next("hold-middle=2")
    asked = await ask(edge, "what is this?", BOTH, files=picture)
    following = asyncio.create_task(follow(edge, asked))
    await asyncio.gather(*(upstream.held() for upstream in upstreams))
    await until_known(lambda: are_speaking(edge, asked))
    await hosts[1].start()
    await hosts[1].say("host_ready")
    await hosts[0].kill()
    found = await polled(edge, asked, PATIENCE)
    blocks = await following
    history = (await edge.get(history_of(asked))).json()
    superseded = [block.said for block in blocks if block.name == "run.superseded"]
    final = {one["run"]: one["attempt"] for one in superseded}

    assert found["status"] == "SUCCESS"
    assert [one["response_text"] for one in found["results"]] == [WHOLE, WHOLE]
    assert [one["content"] for one in history] == ["what is this?", WHOLE, WHOLE]
    assert len(final) == 2
    assert sorted(texts(blocks).values()) == ["It is a "] * 2 + [WHOLE] * 2
    for (run, attempt), text in texts(blocks).items():
        assert text == WHOLE if attempt == final[run] else WHOLE.startswith(text)
    for upstream in upstreams:
        assert len(upstream.asked) == 2
        assert "image/png" in str(upstream.asked[1].body)
