"""A turn of a keyed actor: applied once, answered once, all of it or nothing."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from runtime import Actor, Reject, Turn, Worker, handler
from runtime.ask import Origin
from runtime.bus import Outgoing, expect
from runtime.errors import AskTimeout, Refused
from runtime.run import Work
from runtime.testing import running
from schemas import subjects
from schemas.base import Address, Job, Message, Request, Topic
from schemas.envelope import encode
from schemas.record import RunFailed

EVENTS = Topic("counter", "a")
HERE = Address("counter", "a")


class Total(Message, tag="counter.total"):
    n: int
    said: list[str] = []


class Add(Request[Total], tag="counter.add"):
    n: int


class Get(Request[Total], tag="counter.get"): ...


class Fail(Request[Total], tag="counter.fail"):
    times: int


class Pass(Message, tag="counter.pass"):
    to: str
    n: int


class Wake(Message, tag="counter.wake"):
    text: str


class SetAlarm(Request[Total], tag="counter.set_alarm"):
    name: str
    text: str
    seconds: float


class DropAlarm(Request[Total], tag="counter.drop_alarm"):
    name: str


class Stray(Request[Total], tag="counter.stray"): ...


class Huge(Request[Total], tag="counter.huge"):
    size: int


class Doubled(Message, tag="doubler.doubled"):
    n: int


class Double(Job[Doubled], tag="doubler.double"):
    n: int


class StartTwice(Request[Total], tag="counter.start_twice"): ...


class CounterState(msgspec.Struct):
    n: int = 0
    said: list[str] = []


failures: dict[str, int] = {}


class Counter(Actor):
    """Counts, and misbehaves on request."""

    state: CounterState

    @handler
    def add(self, message: Add, ctx: Turn) -> Total:
        self.state.n += message.n
        if message.n < 0:
            ctx.emit(EVENTS, Total(n=-1))
            raise Reject("NEGATIVE", f"{message.n} is below zero", status=422)
        ctx.emit(EVENTS, Total(n=self.state.n))
        return self._total()

    @handler
    def get(self, message: Get, ctx: Turn) -> Total:
        return self._total()

    @handler
    def fail(self, message: Fail, ctx: Turn) -> Total:
        self.state.n += 1000
        ctx.emit(EVENTS, Total(n=-2))
        failures[ctx.key] = failures.get(ctx.key, 0) + 1
        if failures[ctx.key] <= message.times:
            raise ValueError("not yet")
        return self._total()

    @handler
    def pass_on(self, message: Pass, ctx: Turn) -> None:
        self.state.n -= message.n
        ctx.tell(Address("counter", message.to), Wake(text=f"{message.n} from {ctx.key}"))

    @handler
    def wake(self, message: Wake, ctx: Turn) -> None:
        self.state.said.append(message.text)
        ctx.emit(Topic("counter", ctx.key), message)

    @handler
    def set_alarm(self, message: SetAlarm, ctx: Turn) -> Total:
        ctx.remind(message.name, Wake(text=message.text), after=timedelta(seconds=message.seconds))
        return self._total()

    @handler
    def drop_alarm(self, message: DropAlarm, ctx: Turn) -> Total:
        ctx.forget(message.name)
        return self._total()

    @handler
    def stray(self, message: Stray, ctx: Turn) -> Total:
        ctx.tell(Address("nobody", "x"), Wake(text="?"))
        return self._total()

    @handler
    def grow(self, message: Huge, ctx: Turn) -> Total:
        self.state.said.append("x" * message.size)
        return self._total()

    @handler
    def start_twice(self, message: StartTwice, ctx: Turn) -> Total:
        run = ctx.start(Address("doubler", ctx.key), Double(n=1))
        ctx.start(Address("doubler", ctx.key), Double(n=21))
        ctx.stop(run, "not needed after all")
        return self._total()

    @handler
    def take_result(self, message: Doubled, ctx: Turn) -> None:
        self.state.said.append(f"doubled {message.n}")
        ctx.emit(Topic("counter", ctx.key), message)

    @handler
    def take_failure(self, message: RunFailed, ctx: Turn) -> None:
        self.state.said.append(f"failed {message.reason}")

    def _total(self) -> Total:
        return Total(n=self.state.n, said=self.state.said)


class Doubler(Worker):
    """Doubles numbers."""

    @handler
    async def double(self, job: Double, ctx: Work) -> Doubled:
        return Doubled(n=2 * job.n)


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
            await kit.ask(HERE, Add(n=-1))
        state = await kit.state(HERE)
        events = await kit.events(EVENTS, Total)
        record = await kit.record(HERE)

    assert refused.value.refusal.code == "NEGATIVE"
    assert refused.value.refusal.status == 422
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
        answers = await asyncio.gather(
            *(kit.ask(HERE, Add(n=1), origin=origin) for _ in range(50))
        )
        state = await kit.state(HERE)

    assert set(a.n for a in answers) == {1}
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


async def test_a_reminder_comes_when_it_is_due() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, SetAlarm(name="tea", text="tea is ready", seconds=3600))
        before = await kit.state(HERE)
        await kit.advance(timedelta(minutes=59))
        await kit.settled()
        early = await kit.state(HERE)
        await kit.advance(timedelta(minutes=1))
        await kit.event(EVENTS, Wake)
        after = await kit.state(HERE)

    assert before.said == early.said == []
    assert after.said == ["tea is ready"]


async def test_the_server_itself_brings_a_reminder() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, SetAlarm(name="tea", text="tea", seconds=0.2))
        heard = await kit.event(EVENTS, Wake)

    assert heard.text == "tea"


async def test_a_reminder_replaces_its_namesake_and_can_be_forgotten() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, SetAlarm(name="tea", text="old", seconds=60))
        await kit.ask(HERE, SetAlarm(name="tea", text="new", seconds=60))
        await kit.ask(HERE, SetAlarm(name="egg", text="egg", seconds=60))
        await kit.ask(HERE, DropAlarm(name="egg"))
        await kit.ask(HERE, DropAlarm(name="never set"))
        await kit.advance(timedelta(hours=1))
        await kit.event(EVENTS, Wake)
        await kit.settled()
        state = await kit.state(HERE)
        timers = await kit.bus.lasts("timer.>")

    assert state.said == ["new"]
    assert timers == []


async def test_a_reminder_that_is_on_its_way_when_it_is_forgotten_is_dropped() -> None:
    async with running(counter=Counter) as kit:
        await kit.ask(HERE, SetAlarm(name="tea", text="stale", seconds=60))
        stale = (await kit.bus.lasts("timer.>"))[0]
        await kit.ask(HERE, DropAlarm(name="tea"))
        await kit.ask(HERE, SetAlarm(name="tea", text="fresh", seconds=60))
        await kit.bus.publish(subjects.mail(HERE), stale.data)
        await kit.settled()
        state = await kit.state(HERE)

    assert state.said == []


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
