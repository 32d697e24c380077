"""What a worker may do besides answer: say things of several kinds, last words, and reading."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import ClassVar, Literal

import msgspec
import pytest

from runtime import Actor, Reject, Retry, Turn, Work, Worker, handler
from runtime.testing import Kit, running
from schemas import subjects
from schemas.base import Address, Job, Message, Topic
from schemas.deployment import Deployment
from schemas.envelope import decode_any, encode, seal
from schemas.record import Delta, RunFailed, RunSuperseded

TALK = Topic("conversation", "c")
KEPT = Topic("history", "c")

Kind = Literal["text", "reasoning", "tool"]


class Told(Message, tag="scribe.told"):
    seen: tuple[str, ...] = ()


class Kept(Message, tag="scribe.kept"):
    text: str


class Tell(Job[Told], tag="scribe.tell"):
    """Say `pieces`, keep `keep`, each so many `times` over, then end as it is told."""

    pieces: tuple[Delta, ...] = ()
    keep: tuple[str, ...] = ()
    times: int = 1
    end: Literal["well", "retry", "reject"] = "well"


class Look(Job[Told], tag="scribe.look"):
    """Read what was kept; `early` is read up to the job itself only."""

    early: bool = False
    of: str = ""
    file: str = ""


class Begin(Message, tag="boss.begin"):
    job: Tell | Look
    said: tuple[str, ...] = ()


class BossState(msgspec.Struct):
    told: list[Told] = []
    failed: list[RunFailed] = []


class Boss(Actor):
    """Has a scribe work, and hears of it."""

    state: BossState

    @handler
    def begin(self, message: Begin, ctx: Turn) -> None:
        for text in message.said:
            ctx.emit(KEPT, Kept(text=text))
        ctx.start(Address("scribe", ctx.key), message.job, topic=TALK)

    @handler
    def hear(self, message: Told, ctx: Turn) -> None:
        self.state.told.append(message)
        ctx.emit(TALK, message)

    @handler
    def hear_failure(self, message: RunFailed, ctx: Turn) -> None:
        self.state.failed.append(message)
        ctx.emit(TALK, message)


class Scribe(Worker):
    """Writes what it is told, and reads what is written."""

    gate: ClassVar[asyncio.Event]
    begun: ClassVar[asyncio.Event]

    async def on_start(self) -> None:
        Scribe.gate, Scribe.begun = asyncio.Event(), asyncio.Event()
        Scribe.gate.set()

    @handler
    async def tell(self, job: Tell, ctx: Work) -> AsyncIterator[Delta | Told]:
        for piece in job.pieces:
            yield piece
        for text in job.keep:
            ctx.emit(KEPT, Kept(text=text * job.times))
        if job.end == "reject":
            raise Reject("NO")
        if job.end == "retry" and ctx.attempt == 1:
            raise Retry("again", after=timedelta(milliseconds=10))
        yield Told(seen=(str(ctx.attempt),))

    @handler
    async def look(self, job: Look, ctx: Work) -> Told:
        Scribe.begun.set()
        await Scribe.gate.wait()
        if job.of:
            record = await ctx.record(Address("boss", job.of))
            return Told(seen=(record.key if record else "nobody",))
        if job.file:
            return Told(seen=tuple([chunk.decode() async for chunk in ctx.files.read(job.file)]))
        until = ctx.sequence if job.early else None
        found = [envelope async for _, envelope in ctx.read(KEPT, until=until)]
        ctx.emit(TALK, Kept(text="looked"))
        return Told(seen=tuple(msgspec.json.decode(e.data, type=Kept).text for e in found))


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    deployment = Deployment(name="scribe", type="-", kind="worker", attempts=2)
    async with running(boss=Boss, scribe=(Scribe, deployment)) as kit:
        yield kit


async def begin(kit: Kit, job: Tell | Look, *said: str) -> None:
    await kit.tell(Address("boss", "b"), Begin(job=job, said=said))


def piece(text: str, kind: Kind = "text", index: int = 0, call: str = "", name: str = "") -> Delta:
    return Delta(text=text, kind=kind, index=index, call=call, name=name)


async def test_pieces_of_one_kind_are_joined_and_those_of_another_never(kit: Kit) -> None:
    said = (
        piece("Let me ", "reasoning"),
        piece("think.", "reasoning"),
        piece("It "),
        piece("is"),
        piece("", "tool", 0, "call_a", "look_up"),
        piece('{"x":', "tool"),
        piece("1}", "tool"),
        piece("", "tool", 1, "call_b", "look_up"),
        piece("{}", "tool", 1),
        piece("", "tool", 1, "call_c", "look_away"),
        piece("[]", "tool", 1, "call_c"),
        piece(""),
        piece("."),
    )
    await begin(kit, Tell(pieces=said))
    await kit.event(TALK, Told)
    heard = await kit.events(TALK, Delta)

    assert [delta.n for delta in heard] == list(range(1, len(heard) + 1))
    assert _joined(heard) == [
        ("reasoning", 0, "", "", "Let me think."),
        ("text", 0, "", "", "It is"),
        ("tool", 0, "call_a", "look_up", '{"x":1}'),
        ("tool", 1, "call_b", "look_up", "{}"),
        ("tool", 1, "call_c", "look_away", "[]"),
        ("text", 0, "", "", "."),
    ]
    assert len({delta.run for delta in heard}) == 1
    assert {delta.attempt for delta in heard} == {1}


def _joined(heard: list[Delta]) -> list[tuple[str, int, str, str, str]]:
    """What was heard, with the pieces of one kind put together as a client would."""
    found: list[tuple[str, int, str, str, str]] = []
    for delta in heard:
        last = found[-1] if found else None
        if last and last[:2] == (delta.kind, delta.index) and not delta.call:
            found[-1] = (*last[:4], last[4] + delta.text)
        else:
            found.append((delta.kind, delta.index, delta.call, delta.name, delta.text))
    return found


async def test_a_very_long_piece_is_heard_whole(kit: Kit) -> None:
    text = "äöü" * 30_000
    await begin(kit, Tell(pieces=(piece(text, "tool", 3, "call_a", "write"),)))
    await kit.event(TALK, Told)
    heard = await kit.events(TALK, Delta)

    assert "".join(delta.text for delta in heard) == text
    assert [(delta.call, delta.name) for delta in heard[:2]] == [("call_a", "write"), ("", "")]
    assert {(delta.kind, delta.index) for delta in heard} == {("tool", 3)}


async def test_last_words_stand_between_what_was_said_and_the_result(kit: Kit) -> None:
    await begin(kit, Tell(pieces=(piece("hm"),), keep=("one", "two")))
    await kit.event(TALK, Told)
    kept = await kit.bus.read_all(subjects.event(KEPT), after=0)
    said = await kit.bus.read_all(subjects.event(TALK), after=0)
    mail = await kit.bus.last(subjects.stored_at(Address("boss", "b")))

    assert [decode_any(one.data).type for one in kept] == ["scribe.kept", "scribe.kept"]
    assert mail is not None
    assert decode_any(mail.data).type == "scribe.told"
    assert said[-2].seq < kept[0].seq < kept[1].seq < mail.seq == kept[1].seq + 1


async def test_an_attempt_that_fails_leaves_no_last_words(kit: Kit) -> None:
    await begin(kit, Tell(pieces=(piece("hm"),), keep=("one",), end="retry"))
    told = await kit.event(TALK, Told)
    kept = await kit.events(KEPT, Kept)
    superseded = await kit.events(TALK, RunSuperseded)

    assert told.seen == ("2",)
    assert [one.text for one in kept] == ["one"]
    assert [one.attempt for one in superseded] == [2]


async def test_a_job_that_is_rejected_leaves_no_last_words(kit: Kit) -> None:
    await begin(kit, Tell(keep=("one",), end="reject"))
    failed = await kit.event(TALK, RunFailed)

    assert failed.reason == "NO"
    assert await kit.events(KEPT, Kept) == []


async def test_more_than_a_commit_holds_is_refused_with_its_size(kit: Kit) -> None:
    await begin(kit, Tell(keep=("x", "y", "z"), times=400_000))
    failed = await kit.event(TALK, RunFailed)

    assert failed.reason.startswith("history/c: events of 12")
    assert "at most 921600" in failed.reason
    assert await kit.events(KEPT, Kept) == []


async def test_an_event_that_is_too_large_is_refused_with_its_size(kit: Kit) -> None:
    await begin(kit, Tell(keep=("x",), times=600_000))
    failed = await kit.event(TALK, RunFailed)

    assert failed.reason.startswith("event.history.c: a message of 600")
    assert failed.reason.endswith("at most 524288")


async def test_what_was_kept_is_read_in_order_without_what_nobody_can_read(kit: Kit) -> None:
    await kit.bus.publish(subjects.event(KEPT), b"{not json")
    await begin(kit, Look(), "one", "two")
    told = await kit.event(TALK, Told)

    assert told.seen == ("one", "two")
    assert (await kit.events(TALK, Kept)) == [Kept(text="looked")]


async def test_a_worker_may_read_up_to_its_own_job_only(kit: Kit) -> None:
    Scribe.gate.clear()
    await begin(kit, Look(early=True), "before")
    async with asyncio.timeout(10):
        await Scribe.begun.wait()
    late = seal(Kept(text="after"), id="1", source="test", subject="c")
    await kit.bus.publish(subjects.event(KEPT), encode(late))
    Scribe.gate.set()
    told = await kit.event(TALK, Told)

    assert told.seen == ("before",)


async def test_what_is_kept_of_an_actor_can_be_read(kit: Kit) -> None:
    await begin(kit, Look(of="b"))
    there = await kit.event(TALK, Told)
    await begin(kit, Look(of="no such key"))
    missing = await kit.event(TALK, Told)

    assert (there.seen, missing.seen) == (("b",), ("nobody",))


async def test_a_long_history_is_read_a_page_at_a_time(kit: Kit) -> None:
    texts = [f"{n:04}" + "x" * 40_000 for n in range(60)]
    for text in texts:
        one = encode(seal(Kept(text=text), id=text[:4], source="test", subject="c"))
        await kit.bus.publish(subjects.event(KEPT), one)
    await begin(kit, Look())
    failed = await kit.event(TALK, RunFailed)

    # They were all read: together they are too much for a result.
    assert "a result of 24" in failed.reason


async def test_a_worker_has_files(kit: Kit) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"bytes"

    file = await kit.host.system.files.put("a", pieces(), ttl=timedelta(minutes=1))
    await begin(kit, Look(file=file.id))
    told = await kit.event(TALK, Told)

    assert told.seen == ("bytes",)
