"""Who owns what when hosts come, go, freeze and die: nothing is lost, doubled or reordered."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime import pinned
from runtime.bus import Bus
from runtime.heartbeat import EVERY
from runtime.host import Host
from runtime.store.server import EmbeddedServer
from schemas.subjects import shard_of
from tests.integration.stage import ALL, KEYS, Stage, until_owned
from tests.integration.waiting import until, until_known
from tests.proxy import Proxy


@pytest.fixture
async def stage(bus: Bus, shared_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(bus, shared_server.url, tmp_path)
    await stage.deploy("counter")
    yield stage
    await stage.close()


# -- coming and going -------------------------------------------------------------------------


async def test_a_host_that_is_alone_owns_every_shard_that_is_written_to(stage: Stage) -> None:
    host = await stage.host("a")
    await stage.write_all()
    await stage.all_heard()

    assert host.holdings.owned() == {"counter": ALL}


async def test_hosts_that_join_under_load_get_their_shards_and_nothing_is_lost(
    stage: Stage,
) -> None:
    await stage.host("a")
    async with stage.load():
        await stage.at_rest("a")
        await stage.host("b")
        await stage.at_rest("a", "b")
        await stage.host("c")
        await stage.at_rest("a", "b", "c")
    await stage.all_heard()


async def test_hosts_that_leave_under_load_give_their_shards_away(stage: Stage) -> None:
    for name in ("a", "b", "c"):
        await stage.host(name)
    async with stage.load():
        await stage.at_rest("a", "b", "c")
        await stage.leave("b")
        await stage.at_rest("a", "c")
        await stage.leave("a")
        await stage.at_rest("c")
    await stage.all_heard()


async def test_two_that_leave_at_once_are_followed_by_the_third(stage: Stage) -> None:
    for name in ("a", "b", "c"):
        await stage.host(name)
    async with stage.load():
        await stage.at_rest("a", "b", "c")
        await asyncio.gather(stage.leave("a"), stage.leave("b"))
        await stage.at_rest("c")
    await stage.all_heard()


async def test_who_leaves_is_followed_by_messages_and_not_by_the_end_of_a_pin(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that the test would fail if anybody waited for it.
    monkeypatch.setattr("runtime.shard.PIN_TIMEOUT", 60.0)
    await stage.host("a")
    await stage.host("b")
    await stage.at_rest("a", "b")
    await stage.leave("a")
    await stage.write_all()
    await stage.all_heard()

    assert stage.hosts["b"].holdings.owned() == {"counter": ALL}


async def test_hosts_take_part_only_for_the_types_they_run(stage: Stage) -> None:
    await stage.deploy("counter", "other")
    await stage.host("a", "counter")
    await stage.host("b", "counter", "other")
    await stage.host("c", "other")
    await stage.at_rest("a", "b", actor="counter")
    await stage.at_rest("b", "c", actor="other")
    nodes = await stage.nodes()

    assert "other" not in nodes["a"].owned
    assert "counter" not in nodes["c"].owned


# -- dying ------------------------------------------------------------------------------------


async def test_keys_of_a_killed_host_are_served_by_the_others(stage: Stage) -> None:
    victim = await stage.process("a")
    await stage.host("b")
    async with stage.load():
        await stage.at_rest("a", "b")
        await victim.kill()
        await stage.write_all()
        await until_owned(stage.hosts["b"], ALL)
    await stage.all_heard()


async def test_two_hosts_that_are_killed_at_once_are_followed_by_the_third(stage: Stage) -> None:
    victims = [await stage.process("a"), await stage.process("b")]
    await stage.host("c")
    async with stage.load():
        await stage.at_rest("a", "b", "c")
        await asyncio.gather(*(one.kill() for one in victims))
        await until_owned(stage.hosts["c"], ALL)
    await stage.all_heard()


async def test_a_frozen_owner_is_replaced_and_gets_its_shards_back_when_it_wakes(
    stage: Stage,
) -> None:
    frozen = await stage.process("a")
    await stage.host("b")
    async with stage.load():
        await stage.at_rest("a", "b")
        frozen.send(signal.SIGSTOP)
        await until_owned(stage.hosts["b"], ALL)
        frozen.send(signal.SIGCONT)
        await stage.at_rest("a", "b")
    await stage.all_heard()


# -- not knowing ------------------------------------------------------------------------------


async def test_an_owner_without_a_heartbeat_is_made_to_give_up_its_pin(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned, "CONTEST_AFTER", 0.5)
    wedged = await stage.host("a")
    await stage.at_rest("a")
    wedged._neighbours.close()
    await wedged._heartbeat.leave()
    owner = await stage.host("b")
    async with stage.load():
        await until_owned(owner, ALL)
        await until(lambda: wedged.holdings.owned() == {"counter": []})
    await stage.all_heard()

    assert owner.holdings.owned() == {"counter": ALL}


async def test_a_host_that_hears_nothing_of_others_keeps_what_it_has(stage: Stage) -> None:
    first, second = await stage.host("a"), await stage.host("b")
    await stage.at_rest("a", "b")
    before = [one.holdings.owned() for one in (first, second)]
    first._neighbours.close()
    await until(lambda: first._neighbours.deaf)
    first.holdings.apply()
    await stage.write_all()
    await stage.all_heard()

    assert [one.holdings.owned() for one in (first, second)] == before


async def test_without_the_bucket_everybody_goes_on_as_before(stage: Stage) -> None:
    hosts = [await stage.host("a"), await stage.host("b")]
    await stage.at_rest("a", "b")
    before = [one.holdings.owned() for one in hosts]
    await stage.bus.api("STREAM.DELETE.KV_nodes")
    await asyncio.gather(*(heard_itself(one, 2 * EVERY) for one in hosts))
    await stage.write_all()
    await stage.all_heard()

    assert [one.holdings.owned() for one in hosts] == before


async def heard_itself(host: Host, seconds: float) -> None:
    """Wait until a host has heard itself for so long."""
    now = asyncio.get_running_loop().time()
    await until(lambda: host._neighbours._own > now + seconds)


async def test_a_host_that_was_cut_off_is_replaced_and_comes_back(
    stage: Stage, proxy: Proxy
) -> None:
    await stage.host("a", url=proxy.url)
    await stage.host("b")
    async with stage.load():
        await stage.at_rest("a", "b")
        proxy.swallow()
        await until_owned(stage.hosts["b"], ALL)
        proxy.cut()
        proxy.heal()
        await stage.at_rest("a", "b")
    await stage.all_heard()


async def test_a_host_of_the_same_name_is_told_of(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.host("a")
    await stage.process("a")

    async def is_told() -> bool:
        return "host_name_taken" in capsys.readouterr().out

    await until_known(is_told)


def test_the_keys_of_these_tests_are_of_every_shard() -> None:
    assert {shard_of("counter", key) for key in KEYS} == set(ALL)
