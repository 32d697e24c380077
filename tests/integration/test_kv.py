"""What configuration, heartbeats and nonces rely on: of two who create, one does."""

import asyncio
from datetime import timedelta

import pytest

from runtime.bus import Bus
from runtime.kv import Bucket
from runtime.store.server import EmbeddedServer
from tests.integration.conftest import Connect
from tests.integration.waiting import until, until_known

SECOND = timedelta(seconds=1)


@pytest.fixture
def nodes(bus: Bus) -> Bucket:
    return Bucket(bus, "nodes")


async def test_a_value_is_read_with_its_revision_and_replaced(nodes: Bucket) -> None:
    revisions = [await nodes.put("a", b"1"), await nodes.put("a", b"2")]
    found = await nodes.get("a")

    assert found is not None
    assert (found.data, found.seq) == (b"2", revisions[1])
    assert revisions == [1, 2]
    assert await nodes.get("b") is None


async def test_of_many_who_create_a_key_at_once_one_does(
    bus: Bus, shared_server: EmbeddedServer, connect: Connect
) -> None:
    buckets = [Bucket(await connect(shared_server.url), "identities") for _ in range(8)]
    rounds = []
    for n in range(20):
        creating = (b.create(f"nonce.{n}", b"%d" % i) for i, b in enumerate(buckets))
        created = await asyncio.gather(*creating)
        found = await buckets[0].get(f"nonce.{n}")
        rounds.append(
            (sum(created), found is not None and found.data == b"%d" % created.index(True))
        )

    assert rounds == [(1, True)] * 20


async def test_a_key_that_was_deleted_is_gone_and_may_be_created_by_one_again(
    nodes: Bucket,
) -> None:
    await nodes.put("a", b"1")
    await nodes.put("b", b"1")
    await nodes.delete("a")
    gone = await nodes.get("a")
    left = list(await nodes.all())
    created = await asyncio.gather(*(nodes.create("a", b"%d" % n) for n in range(5)))
    found = await nodes.get("a")

    assert gone is None
    assert left == ["b"]
    assert sorted(created) == [False] * 4 + [True]
    assert found is not None


async def test_a_key_goes_when_its_time_is_up_and_may_be_created_again(nodes: Bucket) -> None:
    async def gone() -> bool:
        return await nodes.get("a") is None

    assert await nodes.create("a", b"1", ttl=SECOND)
    assert not await nodes.create("a", b"2", ttl=SECOND)
    assert await until_known(gone)
    assert await nodes.create("a", b"3")


async def test_a_heartbeat_keeps_its_key(nodes: Bucket) -> None:
    await nodes.put("a", b"1", ttl=SECOND)
    await nodes.put("witness", b"", ttl=SECOND)
    await nodes.put("a", b"2", ttl=timedelta(seconds=60))

    async def gone() -> bool:
        return await nodes.get("witness") is None

    await until_known(gone)

    assert list(await nodes.all()) == ["a"]


async def test_the_mark_of_a_deletion_goes_too_if_it_is_to(bus: Bus, nodes: Bucket) -> None:
    await nodes.put("a", b"1")
    await nodes.delete("a", forget=SECOND)
    marked = await bus.last("$KV.nodes.a", stream="KV_nodes")

    async def forgotten() -> bool:
        return await bus.last("$KV.nodes.a", stream="KV_nodes") is None

    assert marked is not None
    assert await nodes.get("a") is None
    assert await until_known(forgotten)


@pytest.mark.parametrize("count", [0, 3, 1100])
async def test_all_keys_are_found_however_many_there_are(nodes: Bucket, count: int) -> None:
    await asyncio.gather(*(nodes.put(f"k.{n}", b"%d" % n) for n in range(count)))
    found = await nodes.all()

    assert {key: one.data for key, one in found.items()} == {
        f"k.{n}": b"%d" % n for n in range(count)
    }


async def test_every_change_is_hinted_twice_since_the_first_hint_may_be_early(
    bus: Bus, shared_server: EmbeddedServer, connect: Connect
) -> None:
    mine, theirs = Bucket(bus, "config"), Bucket(await connect(shared_server.url), "config")
    seen: dict[str, bytes] = {}
    reading: set[asyncio.Task[None]] = set()

    async def read() -> None:
        seen.update({key: one.data for key, one in (await mine.all()).items()})

    def changed() -> None:
        reading.add(asyncio.create_task(read()))

    mine.watch(changed)
    await mine.get("settled")  # the server knows of the watch
    for n in range(50):
        await theirs.put(f"k{n % 5}", b"%d" % n)
    await until(lambda: len(reading) == 100)
    await asyncio.gather(*reading)

    assert seen == {f"k{n}": b"%d" % (45 + n) for n in range(5)}
