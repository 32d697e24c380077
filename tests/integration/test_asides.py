"""What a model writes for an agent: colleagues read it as it comes, and nobody else a word."""

from collections.abc import AsyncIterator
from itertools import count

import msgspec
import pytest
import pytest_asyncio

from actors.batch import Batch
from actors.fakes.upstream import Upstream, fake
from actors.session import Session
from runtime.testing import Kit, running
from schemas.assist import DraftWritten, OpenThread, ThreadOpened, WriteDraft
from schemas.envelope import decode_any
from schemas.ownership import Assignee, Release, SayManual, TakeOver, internal_topic
from schemas.record import Delta, RunStarted
from tests.integration.answering import Talk
from tests.integration.edges import Edge, serving
from tests.integration.talking import deployed

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANN = Assignee(id="ann", name="Ann")
SECRET = "between us"
numbers = count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with fake("coze", key="pat-0123456789") as coze:
        yield coze


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit(upstream: Upstream) -> AsyncIterator[Kit]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COZE_KEY", "pat-0123456789")
        coze = {
            "provider": "coze",
            "model": "w1",
            "upstreams": [{"url": upstream.url, "key_env": "COZE_KEY"}],
            "extra": {"app_id": "a1"},
            "breaker": {"faults": 1000, "rest": "1ms"},
            "tries": 1,
        }
        async with running(session=Session, batch=Batch, coze=deployed(coze, name="coze")) as kit:
            yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


@pytest.fixture
def talk(kit: Kit) -> Talk:
    return Talk(kit, f"aside{next(numbers)}")


async def taken(talk: Talk) -> str:
    """A conversation with a thread, an answer, and a person in it; returns the thread."""
    await talk.kit.ask(talk.session, OpenThread(actors=("coze",)))
    thread = (await talk.kit.event(talk.topic, ThreadOpened)).thread
    await talk.finished(await talk.open("coze", text="hello"))
    await talk.kit.ask(talk.session, TakeOver(agent=ANN))
    await talk.kit.ask(talk.session, SayManual(content="why is it blue?", role="user"))
    return thread


def hint(talk: Talk) -> str:
    """What the model repeats in its draft."""
    return f"{SECRET} {talk.id}."


async def drafted(talk: Talk, upstream: Upstream, *faults: str) -> DraftWritten:
    upstream.next(*faults)
    wish = WriteDraft(agent=ANN, actor="coze", hint=hint(talk))
    opened = await talk.kit.ask(talk.session, wish)
    told = await talk.kit.event(internal_topic(talk.id), DraftWritten)
    await talk.kit.settled()
    assert told.run == opened.run
    return told


async def where_told(talk: Talk, *marks: str) -> set[str]:
    """The topics that have heard any of these."""
    events = await talk.kit.bus.read_all("event.>", after=0)
    return {
        one.subject.removeprefix("event.")
        for one in events
        if any(mark.encode() in one.data for mark in marks)
    }


@pytest.mark.parametrize(
    ("faults", "written"),
    [((), True), (("failed",), True), (("reset=2", ""), True), (("json=4101",), False)],
)
async def test_nothing_of_a_draft_is_ever_told_to_the_customer(
    talk: Talk, upstream: Upstream, faults: tuple[str, ...], written: bool
) -> None:
    thread = await taken(talk)
    told = await drafted(talk, upstream, *faults)
    state = await talk.state()

    assert await where_told(talk, told.run, hint(talk)) == {f"internal.{talk.id}"}
    assert (bool(told.text), bool(told.reason)) == (written, not written)
    assert (state.drafts, state.thread) == ({}, thread)


async def test_a_draft_is_written_from_all_that_was_said_in_a_thread_of_its_own(
    talk: Talk, upstream: Upstream
) -> None:
    thread = await taken(talk)
    told = await drafted(talk, upstream)
    deltas = await talk.kit.events(internal_topic(talk.id), Delta)
    started = await talk.kit.events(internal_topic(talk.id), RunStarted)
    await talk.kit.ask(talk.session, Release(agent="ann"))
    await talk.finished(await talk.open("coze", text="so?"))
    draft, after = [one.body for one in upstream.asked[-2:]]
    texts = [one["content"] for one in draft["additional_messages"]]

    assert "".join(one.text for one in deltas) == told.text
    assert [one.run for one in started] == [told.run]
    assert texts[:3] == ["hello", "You said: hello", "why is it blue?"]
    assert texts[3].endswith(hint(talk))
    assert draft["conversation_id"] != thread
    assert after["conversation_id"] == thread
    assert [one["content"] for one in after["additional_messages"]] == ["why is it blue?", "so?"]


async def test_customers_see_nothing_of_a_draft_on_any_page_of_theirs(
    talk: Talk, upstream: Upstream, edge: Edge
) -> None:
    await taken(talk)
    told = await drafted(talk, upstream)
    pages = [await edge.get(f"/v1/conversations/{talk.id}{more}") for more in ("", "/history")]

    assert told.text
    assert [page.status_code for page in pages] == [200, 200]
    assert not any(mark in page.text for page in pages for mark in (SECRET, told.run))


async def test_the_end_of_a_draft_and_its_text_are_one_commit(
    talk: Talk, upstream: Upstream
) -> None:
    await taken(talk)
    told = await drafted(talk, upstream)
    run = await talk.kit.bus.last(f"run.{told.run}")
    text = [
        one.seq
        for one in await talk.kit.bus.read_all(f"event.internal.{talk.id}", after=0)
        if decode_any(one.data).type == "model.draft_written"
    ]

    assert run is not None
    assert msgspec.json.decode(run.data)["state"] == "finished"
    assert text == [run.seq + 1]
