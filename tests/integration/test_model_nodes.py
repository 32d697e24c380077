"""Nodes that offer themselves as upstreams by a value with an end, and what hosts tell of them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import msgspec
import pytest

from actors.models import watch
from runtime.kv import Bucket
from runtime.testing import Kit
from schemas.upstream import (
    RegisteredNode,
    UpstreamReport,
    UpstreamSeen,
    node_key,
    seen_key,
)
from tests.integration.talking import talking
from tests.integration.wordy import Wordy, options, wordy_spoken

pytestmark = pytest.mark.usefixtures("wordy_spoken", "in_a_hurry")
__all__ = ["wordy_spoken"]


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and tell more often than hosts do."""
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.5)
    monkeypatch.setattr(watch, "SOONEST", 0.1)


@pytest.fixture
async def node() -> AsyncIterator[Wordy]:
    """A node that answers."""
    async with Wordy() as one:
        yield one


async def offer(kit: Kit, name: str, url: str, *, seconds: float = 30, serves: str = "m") -> None:
    """Say what a node offers, once."""
    value = RegisteredNode(name=name, url=url, serves=(serves,), paths=2, at=datetime.now(UTC))
    nodes = Bucket(kit.bus, "nodes")
    await nodes.put(node_key(name), msgspec.json.encode(value), ttl=timedelta(seconds=seconds))


async def seen(kit: Kit, *names: str) -> tuple[UpstreamSeen, ...]:
    """Wait until the host's report names exactly these upstreams."""
    async with asyncio.timeout(25):
        while True:
            stored = await Bucket(kit.bus, "nodes").get(seen_key("model", kit.host.name))
            if stored:
                report = msgspec.json.decode(stored.data, type=UpstreamReport)
                if {one.name for one in report.upstreams} == set(names):
                    return report.upstreams
            await asyncio.sleep(0.05)


@pytest.mark.promise("AC-13", "AC-52")
async def test_a_node_that_offers_itself_is_asked_until_it_falls_silent(node: Wordy) -> None:
    async with talking(options(registry=True)) as talk:
        before = await talk.ask()
        await offer(talk.kit, "gemini-1", node.url, seconds=2)
        (shown,) = await seen(talk.kit, "gemini-1")
        result = await talk.ask()
        await seen(talk.kit)
        after = await talk.ask()

    assert (before.outcome, before.code, before.status) == ("failed", "unreachable", 502)
    assert (result.outcome, result.upstream) == ("answered", "gemini-1")
    assert (shown.status, shown.registered, shown.paths) == ("HEALTHY", True, 2)
    assert after.outcome == "failed"
    assert node.calls[0]["key"] == ""


async def test_offers_to_others_and_from_where_none_may_come_are_passed_over(
    node: Wordy,
) -> None:
    given = options(
        registry={"networks": ["10.0.0.0/8"]}, upstreams=[{"url": node.url, "name": "u"}]
    )
    async with talking(given) as talk:
        await offer(talk.kit, "local", node.url)
        await offer(talk.kit, "other", "http://10.1.2.3", serves="another model")
        await offer(talk.kit, "u", "http://10.1.2.3")
        await offer(talk.kit, "far", "http://10.1.2.3:8000/v1")
        shown = await seen(talk.kit, "u", "far")

    assert {one.name: one.url for one in shown} == {"u": node.url, "far": "http://10.1.2.3:8000/v1"}


async def test_a_deployment_that_takes_no_offers_hears_none(node: Wordy) -> None:
    async with talking(options(node)) as talk:
        await offer(talk.kit, "local", node.url, serves="model")
        result = await talk.ask()
        await seen(talk.kit, "u1")

    assert result.upstream == "u1"


async def test_a_name_is_called_by_the_address_that_was_looked_at() -> None:
    local = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

    assert await watch.locate("http://localhost:9000/v1/", local) in (
        "http://127.0.0.1:9000/v1",
        "http://[::1]:9000/v1",
    )
    with pytest.raises(ValueError, match=r"10\.0\.0\.1 is 10\.0\.0\.1, expected one in 127"):
        await watch.locate("http://10.0.0.1/v1", local)
    with pytest.raises(ValueError, match=r"169\.254\.169\.254"):
        await watch.locate("http://169.254.169.254/latest", local)
    with pytest.raises(ValueError, match="secrets do not belong"):
        await watch.locate("http://a:b@127.0.0.1/", local)
