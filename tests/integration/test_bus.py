"""What the runtime relies on when it writes: acknowledged, once, together, or refused."""

import asyncio

import pytest

from runtime.bus import GROUP_MESSAGES, Bus, Outgoing, PubAck, Stored, expect, message_id
from runtime.codes import DUPLICATE
from runtime.committer import Committer
from runtime.errors import Conflict, Denied, Unavailable, Unknown
from runtime.store.server import EmbeddedServer
from schemas import subjects
from tests.integration.conftest import Connect
from tests.integration.faults import frozen, restart
from tests.integration.waiting import until, until_known
from tests.proxy import Proxy

ROLLUP = {"Nats-Rollup": "sub"}
BATCH_TOO_LARGE = 10199
INCOMPLETE = 10176
BAD_TTL = 10165


def out(subject: str, data: bytes = b"", **headers: str) -> Outgoing:
    return Outgoing(subject, data, {name.replace("_", "-"): v for name, v in headers.items()})


def states(count: int, key: str = "k") -> list[Outgoing]:
    return [out(f"state.a.{key}{n}", b"%d" % n) for n in range(count)]


async def stored(bus: Bus, pattern: str) -> list[bytes]:
    return [one.data for one in await bus.read_all(pattern, after=0)]


async def last_sequence(bus: Bus) -> int:
    return int((await bus.api(f"STREAM.INFO.{bus.stream}"))["state"]["last_seq"])


# -- one message ------------------------------------------------------------------------------


@pytest.mark.promise("CB-32")
async def test_what_is_acknowledged_is_there_for_everyone(
    bus: Bus, shared_server: EmbeddedServer, connect: Connect
) -> None:
    ack = await bus.publish("event.t.a", b"hello", headers={"Nats-TTL": "60s"})
    elsewhere = await connect(shared_server.url)
    found = await elsewhere.last("event.t.a")

    assert (ack.seq, ack.duplicate) == (1, False)
    assert found is not None
    assert (found.seq, found.subject, found.data) == (1, "event.t.a", b"hello")
    assert found.headers["Nats-TTL"] == "60s"


@pytest.mark.promise("CB-45")
async def test_many_who_publish_at_once_all_get_their_own_sequence(
    bus: Bus, shared_server: EmbeddedServer, connect: Connect
) -> None:
    others = [await connect(shared_server.url) for _ in range(5)]
    acks = await asyncio.gather(
        *(each.publish(f"event.t.{n}", b"") for n in range(100) for each in others)
    )

    assert sorted(ack.seq for ack in acks) == list(range(1, 501))


async def test_the_same_message_id_is_stored_once_also_after_a_restart(
    own_server: EmbeddedServer, own_bus: Bus
) -> None:
    headers = {"Nats-Msg-Id": message_id("key", "POST /", "1")}
    first = await own_bus.publish("mail.a.k", b"1", headers=headers)
    again = await own_bus.publish("mail.a.k", b"1", headers=headers)
    await restart(own_server)
    later = await until_known(lambda: publish_patiently(own_bus, headers))

    assert (first.seq, first.duplicate) == (1, False)
    assert (again.seq, again.duplicate) == (1, True)
    assert (later.seq, later.duplicate) == (1, True)


async def publish_patiently(bus: Bus, headers: dict[str, str]) -> PubAck | None:
    try:
        return await bus.publish("mail.a.k", b"1", headers=headers, timeout=1)
    except (Unavailable, Unknown):
        return None


async def test_a_message_id_counts_for_the_whole_stream_and_not_for_a_subject(bus: Bus) -> None:
    await bus.publish("mail.a.k", b"1", headers={"Nats-Msg-Id": "one"})
    other = await bus.publish("mail.b.x", b"2", headers={"Nats-Msg-Id": "one"})

    assert other.duplicate
    assert await stored(bus, "mail.*.b.x") == []


async def test_a_subject_that_no_stream_takes_is_unavailable_at_once(bus: Bus) -> None:
    with pytest.raises(Unavailable, match=r"nowhere\.at\.all: nobody listens there"):
        await bus.publish("nowhere.at.all", b"")


async def test_a_bad_header_is_refused_with_the_servers_own_code(bus: Bus) -> None:
    with pytest.raises(Denied, match="invalid per-message TTL") as denied:
        await bus.publish("event.t.a", b"", headers={"Nats-TTL": "soon"})

    assert denied.value.code == BAD_TTL


# -- several together -------------------------------------------------------------------------


async def test_a_commit_is_stored_together_without_gaps_and_tells_its_first_sequence(
    bus: Bus,
) -> None:
    await bus.publish("event.t.a", b"")
    first = await bus.commit([out("state.a.k", b"s"), out("event.t.a", b"e"), out("mail.b.k")])
    found = await bus.read_all(">", after=1)

    assert first == 2
    assert [(one.seq, one.subject.split(".")[0]) for one in found] == [
        (2, "state"),
        (3, "event"),
        (4, "mail"),
    ]


async def test_one_message_that_is_refused_takes_all_others_with_it(bus: Bus) -> None:
    for spoilt in (
        out("state.a.bad", b"", Nats_TTL="soon"),
        Outgoing("state.a.bad", b"", expect(7)),
        out("timer.a.k.bad", b"", Nats_Schedule="@at never", Nats_Schedule_Target="mail.a.k"),
        Outgoing("state.a.k0", b"", ROLLUP),
        out("elsewhere.a.b"),
        out("$KV.config.k"),
    ):
        with pytest.raises((Denied, Conflict)):
            await bus.commit([*states(2), spoilt, out("state.a.z")])

    assert await last_sequence(bus) == 0


async def test_a_message_id_seen_before_refuses_the_whole_commit(bus: Bus) -> None:
    await bus.publish("mail.a.k", b"1", headers={"Nats-Msg-Id": "one"})
    for commit in (
        [out("mail.a.k", b"1", Nats_Msg_Id="one")],
        [out("state.a.k"), out("mail.a.k", b"1", Nats_Msg_Id="one")],
        [out("mail.a.k", b"2", Nats_Msg_Id="two"), out("mail.a.k", b"2", Nats_Msg_Id="two")],
    ):
        with pytest.raises(Denied) as denied:
            await bus.commit(commit)
        assert denied.value.code == DUPLICATE

    assert await last_sequence(bus) == 1


async def test_a_thousand_messages_are_the_most_that_fit_together(bus: Bus) -> None:
    first = await bus.commit(states(GROUP_MESSAGES))
    with pytest.raises(Denied, match="too large") as denied:
        await bus.commit(states(GROUP_MESSAGES + 1, "more"))

    assert first == 1
    assert denied.value.code == BATCH_TOO_LARGE
    assert await last_sequence(bus) == GROUP_MESSAGES


async def test_a_subject_outside_the_stream_is_told_as_a_refusal_that_can_be_bisected(
    bus: Bus,
) -> None:
    with pytest.raises(Denied) as denied:
        await bus.commit([out("state.a.k"), out("nowhere.a.b"), out("state.a.l")])

    assert denied.value.code == INCOMPLETE


async def test_a_message_that_cannot_be_framed_is_refused_before_any_leaves(bus: Bus) -> None:
    limit = bus.link.max_payload
    for spoilt in (
        out("state.a.k", b"x" * limit, Nats_TTL="60s"),
        out("state.a.k", b"", Nats_TTL="1s\r\nNats-Rollup: all"),
        out("state.a k"),
        out("state.a." + "k" * 600),
    ):
        commits = [[spoilt], [spoilt, out("state.a.l")], *[[out("state.a.l"), spoilt]] * 20]
        for commit in commits:
            with pytest.raises(ValueError, match=r"bytes|line end|printable"):
                await bus.commit(commit)
    first = await bus.commit(states(2))

    # Had their first halves left, fifty batches would be open by now, and this one refused.
    assert first == 1


async def test_a_batch_that_a_cut_interrupts_stores_nothing(
    bus: Bus, proxy: Proxy, connect: Connect
) -> None:
    cut = await connect(proxy.url)
    opening = b"NATS/1.0\r\nNats-Batch-Id: open\r\nNats-Batch-Sequence: 1\r\n\r\n"
    cut.link.publish("state.a.half", b"", headers=opening)
    await cut.last("state.a.half")  # the server has it
    proxy.cut()
    await until(lambda: proxy.accepted == 2 and cut.link.connected.is_set())
    first = await cut.commit(states(3))

    assert first == 1
    assert await last_sequence(bus) == 3


async def test_a_core_subscription_hears_of_what_is_then_refused_and_republish_does_not(
    bus: Bus,
) -> None:
    heard: list[str] = []
    handles = [bus.subscribe(subject, lambda p: heard.append(p.subject)) for subject in (
        "event.t.a", "live.event.t.a"
    )]  # fmt: skip
    with pytest.raises(Conflict):
        await bus.commit([out("event.t.a", b"refused"), Outgoing("run.r", b"", expect(9))])
    refused = list(heard)
    await bus.commit([out("event.t.a", b"stored"), Outgoing("run.r", b"", expect(0))])
    await until(lambda: "live.event.t.a" in heard)
    for handle in handles:
        bus.unsubscribe(handle)

    assert refused == ["event.t.a"]
    assert heard == ["event.t.a", "event.t.a", "live.event.t.a"]


# -- compare and set, and the fence -----------------------------------------------------------


@pytest.mark.promise("CB-08", "CB-31")
async def test_of_those_who_write_a_record_at_once_one_wins(
    bus: Bus, shared_server: EmbeddedServer, connect: Connect
) -> None:
    others = [await connect(shared_server.url) for _ in range(4)]
    version = await bus.commit([Outgoing("state.a.k", b"0", {**expect(0), **ROLLUP})])
    for n in range(1, 21):
        tries = [
            each.commit([Outgoing("state.a.k", b"%d" % n, expect(version)), out("event.t.a")])
            for each in others
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
        won = [one for one in results if isinstance(one, int)]
        lost = [one for one in results if isinstance(one, Conflict)]
        assert (len(won), len(lost)) == (1, 3)
        version = won[0]

    assert await stored(bus, "event.t.a") == [b""] * 20


async def test_zero_means_that_there_is_none_yet(bus: Bus) -> None:
    headers = {**expect(0), **ROLLUP}
    first = await bus.commit([Outgoing("state.a.k", b"1", headers), out("event.t.a")])
    with pytest.raises(Conflict):
        await bus.commit([Outgoing("state.a.k", b"2", headers), out("event.t.a")])
    with pytest.raises(Conflict, match="wrong last sequence: 1"):
        await bus.publish("state.a.k", b"2", headers=headers)

    assert first == 1
    assert await stored(bus, "state.a.k") == [b"1"]


async def test_a_mail_is_expected_by_the_subject_it_is_stored_under(bus: Bus) -> None:
    shard = subjects.shard_of("a", "k")
    ack = await bus.publish("mail.a.k", b"1")
    with pytest.raises(Conflict):
        await bus.publish("mail.a.k", b"2", headers=expect(0))
    await bus.publish("mail.a.k", b"3", headers=expect(ack.seq))

    assert await stored(bus, f"mail.{shard}.a.k") == [b"1", b"3"]


@pytest.mark.parametrize("lease", [0, 3])
async def test_a_fence_refuses_whoever_holds_another_lease(bus: Bus, lease: int) -> None:
    held = await bus.commit([Outgoing("run.r", b"", expect(0))])
    said = await bus.publish("event.t.a", b"held", headers=expect(held, "run.r"))
    with pytest.raises(Conflict):
        await bus.publish("event.t.a", b"not", headers=expect(lease, "run.r"))
    with pytest.raises(Conflict):
        await bus.commit([out("state.a.k"), Outgoing("event.t.a", b"", expect(lease, "run.r"))])

    assert said.seq == 2
    assert await last_sequence(bus) == 2


async def test_a_fence_cannot_stand_beside_a_write_of_what_it_watches(bus: Bus) -> None:
    with pytest.raises(Conflict):
        await bus.commit([out("run.r"), Outgoing("event.t.a", b"", expect(0, "run.r"))])


async def test_after_the_fence_has_moved_nothing_lands(
    bus: Bus, shared_server: EmbeddedServer, connect: Connect
) -> None:
    speaker, stopper = await connect(shared_server.url), await connect(shared_server.url)
    committer = Committer(speaker)
    task = asyncio.create_task(committer.run())
    rounds = [await stop_a_speaker(n, committer, stopper) for n in range(20)]
    task.cancel()

    assert all(len(landed) >= 5 and landed[-1] < stopped for landed, stopped in rounds)
    assert committer.committed > committer.groups  # tokens and other commits shared groups


async def stop_a_speaker(n: int, committer: Committer, stopper: Bus) -> tuple[list[int], int]:
    """Stop one who speaks at full speed; the sequences of what he said, and of the stop."""
    run, topic = f"run.r{n}", f"event.t.{n}"
    lease = await stopper.commit([Outgoing(run, b"claimed", expect(0))])
    speaking = asyncio.create_task(speak(committer, run, topic, lease))
    await until_known(lambda: said(stopper, topic, 5))
    stopped = await stopper.commit([out("state.a.k"), out(run, b"stopped"), out("event.t.notice")])
    await speaking
    return [one.seq for one in await stopper.read_all(topic, after=0)], stopped


async def said(bus: Bus, topic: str, count: int) -> bool:
    return len(await bus.read(topic, after=0, limit=count)) == count


async def speak(committer: Committer, run: str, topic: str, lease: int) -> None:
    """Say one fenced token after another, beside other commits, until the broker refuses."""
    for n in range(100_000):
        beside = committer.submit([out("event.other.x"), out("event.other.y")], "other")
        token = Outgoing(topic, b"%d" % n, expect(lease, run))
        try:
            await committer.submit([token], run)
        except Conflict:
            return
        finally:
            await beside


# -- outcomes that are not known --------------------------------------------------------------


async def test_a_server_that_hangs_makes_the_outcome_unknown_and_the_record_tells(
    own_server: EmbeddedServer, own_bus: Bus
) -> None:
    version = await own_bus.commit([Outgoing("state.a.k", b"1", expect(0))])
    commit = [Outgoing("state.a.k", b"2", expect(version)), out("event.t.a")]
    with frozen(own_server), pytest.raises(Unknown, match=r"no answer within 0\.3 s"):
        await own_bus.commit(commit, timeout=0.3)
    # It was on its way, and is stored now; a read may still overtake it, a retry may not win.
    record = await until_known(lambda: written_after(own_bus, version))
    with pytest.raises(Conflict):
        await own_bus.commit(commit)

    assert (record.data, record.seq) == (b"2", version + 1)
    assert await stored(own_bus, "event.t.a") == [b""]


async def written_after(bus: Bus, version: int) -> Stored | None:
    found = await bus.last("state.a.k")
    return found if found is not None and found.seq > version else None


async def test_a_connection_that_is_lost_makes_the_outcome_unknown_at_once(
    bus: Bus, proxy: Proxy, connect: Connect
) -> None:
    lost = await connect(proxy.url)
    proxy.swallow()
    waiting = asyncio.create_task(lost.commit(states(3)))
    await until_known(lambda: bus.last("state.a.k2"))
    proxy.cut()
    with pytest.raises(Unknown, match="connection was lost"):
        await waiting

    assert await stored(bus, "state.a.*") == [b"0", b"1", b"2"]
