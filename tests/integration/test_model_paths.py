"""Which upstream a run goes to, how many at once, and what ends one that goes on."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from actors.models import watch
from runtime.deployments import seed_deployments
from runtime.kv import Bucket
from runtime.terminal.overview import look
from runtime.testing import Kit
from schemas.base import Address
from schemas.model import MOST_TEXT, conversation_topic
from schemas.record import Delta
from schemas.upstream import UpstreamReport, seen_key
from tests.integration.talking import Halt, deployed, talking
from tests.integration.waiting import until
from tests.integration.wordy import Plan, Reply, Wordy, options, wordy_spoken

pytestmark = pytest.mark.usefixtures("wordy_spoken", "in_a_hurry")
__all__ = ["wordy_spoken"]


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and tell more often than hosts do."""
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.5)
    monkeypatch.setattr(watch, "SOONEST", 0.1)


@pytest.fixture
async def two() -> AsyncIterator[tuple[Wordy, Wordy]]:
    """Two upstreams that answer."""
    async with Wordy() as one, Wordy() as other:
        yield one, other


def once_open(gate: asyncio.Event) -> Plan:
    """Every answer stops after its first piece until the gate is open."""
    return lambda number, body: Reply(gate=gate)


async def report_of(kit: Kit) -> UpstreamReport | None:
    stored = await Bucket(kit.bus, "nodes").get(seen_key("model", kit.host.name))
    return None if stored is None else msgspec.json.decode(stored.data, type=UpstreamReport)


async def states(kit: Kit, *wanted: str) -> UpstreamReport:
    """Wait until the host tells that its upstreams are so."""
    async with asyncio.timeout(15):
        while True:
            report = await report_of(kit)
            if report and sorted(one.status for one in report.upstreams) == sorted(wanted):
                return report
            await asyncio.sleep(0.05)


@pytest.mark.promise("AC-11")
async def test_a_conversation_keeps_to_its_upstream(two: tuple[Wordy, Wordy]) -> None:
    async with talking(options(*two)) as talk:
        for conversation in ("c", "d", "e", "f", "g", "h"):
            upstreams = {(await talk.ask(conversation=conversation)).upstream for _ in range(3)}
            assert len(upstreams) == 1

    assert two[0].calls
    assert two[1].calls


@pytest.mark.promise("AC-14", "AC-37")
async def test_two_slots_of_a_conversation_go_to_two_upstreams_at_once(
    two: tuple[Wordy, Wordy],
) -> None:
    gate = asyncio.Event()
    two[0].plan = two[1].plan = once_open(gate)
    async with talking(options(*two)) as talk:
        await talk.begin(slot=0)
        await talk.begin(slot=1)
        async with asyncio.timeout(10):
            await asyncio.gather(two[0].asked.acquire(), two[1].asked.acquire())
        gate.set()
        results = [await talk.result(), await talk.result()]

    assert {one.upstream for one in results} == {"u1", "u2"}


@pytest.mark.promise("AC-14")
async def test_no_more_calls_are_under_way_than_an_upstream_has_paths() -> None:
    gate = asyncio.Event()
    async with Wordy(once_open(gate)) as one:
        given = options(one)
        given["upstreams"][0]["paths"] = 2
        async with talking(given) as talk:
            for _ in range(5):
                await talk.begin()
            await states(talk.kit, "BUSY")
            gate.set()
            results = [await talk.result() for _ in range(5)]

    assert {result.outcome for result in results} == {"answered"}
    assert one.most == 2


async def test_a_busy_upstream_sends_the_next_call_to_another(two: tuple[Wordy, Wordy]) -> None:
    gate = asyncio.Event()
    two[0].plan = two[1].plan = once_open(gate)
    given = options(*two)
    for table in given["upstreams"]:
        table["paths"] = 1
    async with talking(given) as talk:
        await talk.begin()
        await talk.begin()
        async with asyncio.timeout(10):
            await asyncio.gather(two[0].asked.acquire(), two[1].asked.acquire())
        gate.set()
        results = [await talk.result(), await talk.result()]

    assert {one.upstream for one in results} == {"u1", "u2"}


async def test_a_stop_ends_the_call_to_the_upstream() -> None:
    async with (
        Wordy(lambda n, body: Reply(("x" * 50,) * 2000, then="hang")) as one,
        talking(options(one)) as talk,
    ):
        run = await talk.begin()
        await talk.kit.event(conversation_topic("c"), Delta)
        await talk.kit.ask(Address("asker", "a"), Halt(run=run))
        async with asyncio.timeout(20):
            await one.left.acquire()
        kept = await talk.answers()

    assert kept == []


async def test_an_upstream_that_falls_silent_midway_is_given_up() -> None:
    async with (
        Wordy(lambda n, body: Reply(then="hang")) as one,
        talking(options(one, idle="300ms"), attempts=1) as talk,
    ):
        result = await talk.ask()

    assert (result.outcome, result.code, result.status) == ("failed", "timeout", 504)


async def test_one_that_never_says_anything_hands_over_to_the_next(
    two: tuple[Wordy, Wordy],
) -> None:
    def silent_at_first(number: int, body: object) -> Reply:
        return Reply() if two[0].calls and two[1].calls else Reply(then="silent")

    two[0].plan = two[1].plan = silent_at_first
    async with talking(options(*two, first="300ms")) as talk:
        result = await talk.ask()

    assert result.outcome == "answered"


async def test_an_answer_that_goes_on_and_on_fails_when_its_time_is_over() -> None:
    async with (
        Wordy(lambda n, body: Reply(("more ",) * 1000, gap=0.05)) as one,
        talking(options(one, timeout="500ms")) as talk,
    ):
        result = await talk.ask()
        async with asyncio.timeout(10):
            await one.left.acquire()

    assert (result.outcome, result.code, result.status) == ("failed", "timeout", 504)
    assert len(one.calls) == 1


async def test_an_answer_that_never_ends_is_kept_as_far_as_there_is_room() -> None:
    async with (
        Wordy(lambda n, body: Reply(("more " * 2000,) * 1000)) as one,
        talking(options(one)) as talk,
    ):
        result = await talk.ask()
        kept = await talk.answers()

    assert (result.outcome, result.finish) == ("answered", "length")
    assert [len(one.text) for one in kept] == [MOST_TEXT]


@pytest.mark.promise("AC-10", "AC-52")
async def test_an_upstream_that_fails_again_and_again_is_left_alone_and_shown() -> None:
    async with Wordy(lambda n, body: Reply(status=503)) as one:
        given = options(one, tries=1, breaker={"faults": 2, "rest": "60s"})
        async with talking(given) as talk:
            results = [await talk.ask() for _ in range(4)]
            report = await states(talk.kit, "ERROR")
            shown = (await look(talk.kit.bus)).lines()

    assert {(result.code, result.status) for result in results} == {("overloaded", 503)}
    assert len(one.calls) == 2
    assert "2 faults in a row" in results[-1].reason
    assert "upstream u1 is ERROR: 2 faults in a row" in shown[-1]
    seen = report.upstreams[0]
    assert (seen.name, seen.errors, seen.dispatched, seen.current) == ("u1", 2, 2, 0)


@pytest.mark.promise("AC-10")
async def test_one_that_rested_is_tried_by_one_call_and_then_by_all() -> None:
    async with Wordy(lambda n, body: Reply(status=503) if n <= 2 else Reply()) as one:
        given = options(one, tries=1, breaker={"faults": 2, "rest": "300ms"})
        async with talking(given) as talk:
            await talk.ask()
            await talk.ask()
            # Asked again once it has rested: an answer, whoever comes first.
            async with asyncio.timeout(10):
                while (await talk.ask()).outcome != "answered":
                    pass
            last = await talk.ask()
            await states(talk.kit, "HEALTHY")

    assert last.outcome == "answered"
    assert len(one.calls) == 4


async def test_a_model_that_is_deployed_anew_ends_what_it_has_begun(
    two: tuple[Wordy, Wordy],
) -> None:
    gate = asyncio.Event()
    two[0].plan = once_open(gate)
    async with talking(options(two[0])) as talk:
        await talk.begin()
        async with asyncio.timeout(10):
            await two[0].asked.acquire()
        _, changed = deployed(options(two[1], model="n"))
        await seed_deployments(talk.kit.bus, [changed])
        await until(lambda: talk.kit.host.revision == 2)
        after = await talk.ask()
        gate.set()
        before = await talk.result()

    assert (before.outcome, after.outcome) == ("answered", "answered")
    assert (len(two[0].calls), len(two[1].calls)) == (1, 1)
    assert two[1].calls[0]["model"] == "n"
