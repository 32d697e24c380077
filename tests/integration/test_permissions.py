"""What the server does not permit is told at once to whoever waits (P9), and by its name."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.errors import Denied, Unavailable, Unknown
from tests.integration.brokers import broker
from tests.integration.healing import HEALED_WITHIN, healed
from tests.integration.waiting import until_known

USERS = """
authorization {{ users: [
  {{ user: u, password: pw, permissions: {{ publish: {publish}, subscribe: {subscribe} }} }}
] }}
"""
ALL = '["event.>", "healed.>", "$JS.API.>", "_INBOX.>"]'


@pytest.fixture
async def permitted(nats_server_binary: str, tmp_path: Path) -> AsyncIterator[Connection]:
    """One who may publish a few things, on a server that tells him so."""
    settings = USERS.format(publish=ALL, subscribe='["healed.>", "_INBOX.>"]')
    async with broker(nats_server_binary, tmp_path, settings) as server:
        link = Connection([server.url], user="u", password="pw")
        await link.open(patient=False)
        link.subscribe("healed.reload", lambda _: None)
        yield link
        await link.close()


async def test_a_publish_that_is_not_permitted_fails_at_once_and_by_its_name(
    permitted: Connection,
) -> None:
    await healed(permitted)
    async with asyncio.timeout(HEALED_WITHIN):
        with pytest.raises(Denied, match=r"not allowed to publish to Mail\.a\.K"):
            await permitted.request("Mail.a.K", b"", timeout=60)
        with pytest.raises(Denied, match="not allowed to publish to secret"):
            await Bus(permitted).publish("secret", b"", timeout=60)
    await healed(permitted)

    assert permitted.epoch == 1


async def test_a_permission_that_is_taken_away_while_running_is_told_at_once(
    nats_server_binary: str, tmp_path: Path
) -> None:
    hears = '["healed.>", "_INBOX.>"]'
    settings = USERS.format(publish=ALL, subscribe=hears)
    async with broker(nats_server_binary, tmp_path, settings) as server:
        link = Connection([server.url], user="u", password="pw")
        await link.open(patient=False)
        with pytest.raises(Unavailable, match="nobody listens"):
            await link.request("event.t.a", b"", timeout=5)
        less = ALL.replace("event", "other")
        server.reload(USERS.format(publish=less, subscribe=hears))
        denied = await until_known(lambda: refusal(link, "event.t.a"), HEALED_WITHIN)
        await healed(link)
        await link.close()

    assert "not allowed to publish to event.t.a" in denied


async def refusal(link: Connection, subject: str) -> str:
    """What the server has against a question there; nothing if it lets it pass."""
    try:
        await link.request(subject, b"", timeout=60)
    except Denied as denied:
        return str(denied)
    except (Unavailable, Unknown):
        pass
    return ""


async def test_one_who_may_not_hear_his_answers_is_told_instead_of_waiting_for_them(
    nats_server_binary: str, tmp_path: Path
) -> None:
    settings = USERS.format(publish=ALL, subscribe='["_INBOX_other.>"]')
    async with broker(nats_server_binary, tmp_path, settings) as server:
        link = Connection([server.url], user="u", password="pw")
        await link.open(patient=False)
        async with asyncio.timeout(HEALED_WITHIN):
            with pytest.raises(Denied, match=r"not allowed to hear answers at _INBOX\."):
                await link.request("event.t.a", b"", timeout=60)
        await link.close()
