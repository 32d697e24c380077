"""The store is down or slow: the bot says nothing where it cannot know that it may."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.store.server import EmbeddedServer
from schemas.base import Address
from schemas.conversation import TaskFinished
from schemas.model import conversation_topic
from schemas.ownership import ModeChanged
from schemas.record import Delta
from tests.integration.havoc import Client, Place
from tests.integration.ledgers import Entry, only, read, spoken_over
from tests.integration.waiting import until_known

ANSWERED_WITHIN = 30.0
SPOKEN_WITHIN = 60.0
RATE = 10
WORDS = {"taken": 400, "goes-on": 60}
"""Nobody hears the end of the longer one: a person comes before."""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def place(own_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path, own_server, hosts=1, edges=1, rate=RATE)
    try:
        await place.start()
        yield place
    finally:
        if own_server.pid:
            os.kill(own_server.pid, signal.SIGCONT)
        await place.stop()


class Outage:
    """A store that is gone, or does not answer, and comes back."""

    def __init__(self, server: EmbeddedServer, kind: str) -> None:
        self._server = server
        self._kind = kind

    async def begin(self) -> None:
        if self._kind == "down":
            await self._server.kill()
        else:
            os.kill(self._server.pid, signal.SIGSTOP)

    async def end(self) -> None:
        if self._kind == "down":
            await self._server.start()
        else:
            os.kill(self._server.pid, signal.SIGCONT)


async def told(place: Place, name: str) -> list[Entry]:
    return await read(place.kit, conversation_topic(name))


async def begin(client: Client, name: str) -> asyncio.Task[None]:
    """Ask the bot for a long answer, and return while it speaks."""
    begun = asyncio.Event()
    body = {"message": f"{name} " + "word " * WORDS[name], "user_id": name}
    streaming = asyncio.create_task(client.stream(body, begun))
    async with asyncio.timeout(ANSWERED_WITHIN):
        await begun.wait()
    return streaming


async def ask_all(url: str, names: tuple[str, ...]) -> dict[str, httpx.Response]:
    """Everything that can be asked while the store does not answer; each ends in time."""
    posts = [(path, name) for path in ("/api/chat", "/api/chat/stream") for name in names]
    gets = ("/api/sessions", "/api/sessions/queue", "/api/health")
    async with httpx.AsyncClient(trust_env=False, timeout=ANSWERED_WITHIN, base_url=url) as http:
        asked = [http.post(path, json={"message": "?", "user_id": name}) for path, name in posts]
        asked += [http.get(path) for path in gets]
        answers = await asyncio.gather(*asked)
    names_of = [f"{path} {name}" for path, name in posts] + list(gets)
    return dict(zip(names_of, answers, strict=True))


async def take(client: Client, name: str) -> Any:
    body = {"agent_id": "ann", "agent_name": "Ann"}
    answer = await client.post(f"/api/sessions/{name}/takeover", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.promise("FD-28", "FD-36", "FD-69")
@pytest.mark.parametrize("kind", ["down", "slow"])
async def test_without_its_store_the_bot_is_silent_and_all_else_says_so(
    place: Place, kind: str
) -> None:
    (url,) = place.urls
    names = ("held", "taken", "goes-on")
    clients = {name: place.client(name) for name in names}
    outage = Outage(place.server, kind)
    await take_over_new(clients["held"])
    streams = [await begin(clients[name], name) for name in names[1:]]
    await outage.begin()
    taking = asyncio.create_task(take(clients["taken"], "taken"))
    answers = await ask_all(url, (*names, "new"))
    health = answers.pop("/api/health")
    lists = [answers.pop(path) for path in ("/api/sessions", "/api/sessions/queue")]
    await outage.end()
    await taking
    await asyncio.gather(*streams)

    async def has_ended() -> bool:
        state = await place.kit.state(Address("session", "goes-on"))
        return bool(only(await told(place, "goes-on"), TaskFinished)) and not state.live

    await until_known(has_ended, SPOKEN_WITHIN)
    await place.kit.settled(SPOKEN_WITHIN)
    changes = only(await told(place, "taken"), ModeChanged)
    ends = only(await told(place, "goes-on"), TaskFinished)

    assert {answer.status_code for answer in answers.values()} <= {503, 504}, answers
    assert all("answer" not in answer.json() for answer in answers.values())
    assert {answer.status_code for answer in lists} <= {200, 503}
    assert health.json()["status"] in ("degraded", "unhealthy")
    assert only(await told(place, "held"), Delta) == []
    assert [one.data["mode"] for one in changes] == ["pending_manual", "manual_live"]
    assert only(await told(place, "taken"), Delta)
    for name in names:
        assert spoken_over(await told(place, name)) == []
    assert ends[0].data["status"] == "SUCCESS"
    assert len({one.data["task"] for one in ends}) == len(ends)
    assert await place.kit.dead_letters() == []


async def take_over_new(client: Client) -> None:
    """A conversation that a person has from its beginning."""
    body = {"session_name": "held", "reason": "help"}
    assert (await client.post("/api/manual/escalate", body)).status_code == 200
    await take(client, "held")
