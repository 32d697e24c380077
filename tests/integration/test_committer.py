"""What turns and runs rely on: many commits share a batch, and none pays for another."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from runtime.bus import GROUP_MESSAGES, Bus, Outgoing, Stored, expect
from runtime.committer import FEW, GROUP_BYTES, WORTH_A_FLIGHT, Committer
from runtime.errors import Conflict, Denied, Unavailable, Unknown
from tests.integration.conftest import Connect
from tests.integration.waiting import until, until_known
from tests.proxy import Proxy

Settled = list[int | BaseException]


def out(subject: str, data: bytes = b"", headers: dict[str, str] | None = None) -> Outgoing:
    return Outgoing(subject, data, headers or {})


@pytest.fixture
async def committer(bus: Bus) -> AsyncIterator[Committer]:
    committer = Committer(bus)
    task = asyncio.create_task(committer.run())
    yield committer

    assert not task.done()
    task.cancel()


async def settle(futures: list[asyncio.Future[int]]) -> Settled:
    async with asyncio.timeout(10):
        return await asyncio.gather(*futures, return_exceptions=True)


async def stored(bus: Bus, pattern: str) -> list[Stored]:
    return await bus.read_all(pattern, after=0)


def batch_of(one: Stored) -> str:
    """Which batch a message was stored by; one that came alone has none."""
    return one.headers.get("Nats-Batch-Id", f"alone {one.seq}")


# -- groups -----------------------------------------------------------------------------------


async def test_commits_that_wait_at_the_same_moment_share_a_batch(
    bus: Bus, committer: Committer
) -> None:
    commits = [[out(f"state.a.k{n}", b"%d" % n), out("event.t.a", b"%d" % n)] for n in range(300)]
    firsts = await settle([committer.submit(commit, f"k{n}") for n, commit in enumerate(commits)])
    found = await stored(bus, ">")

    assert firsts == list(range(1, 600, 2))
    assert [one.data for one in found] == [b"%d" % (n // 2) for n in range(600)]
    assert (committer.committed, committer.groups) == (300, 1)


async def test_a_group_holds_no_more_than_the_server_takes(bus: Bus, committer: Committer) -> None:
    commits = [[out(f"state.a.k{n}")] * 300 for n in range(7)]
    commits += [[out(f"state.b.k{n}", b"x" * (GROUP_BYTES // 2))] for n in range(3)]
    firsts = await settle([committer.submit(commit) for commit in commits])
    found = await stored(bus, ">")
    sizes = Counter(batch_of(one) for one in found)
    large = Counter(batch_of(one) for one in found if one.subject.startswith("state.b."))

    assert all(isinstance(first, int) for first in firsts)
    assert sum(sizes.values()) == 2103
    assert max(sizes.values()) <= GROUP_MESSAGES
    assert max(large.values()) == 1


async def test_two_commits_of_one_lane_never_share_a_batch_and_keep_their_order(
    bus: Bus, committer: Committer
) -> None:
    lanes = [f"k{n % 4}" for n in range(80)]
    await settle(
        [committer.submit([out(f"event.t.{x}", b"%d" % n)], x) for n, x in enumerate(lanes)]
    )
    found = [await stored(bus, f"event.t.k{n}") for n in range(4)]

    assert [[int(one.data) for one in lane] for lane in found] == [
        list(range(n, 80, 4)) for n in range(4)
    ]
    assert all(len({batch_of(one) for one in lane}) == len(lane) for lane in found)


async def test_a_few_single_messages_are_stored_without_a_batch(
    bus: Bus, committer: Committer
) -> None:
    firsts = await settle([committer.submit([out(f"event.t.k{n}")]) for n in range(FEW)])
    found = await stored(bus, ">")

    assert firsts == list(range(1, FEW + 1))
    assert not any("Nats-Batch-Id" in one.headers for one in found)


async def test_one_of_a_few_that_is_refused_takes_none_of_the_others_with_it(
    bus: Bus, committer: Committer
) -> None:
    messages = [out("event.t.a"), out("event.t.b", b"", expect(7)), out("event.t.c")]
    results = await settle([committer.submit([message]) for message in messages])

    assert [type(one) for one in results] == [int, Conflict, int]


async def test_a_second_group_leaves_while_the_first_is_on_its_way_but_not_its_lanes(
    bus: Bus, proxy: Proxy, connect: Connect
) -> None:
    committer = Committer(await connect(proxy.url))
    task = asyncio.create_task(committer.run())
    proxy.swallow()
    group = [[out("event.t.a")] * WORTH_A_FLIGHT, [out("event.t.b")]]
    first = [committer.submit(commit, f"k{n}") for n, commit in enumerate(group)]
    await until_known(lambda: bus.last("event.t.b"))
    second = committer.submit([out("event.t.c")] * WORTH_A_FLIGHT, "another")
    same = committer.submit([out("event.t.d")], "k1")
    await until_known(lambda: bus.last("event.t.c"))
    not_yet = await bus.last("event.t.d")
    proxy.heal()
    proxy.cut()
    results = await settle([*first, second])
    await until(committer.bus.link.connected.is_set)
    later = await settle([same])
    task.cancel()

    assert not_yet is None
    assert [type(one) for one in results] == [Unknown] * 3
    assert isinstance(later[0], int | Unavailable)


async def test_a_commit_with_two_lanes_waits_for_both(bus: Bus, committer: Committer) -> None:
    submitted = [("a",), ("a", "b"), ("b",), ("c",)]
    futures = [committer.submit([out(f"event.t.{n}")], *lanes) for n, lanes in enumerate(submitted)]
    firsts = await settle(futures)

    # The last shares nothing, so it overtakes those that wait.
    assert firsts == [1, 3, 4, 2]


# -- one bad commit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoilt", "fault"),
    [
        (out("state.a.bad", b"", expect(7)), Conflict),
        (out("event.t.a", b"", expect(7, "run.r")), Conflict),
        (out("state.a.bad", b"", {"Nats-TTL": "soon"}), Denied),
        (out("state.a.bad", b"", {"Nats-Msg-Id": "seen"}), Denied),
        (out("nowhere.a.bad"), (Denied, Unavailable)),
        (out("state.a bad"), ValueError),
        (out("state.a.bad", b"x" * 2_000_000), ValueError),
    ],
    ids=["cas", "fence", "header", "duplicate", "no stream", "subject", "size"],
)
@pytest.mark.parametrize("at", [[0], [19], [3, 11]])
async def test_a_commit_that_is_refused_takes_none_of_its_group_with_it(
    bus: Bus,
    committer: Committer,
    spoilt: Outgoing,
    fault: type[Exception] | tuple[type[Exception], ...],
    at: list[int],
) -> None:
    await bus.publish("mail.b.k", b"", headers={"Nats-Msg-Id": "seen"})
    futures = []
    for n in range(20):
        commit = [out(f"state.a.k{n}"), *([spoilt] if n in at else []), out("event.t.b")]
        futures.append(committer.submit(commit, f"k{n}"))
    results = await settle(futures)

    assert [n for n, one in enumerate(results) if isinstance(one, fault)] == at
    assert sum(isinstance(one, int) for one in results) == 20 - len(at)
    assert len(await stored(bus, "state.a.*")) == 20 - len(at)
    assert {batch_of(one) for one in await stored(bus, "event.t.b")} == {
        batch_of(one) for one in await stored(bus, "state.a.*")
    }


async def test_a_waiter_that_gives_up_harms_nobody(bus: Bus, committer: Committer) -> None:
    futures = [committer.submit([out(f"state.a.k{n}")], f"k{n}") for n in range(10)]
    futures[3].cancel()
    results = await settle([one for n, one in enumerate(futures) if n != 3])
    later = await committer.submit([out("state.a.later")])

    assert all(isinstance(one, int) for one in results)
    assert later == len(await stored(bus, "state.a.*"))


async def test_a_waiter_that_gives_up_on_what_is_on_its_way_harms_nobody(
    bus: Bus, committer: Committer
) -> None:
    refused = [out("state.a.k0", b"", expect(7))]
    waiters = [
        asyncio.ensure_future(committer.submit(commit))
        for commit in (refused, [out("state.a.k1")], [out("state.a.k2")])
    ]
    await asyncio.sleep(0)  # the group is sent in this turn of the loop
    for waiter in waiters[:2]:
        waiter.cancel()
    last = await waiters[2]
    later = await committer.submit([out("state.a.later")])

    assert isinstance(last, int)
    assert later > last


# -- what is not known ------------------------------------------------------------------------


async def test_an_outcome_that_is_not_known_is_told_to_everyone_in_the_group(
    bus: Bus, proxy: Proxy, connect: Connect
) -> None:
    committer = Committer(await connect(proxy.url))
    task = asyncio.create_task(committer.run())
    proxy.swallow()
    futures = [committer.submit([out(f"state.a.k{n}")]) for n in range(5)]
    await until_known(lambda: bus.last("state.a.k4"))
    proxy.heal()
    proxy.cut()
    results = await settle(futures)
    await until(committer.bus.link.connected.is_set)
    later = await committer.submit([out("state.a.later")])
    task.cancel()

    assert [type(one) for one in results] == [Unknown] * 5
    assert later == 6


async def test_without_a_connection_nothing_is_sent_and_everyone_is_told(
    bus: Bus, proxy: Proxy, connect: Connect
) -> None:
    committer = Committer(await connect(proxy.url))
    task = asyncio.create_task(committer.run())
    lost = asyncio.Event()
    committer.bus.link.on_lost.append(lost.set)
    proxy.refuse()
    proxy.cut()
    await lost.wait()
    results = await settle([committer.submit([out(f"state.a.k{n}")]) for n in range(5)])
    proxy.heal()
    await until(committer.bus.link.connected.is_set)
    later = await committer.submit([out("state.a.later")])
    task.cancel()

    assert [type(one) for one in results] == [Unavailable] * 5
    assert [later] == [one.seq for one in await stored(bus, ">")]
