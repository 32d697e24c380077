"""A person takes a conversation while models stream in it at full speed, and so does another."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.store.server import EmbeddedServer
from runtime.streams import ensure_streams
from schemas.conversation import BatchOpened
from schemas.ownership import Held, Release, SayManual
from schemas.record import Refusal
from tests.cluster import Cluster, login
from tests.integration.answering import opening
from tests.integration.conftest import Connect
from tests.integration.ward import AGENTS, Ward, ward

ROUNDS = 12


def rounds(request: pytest.FixtureRequest) -> int:
    """How many rounds are run: few, unless more are asked for."""
    return int(request.config.getoption("--takeover-rounds")) or ROUNDS


def one_server(url: str, connect: Connect) -> AbstractAsyncContextManager[Ward]:
    async def open_bus(kind: str) -> Bus:
        opened = await connect(url)
        await ensure_streams(opened)
        return opened

    return ward(open_bus)


async def play(each: Ward, count: int, report: pytest.FixtureRequest) -> None:
    for number in range(count):
        await each.round(number)
    for number in range(count):  # also of what came late
        await each.look_at(f"c{number}")
    report.node.user_properties.append(("takeovers", str(each.tally)))

    assert each.tally.rounds == sum(each.tally.winners.values()) == count
    assert each.tally.before >= 3 * count


@pytest.mark.promise("FD-28", "FD-43", "FD-69")
@pytest.mark.timeout(900)
async def test_nothing_of_the_bot_follows_a_takeover_and_of_two_agents_one_has_it(
    bus: Bus, shared_server: EmbeddedServer, connect: Connect, request: pytest.FixtureRequest
) -> None:
    async with one_server(shared_server.url, connect) as each:
        await play(each, rounds(request), request)


@pytest.mark.slow
@pytest.mark.promise("FD-28", "FD-43", "FD-69")
@pytest.mark.timeout(1800)
async def test_the_same_on_three_servers(
    nats_server_binary: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--takeover-rounds"):
        pytest.skip("the long form: give --takeover-rounds")
    cluster, links = Cluster(tmp_path, nats_server_binary), []

    async def connect(kind: str) -> Bus:
        links.append(Connection(cluster.urls, **login(kind)))
        await links[-1].open()
        opened = Bus(links[-1])
        await ensure_streams(opened, replicas=3)
        return opened

    try:
        await cluster.start()
        async with ward(connect) as each:
            await play(each, rounds(request), request)
    finally:
        for link in links:
            await link.close()
        await cluster.stop()


@pytest.mark.promise("FD-26", "FD-27", "FD-28", "FD-51", "FD-69")
async def test_a_conversation_is_the_agents_until_they_give_it_back(
    bus: Bus, shared_server: EmbeddedServer, connect: Connect
) -> None:
    async with one_server(shared_server.url, connect) as each:
        await each.round(0)
        winner = (await each.state("c0")).hold.assignee
        asked = await each.ask("c0", opening("one"))
        heard = await each.ask("c0", SayManual(content="are you there?", role="user"))
        said = await each.ask("c0", SayManual(content="I am", agent=winner))
        refused = [
            await each.ask("c0", Release(agent=agent.id)) for agent in AGENTS if agent != winner
        ]
        released = await each.ask("c0", Release(agent=winner.id if winner else ""))
        again = await each.ask("c0", opening("one"))
        log = await each.log("c0")
    manual = [one for one in log if one.type == "message.manual"]

    assert isinstance(asked, Refusal)
    assert (asked.code, asked.status) == ("MANUAL_IN_PROGRESS", 409)
    assert [(one.data["role"], one.data["content"]) for one in manual] == [
        (role, content)
        for role, content in (("user", "are you there?"), ("agent", "I am"))
        for _ in ("conversation", "history")
    ]
    assert [one.data["id"] for one in manual] == [heard.id] * 2 + [said.id] * 2
    assert [(one.code, one.status) for one in refused] == [("NOT_YOURS", 403)]
    assert isinstance(released, Held)
    assert isinstance(again, BatchOpened)
