"""What hosts and edges do when the store gets into trouble while they run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from actors.master import Master
from runtime.alarm import ALARMS
from runtime.bus import Bus
from runtime.errors import ConfigError, DataMissing, NoRoom
from runtime.open import open_bus
from runtime.store.marks import FOR_EVER, Mark, MarkFile, newest, note_mark, read_marks
from runtime.store.storewatch import SURE_OF_REPLICAS, StoreWatch
from runtime.tables import NatsTable
from runtime.testing import Kit, running
from schemas.node import StoreTrouble
from schemas.record import Alarm
from tests.integration.edges import Edge, serving

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with running(master=Master) as kit:
        yield kit


@asynccontextmanager
async def watched(bus: Bus) -> AsyncIterator["asyncio.Queue[StoreTrouble]"]:
    """What a process of its own hears of the store, as it changes."""
    heard: asyncio.Queue[StoreTrouble] = asyncio.Queue()
    store = StoreWatch(bus, heard=heard.put_nowait)
    await store.look()
    task = asyncio.create_task(store.run())
    await asyncio.sleep(0)
    await bus.api("INFO")  # answered after the server has heard that it listens
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def next_of(heard: "asyncio.Queue[StoreTrouble]") -> StoreTrouble:
    return await asyncio.wait_for(heard.get(), 10)


async def until_marked(bus: Bus, seq: int) -> None:
    async with asyncio.timeout(10):
        while True:  # marks are noted, not told
            mark = (await read_marks(bus)).get(bus.stream)
            if mark is not None and mark.last_seq >= seq:
                return
            await asyncio.sleep(0.05)


async def trouble_of(edge: Edge) -> None:
    async with asyncio.timeout(10):
        while not edge.shared.store.trouble.kind:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_on_a_cluster_what_is_gone_must_stay_away_for_longer(kit: Kit) -> None:
    """A leader that is cut off from the others may say less than they have, for a while."""
    watch = StoreWatch(kit.bus)
    await watch.look()
    kit.bus.replicas = 3
    await kit.bus.api("STREAM.DELETE.BUS")
    told = []
    for _ in range(SURE_OF_REPLICAS):
        await watch.look()
        told.append(watch.trouble.kind)

    assert told == [""] * (SURE_OF_REPLICAS - 1) + ["damaged"]


async def test_a_stream_that_is_deleted_ends_the_host_and_closes_the_edge(kit: Kit) -> None:
    async with serving(kit.server.url) as edge:
        edge.child = "master"
        await edge.say("before")
        await until_marked(kit.bus, 1)
        await kit.bus.api("STREAM.DELETE.BUS")
        with pytest.raises(DataMissing, match="the stream BUS is not there any more"):
            await asyncio.wait_for(asyncio.shield(kit.host.failed), 10)
        await trouble_of(edge)
        refused = [await edge.get("/api/relay/logs"), await edge.post("/api/relay/send", {})]
        health = await edge.get("/health")
        with pytest.raises(DataMissing, match="is not there any more"):
            await open_bus(NatsTable(url=kit.server.url))
        streams = (await kit.bus.api("STREAM.NAMES"))["streams"]

    assert [answer.status_code for answer in refused] == [503, 503]
    assert {answer.json()["code"] for answer in refused} == {"data_missing"}
    assert (health.status_code, health.json()["status"]) == (503, "unavailable")
    assert "is not there any more" in health.json()["store"]
    assert "BUS" not in streams, "nobody may create it anew"


async def test_a_stream_that_was_created_anew_is_not_taken_for_the_one_it_was(kit: Kit) -> None:
    await kit.bus.publish("event.t.a", b"kept")
    async with watched(kit.bus) as heard:
        config = (await kit.bus.api("STREAM.INFO.BUS"))["config"]
        await kit.bus.api("STREAM.DELETE.BUS")
        await kit.bus.api("STREAM.CREATE.BUS", config)
        said = await next_of(heard)

    assert said.kind == "damaged"
    assert "the stream BUS ends at 0, it had got to " in said.detail


async def test_a_server_without_room_is_told_to_all_and_alarmed_when_there_is_room(
    kit: Kit,
) -> None:
    async with serving(kit.server.url) as edge, watched(kit.bus) as heard:
        kit.host.system.committer.no_room(NoRoom("insufficient storage"))
        said = await next_of(heard)
        alarm = await kit.event(ALARMS, Alarm)
        fine = await next_of(heard)
        health = await edge.get("/health")

    assert said == StoreTrouble("full", "nats-server has no room: insufficient storage")
    assert (alarm.what, alarm.detail) == ("no_room", "insufficient storage")
    assert fine == StoreTrouble()
    assert health.status_code == 200


async def test_what_is_told_of_trouble_is_forgotten_when_it_is_told_no_more(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.store.storewatch.TOLD_FOR", 0.5)
    async with watched(kit.bus) as heard:
        kit.bus.notify("$KV.nodes.store", b'{"kind":"full","detail":"somebody said"}')
        said, then = await next_of(heard), await next_of(heard)

    assert (said.kind, then.kind) == ("full", "")


async def test_a_mark_is_never_lowered_unless_the_stream_is_another(bus: Bus) -> None:
    await note_mark(bus, "BUS", Mark("one", 10, NOW))
    await note_mark(bus, "BUS", Mark("one", 9, NOW))
    kept = (await read_marks(bus))["BUS"]
    await note_mark(bus, "BUS", Mark("two", 3, NOW))
    other = (await read_marks(bus))["BUS"]

    assert kept.last_seq == 10
    assert (other.created, other.last_seq) == ("two", 3)


def test_a_file_of_marks_is_never_lowered_and_says_when_it_is_none(tmp_path: Path) -> None:
    file = MarkFile(tmp_path / "marks.json")
    empty = file.read()
    file.note({"BUS": Mark("one", 10, NOW, FOR_EVER), "KV_config": Mark("one", 2, NOW)})
    file.note({"BUS": Mark("one", 9, NOW)})
    kept = file.read()
    file.path.write_text('{"marks": 1}')

    assert empty.marks == {}
    assert {name: mark.last_seq for name, mark in kept.marks.items()} == {
        "BUS": 10,
        "KV_config": 2,
    }
    with pytest.raises(ConfigError, match="cannot be read as high-water marks"):
        file.read()


def test_of_two_incarnations_the_one_that_was_seen_last_counts() -> None:
    old, new = Mark("one", 10, NOW), Mark("two", 3, NOW + timedelta(hours=1))

    assert newest({"BUS": old}, {"BUS": new}) == newest({"BUS": new}, {"BUS": old}) == {"BUS": new}
