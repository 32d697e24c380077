"""What comes while an answer is on its way: queued, interrupting, and over the death of a host."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from actors.batch import Batch
from actors.session import Session
from runtime.ask import Origin, ask
from runtime.testing import Kit, running
from schemas.conversation import (
    BatchFinished,
    BatchOpened,
    MessageSaid,
    TaskFinished,
    TaskMoved,
)
from schemas.record import Delta
from tests.integration.answering import MODELS, Talk, gate, opening
from tests.integration.talking import deployed
from tests.integration.test_gathering_kills import KEYED, MODELS_HERE, PATIENCE, Site, site
from tests.integration.waiting import until_known
from tests.integration.wordy import Reply, Wordy, options, wordy_spoken

__all__ = ["site", "wordy_spoken"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

numbers = count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(session=Session, batch=Batch, **MODELS) as kit:
        yield kit


@pytest.fixture
def talk(kit: Kit) -> Talk:
    return Talk(kit, f"arriving-{next(numbers)}")


async def test_what_is_queued_is_answered_in_order_one_after_the_other(talk: Talk) -> None:
    with gate("one"):
        first = await talk.open("one", text="a")
        await talk.kit.event(talk.topic, Delta)
        second = await talk.open("two", text="b", arriving="queue")
        third = await talk.open("three", text="c", arriving="queue")
        waiting = await talk.batch(second)
        asked = len(talk.jobs())
    for opened in (first, second, third):
        await talk.end(opened)
    await talk.kit.settled()
    ends = await talk.told(BatchFinished)
    moved = await talk.told(TaskMoved)
    heard = await talk.heard()

    assert (waiting.status, asked) == ("PENDING", 1)
    assert (second.queued, third.queued) == (1, 2)
    assert [one.batch for one in ends] == [first.batch, second.batch, third.batch]
    assert {one.status for one in ends} == {"SUCCESS"}
    assert [one.batch for one in moved] == [second.batch, third.batch]
    for one in moved:
        assert heard.index(("task.moved", one.run)) < heard.index(("run.started", one.run))
    assert (await talk.state()).queued == []


async def test_not_a_word_follows_an_interruption(talk: Talk) -> None:
    with gate("one"):
        first = await talk.open("one", text="a")
        await talk.kit.event(talk.topic, Delta)
        second = await talk.open("two", text="b", arriving="interrupt")
        await talk.end(second)
    await talk.kit.settled()
    heard = await talk.heard()
    stopped = heard.index(("run.stopped", first.tasks[0].run))
    words = [(at, run) for at, (kind, run) in enumerate(heard) if kind == "run.delta"]

    assert [run for at, run in words if at > stopped] == [second.tasks[0].run]
    ends = {one.batch: one.code or one.status for one in await talk.told(TaskFinished)}
    assert ends == {first.batch: "aborted", second.batch: "SUCCESS"}
    assert (await talk.state()).live == {}


# -- with a model that reads the conversation --------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(wordy_spoken: None) -> AsyncIterator[Wordy]:
    async with Wordy(lambda n, body: Reply((f"answer {n}",))) as one:
        yield one


async def test_what_was_interrupted_is_answered_as_one_message_and_remembered_as_one(
    upstream: Wordy,
) -> None:
    held = asyncio.Event()
    upstream.plan = lambda n, body: Reply((f"answer {n}",), gate=held if n in (2, 3) else None)
    async with running(session=Session, batch=Batch, model=deployed(options(upstream))) as kit:
        talk = Talk(kit, "c")
        await talk.finished(await talk.open("model", text="hello"))
        for text in ("the weather", "in Paris"):
            await talk.open("model", text=text, arriving="interrupt")
            await upstream.asked.acquire()
            await until_known(lambda: is_answering(talk), PATIENCE)
        await talk.finished(await talk.open("model", text="please", arriving="interrupt"))
        await talk.finished(await talk.open("model", text="thanks"))
        held.set()
    together = "user: the weather\n\nin Paris\n\nplease"

    assert upstream.texts[3] == ["user: hello", "assistant: answer 1", together]
    assert upstream.texts[4] == [
        "user: hello",
        "assistant: answer 1",
        together,
        "assistant: answer 4",
        "user: thanks",
    ]


async def is_answering(talk: Talk) -> bool:
    """Whether a model has begun to answer the last message."""
    said = (await talk.told(MessageSaid))[-1]
    live = (await talk.state()).live
    began = {one.run for one in await talk.told(Delta)}
    return any(one.batch == said.batch for run, one in live.items() if run in began)


async def test_what_has_waited_is_answered_with_the_answer_before_it_in_mind(
    upstream: Wordy,
) -> None:
    held = asyncio.Event()
    upstream.plan = lambda n, body: Reply((f"answer {n}",), gate=held if n == 1 else None)
    async with running(session=Session, batch=Batch, model=deployed(options(upstream))) as kit:
        talk = Talk(kit, "c")
        await talk.open("model", text="a")
        await upstream.asked.acquire()
        second = await talk.open("model", text="b", arriving="queue")
        third = await talk.open("model", text="c", arriving="queue")
        held.set()
        await talk.end(second)
        await talk.finished(third)

    assert upstream.texts[1:] == [
        ["user: a", "assistant: answer 1", "user: b"],
        ["user: a", "assistant: answer 1", "user: b", "assistant: answer 2", "user: c"],
    ]


# -- over the death of a host ------------------------------------------------------------------


@pytest.mark.timeout(180)
@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.promise("AC-08", "AC-50")
async def test_what_waits_outlives_its_host_and_has_its_turn(site: Site) -> None:
    worker = await site.host(MODELS_HERE)
    keyed = await site.host(KEYED)
    talk = Talk(site.kit, "c")

    async def say(number: int, *models: str, **rest: Any) -> BatchOpened:
        origin = Origin(id=f"say-{number}", bodyhash="h")
        request = opening(*models, text=f"say {number}", **rest)
        return await ask(site.kit.bus, talk.session, request, timeout=PATIENCE, origin=origin)

    opened = [await say(1, "slow"), await say(2, "one", arriving="queue")]
    await keyed.kill()
    asking = asyncio.create_task(say(3, "two", arriving="queue"))
    dying = await site.host(KEYED, crash="batch.inside:4")
    async with asyncio.timeout(PATIENCE):
        await dying.wait()
    await worker.kill()
    await site.host([*KEYED, *MODELS_HERE])
    opened.append(await asking)

    async def all_ended() -> bool:
        return len(await talk.told(BatchFinished)) == len(opened)

    await until_known(all_ended, PATIENCE)
    await site.kit.settled(PATIENCE)
    ends = await talk.told(BatchFinished)

    assert [one.batch for one in ends] == [one.batch for one in opened]
    assert {one.status for one in ends} == {"SUCCESS"}
    assert ((await talk.state()).queued, (await talk.state()).live) == ([], {})
    assert await site.kit.dead_letters() == []
