"""A turn of a keyed actor: applied once, answered once, all of it or nothing."""

import asyncio

import msgspec
import pytest

from runtime.ask import Origin
from runtime.bus import Outgoing, expect
from runtime.errors import AskTimeout, Refused
from runtime.pull import Delivery
from runtime.testing import running
from schemas import subjects
from schemas.base import Address, Topic
from schemas.envelope import encode
from tests.integration.counter import (
    EVENTS,
    HERE,
    Add,
    Counter,
    CounterState,
    Double,
    Doubled,
    Doubler,
    Fail,
    Get,
    Huge,
    Pass,
    StartTwice,
    Stray,
    Total,
    Wake,
    failures,
)


async def test_a_request_is_answered_with_the_state_after_it() -> None:
    async with running(counter=Counter) as kit:
        answers = [await kit.ask(HERE, Add(n=n)) for n in (1, 2, 3)]
        events = await kit.events(EVENTS, Total)

    assert [a.n for a in answers] == [1, 3, 6]
    assert [e.n for e in events] == [1, 3, 6]


async def test_a_rejected_message_changes_nothing_and_says_why() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Add(n=5))
        with pytest.raises(Refused) as refused:
            await kit.ask(HERE, Add(n=-1), origin=Origin(id="less", bodyhash="h"))
        with pytest.raises(Refused) as again:
            await kit.ask(HERE, Add(n=-1), origin=Origin(id="less", bodyhash="h"))
        state = await kit.state(HERE)
        events = await kit.events(EVENTS, Total)
        record = await kit.record(HERE)

    assert refused.value.refusal == again.value.refusal
    assert refused.value.refusal.code == "NEGATIVE"
    assert refused.value.refusal.status == 422
    assert refused.value.refusal.told == {"least": 0}
    assert state.n == 5
    assert [e.n for e in events] == [5]
    assert record is not None
    assert len(record.replies) == 2


async def test_a_repeat_under_the_same_id_is_answered_as_the_first_was() -> None:
    async with running(counter=Counter) as kit:
        first = await kit.ask(HERE, Add(n=5), origin=Origin(id="one", bodyhash="h"))
        second = await kit.ask(HERE, Add(n=5), origin=Origin(id="one", bodyhash="h"))
        with pytest.raises(Refused) as refused:
            await kit.ask(HERE, Add(n=7), origin=Origin(id="one", bodyhash="other"))
        state = await kit.state(HERE)

    assert first == second == Total(n=5)
    assert refused.value.refusal.code == "idempotency_key_reuse"
    assert state.n == 5


async def test_a_repeat_after_the_duplicate_window_finds_its_answer_in_the_record() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Add(n=5), origin=Origin(id="one", bodyhash="h"))
        # Without a message id the broker cannot know it again, as after its window.
        await kit.tell(HERE, Add(n=5), id="one", replyto="nobody.listens", bodyhash="h")
        await kit.settled()
        state = await kit.state(HERE)

    assert state.n == 5


async def test_many_askers_with_one_id_get_one_answer_from_one_turn() -> None:
    async with running(counter=Counter) as kit:
        origin = Origin(id="same", bodyhash="h")
        answers = await asyncio.gather(*(kit.ask(HERE, Add(n=1), origin=origin) for _ in range(50)))
        state = await kit.state(HERE)

    assert {a.n for a in answers} == {1}
    assert state.n == 1


async def test_a_failing_handler_is_tried_again_and_leaves_no_trace_of_its_failures() -> None:
    failures.clear()
    async with running(counter=Counter) as kit:
        answer = await kit.ask(HERE, Fail(times=2))
        events = await kit.events(EVENTS, Total)

    assert answer.n == 1000
    assert [e.n for e in events] == [-2]
    assert failures == {"a": 3}


async def test_a_message_that_never_succeeds_becomes_a_dead_letter_and_the_key_goes_on() -> None:
    failures.clear()
    async with running(counter=Counter) as kit:
        asking = asyncio.create_task(kit.ask(HERE, Fail(times=99), timeout=20))
        await asyncio.sleep(0)
        later = asyncio.create_task(kit.ask(HERE, Add(n=1), timeout=20))
        with pytest.raises(Refused) as refused:
            await asking
        answer = await later
        letters = await kit.dead_letters()

    assert refused.value.refusal.code == "handler_failed"
    assert answer.n == 1
    assert [letter.attempts for letter in letters] == [5]
    assert "not yet" in letters[0].reason
    assert '"counter.fail"' in letters[0].body


async def test_other_keys_go_on_while_one_is_failing() -> None:
    failures.clear()
    async with running(counter=Counter) as kit:
        kit.host.system.first_backoff = 0.05
        failing = asyncio.create_task(kit.ask(HERE, Fail(times=4), timeout=20))
        answers = [await kit.ask(Address("counter", f"k{n}"), Add(n=n)) for n in range(20)]
        unfinished = not failing.done()
        await failing

    assert [a.n for a in answers] == list(range(20))
    assert unfinished


@pytest.mark.parametrize(
    "body", [b"", b"x", b"\xff\xfe", b"{}", b"[" * 100_000, b'{"data":{"type":"counter.unknown"}}']
)
async def test_what_nobody_can_read_becomes_a_dead_letter_at_once(body: bytes) -> None:
    async with running(counter=Counter) as kit:
        await kit.bus.publish(subjects.mail(HERE), body)
        answer = await kit.ask(HERE, Add(n=1))
        letters = await kit.dead_letters()

    assert answer.n == 1
    assert len(letters) == 1
    assert letters[0].reason.startswith("unreadable")


async def test_a_message_of_an_unknown_type_is_kept_as_a_dead_letter() -> None:
    async with running(counter=Counter) as kit:
        await kit.tell(HERE, Double(n=1))
        await kit.ask(HERE, Get())
        letters = await kit.dead_letters()

    assert len(letters) == 1
    assert "doubler.double" in letters[0].reason


async def test_a_message_between_keys_is_part_of_the_turn_that_sent_it() -> None:
    async with running(counter=Counter) as kit:
        await kit.tell(HERE, Pass(to="b", n=3))
        heard = await kit.event(Topic("counter", "b"), Wake)
        state = await kit.state(HERE)

    assert heard.text == "3 from a"
    assert state.n == -3


async def test_telling_a_type_that_is_not_deployed_fails_with_a_sentence() -> None:
    async with running(counter=Counter) as kit:
        with pytest.raises(Refused):
            await kit.ask(HERE, Stray(), timeout=20)
        letters = await kit.dead_letters()

    assert "no actor 'nobody' is deployed" in letters[0].reason


async def test_state_that_grows_too_large_is_refused_and_kept_as_it_was() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Add(n=1))
        with pytest.raises(Refused):
            await kit.ask(HERE, Huge(size=200_000), timeout=20)
        letters = await kit.dead_letters()
        state = await kit.state(HERE)

    assert "at most 131072" in letters[0].reason
    assert state.n == 1


async def test_a_job_result_comes_back_as_a_message() -> None:
    async with running(counter=Counter, doubler=Doubler) as kit:
        await kit.ask(HERE, StartTwice())
        await kit.event(EVENTS, Doubled)
        await kit.settled()
        state = await kit.state(HERE)

    assert state.said == ["doubled 42"]


async def test_a_conflicting_write_makes_the_owner_read_again() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Add(n=5))
        record = await kit.record(HERE)
        stored = await kit.bus.last(subjects.state("counter", "a"))
        assert record is not None
        assert stored is not None
        record.data = msgspec.Raw(encode(CounterState(n=100)))
        subject = subjects.state("counter", "a")
        await kit.bus.commit(
            [Outgoing(subject, encode(record), {"Nats-Rollup": "sub", **expect(stored.seq)})]
        )
        answer = await kit.ask(HERE, Add(n=1))

    assert answer.n == 101


async def test_state_nobody_can_read_pauses_its_type_and_buries_nothing() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Add(n=5))
        await kit.bus.publish(
            subjects.state("counter", "a"), b"not a record", headers={"Nats-Rollup": "sub"}
        )
        await kit.stop_host()
        await kit.start_host()
        with pytest.raises(AskTimeout):
            await kit.ask(HERE, Add(n=1), timeout=1)
        letters = await kit.dead_letters()

    assert "counter" in kit.host.paused
    assert letters == []


async def test_an_actor_starts_where_its_record_ends_after_a_restart_of_its_host() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, Add(n=5))
        await kit.stop_host()
        asking = asyncio.create_task(kit.ask(HERE, Add(n=1)))
        await kit.start_host()
        answer = await asking

    assert answer.n == 6


async def test_hostile_keys_are_addresses_like_any_other() -> None:
    keys = ["a.b", "*", ">", "a b", "\0", "x" * 10_000, "🦊", "مرحبا", "h-" + "0" * 48]
    async with running(counter=Counter) as kit:
        for n, key in enumerate(keys):
            await kit.ask(Address("counter", key), Add(n=n + 1))
        totals = [await kit.ask(Address("counter", key), Get()) for key in keys]
        records = [await kit.record(Address("counter", key)) for key in keys]

    assert [t.n for t in totals] == list(range(1, len(keys) + 1))
    assert [r.key for r in records if r] == keys


async def test_a_message_that_comes_just_as_its_instance_falls_idle_is_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(counter=Counter) as kit:
        shard = kit.host.shards["counter"][subjects.shard_of("counter", "a")]
        take, settle, late = shard.take, shard._settle, []
        loop = asyncio.get_running_loop()

        def take_one_and_keep_one(delivery: Delivery) -> None:
            late.append(delivery) if shard.instances else take(delivery)

        def settle_and_hand_over(delivery: Delivery) -> None:
            settle(delivery)
            # Runs before the end of the instance's task is noted.
            loop.call_soon(lambda: [take(late.pop()) for _ in list(late)])

        monkeypatch.setattr(shard, "take", take_one_and_keep_one)
        monkeypatch.setattr(shard, "_settle", settle_and_hand_over)
        await asyncio.gather(kit.tell(HERE, Add(n=1)), kit.tell(HERE, Add(n=2)))
        await kit.event(EVENTS, Total)
        await kit.event(EVENTS, Total)
        state = await kit.state(HERE)

    assert state.n == 3
