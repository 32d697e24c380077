"""What Fiido's rules demand of every call to Coze, whatever else an adapter may do."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from actors.fakes.upstream import Upstream as Fake
from actors.models.coze_reader import WorkflowReader
from actors.models.coze_token import ENDPOINT
from actors.models.events import Call, Ended, ProviderEvent, TextDelta, Thread
from actors.models.pools import Pools
from actors.models.wording import Discretion
from runtime.terminal.workflow_offer import CONCURRENCY
from tests.unit.provider_double import collect
from tests.unit.test_coze_adapter import Asker, asking

ROOT = Path(__file__).parents[2]
TOKEN, CREATE, CHAT = ENDPOINT, "/v1/conversation/create", "/v1/workflows/chat"


def paths(upstream: Fake) -> list[str]:
    return [call.path for call in upstream.calls]


def frame(event: str, data: str) -> bytes:
    return f"event: {event}\ndata: {data}\n\n".encode()


def read(*frames: bytes) -> str:
    reader = WorkflowReader(Discretion())
    events = [event for one in frames for event in reader.feed(one)]
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# -- as a stream, read from the top ------------------------------------------------------------


@pytest.mark.promise("FD-09", "FD-87")
async def test_each_piece_is_heard_while_coze_is_still_speaking() -> None:
    async with asking() as asker:
        stream = asker.adapter.stream(asker.call("w1+hold-middle=1"))
        heard = [event async for event in until_text(stream)]
        speaking = asker.upstream.asked[0].outcome
        asker.upstream.open()
        rest = [event async for event in stream]

    assert asker.upstream.asked[0].headers["accept"].startswith("text/event-stream")
    assert heard[-1] == TextDelta("You")
    assert speaking == ""
    assert rest[-1] == Ended("stop")


async def until_text(stream: AsyncIterator[ProviderEvent]) -> AsyncIterator[ProviderEvent]:
    async for event in stream:
        yield event
        if isinstance(event, TextDelta):
            return


@pytest.mark.promise("FD-10", "FD-16")
def test_only_the_answer_at_the_top_of_an_event_is_heard() -> None:
    delta, whole = "conversation.message.delta", "conversation.message.completed"
    said = read(
        frame(delta, '{"id":"1","type":"answer","content":"yes","message":{"content":"no"}}'),
        frame(delta, '{"id":"1","type":"answer","message":{"type":"answer","content":"no"}}'),
        frame(delta, '{"id":"2","type":"verbose","content":"no"}'),
        frame(delta, '{"id":"3","type":"follow_up","content":"no"}'),
        frame(delta, '{"id":"4","content":"no"}'),
        frame(whole, '{"id":"5","type":"follow_up","content":"no"}'),
        frame(whole, '{"id":"6","type":"verbose","content":"no"}'),
        frame(whole, '{"id":"7","type":"function_call","content":"no"}'),
        frame(whole, '{"id":"1","type":"answer","content":"yes"}'),
        frame("conversation.chat.completed", '{"usage":{}}'),
    )

    assert said == "yes"


@pytest.mark.promise("FD-09", "FD-65")
@pytest.mark.parametrize("fault", ["json=0", "json=4000", "json=700012006", "empty", "truncated"])
async def test_what_is_no_whole_stream_is_a_failure_under_any_status(fault: str) -> None:
    async with asking() as asker:
        outcome = await asker.ask(f"w1+{fault}")

    assert outcome.fault is not None
    assert not [event for event in outcome.events if isinstance(event, Ended)]


# -- tokens ------------------------------------------------------------------------------------


@pytest.mark.promise("FD-17", "FD-19", "FD-66")
async def test_every_request_bears_the_token_that_was_given_for_its_session() -> None:
    async with asking() as asker:
        sessions = [f"s{n % 3}" for n in range(9)]
        await asyncio.gather(*(asker.ask(conversation=session) for session in sessions))
        await asker.adapter.open(asker.call(conversation="s0"))
    bearing = [call for call in asker.upstream.calls if call.path != TOKEN]
    tokens = {call.note: call.secret for call in bearing}
    claimed = [claims["session_name"] for claims in asker.upstream.provider.claims]  # type: ignore[attr-defined]  # Coze's own

    assert sorted(claimed) == ["s0", "s1", "s2"]
    assert len(set(tokens.values())) == 3
    assert all(call.secret == tokens[call.note] for call in bearing)
    assert all(call.body["session_name"] == call.note for call in asker.upstream.asked)


@pytest.mark.promise("FD-66")
def test_only_the_keeper_of_tokens_knows_where_tokens_are_given() -> None:
    product = [
        path for name in ("actors", "edge", "runtime") for path in (ROOT / name).rglob("*.py")
    ]
    users = {
        path.relative_to(ROOT).as_posix()
        for path in product
        if "/oauth2/token" in path.read_text(encoding="utf-8")
    }

    assert users == {"actors/models/coze_token.py", "actors/fakes/coze.py"}


@pytest.mark.parametrize(
    ("faults", "asked", "tokens", "answered"),
    [
        (("401", ""), 2, 2, True),
        (("json=4100", ""), 2, 2, True),
        (("json=700012006", ""), 2, 2, True),
        (("401", "401", ""), 2, 2, False),
        (("401", "500", ""), 2, 2, False),
        (("403", ""), 1, 1, False),
    ],
)
async def test_after_a_refused_token_the_request_is_repeated_once_with_a_new_one(
    faults: tuple[str, ...], asked: int, tokens: int, answered: bool
) -> None:
    async with asking() as asker:
        asker.upstream.next(*faults)
        outcome = await asker.ask(thread=None)
    bodies = [{**call.body, "conversation_id": ""} for call in asker.upstream.asked]

    assert len(asker.upstream.asked) == asked
    assert paths(asker.upstream).count(TOKEN) == tokens
    assert (outcome.fault is None) == answered
    assert len({call.secret for call in asker.upstream.asked}) == asked
    assert all(body == bodies[0] for body in bodies)


async def test_a_refused_token_leaves_the_conversation_where_it_was() -> None:
    async with asking() as asker:
        name = await asker.adapter.open(asker.call())
        asker.upstream.next("401", "")
        outcome = await asker.ask(thread=Thread(name, "", news=None))

    assert outcome.last == Ended("stop")
    assert [call.body["conversation_id"] for call in asker.upstream.asked] == [name, name]
    assert paths(asker.upstream).count(CREATE) == 1


async def test_a_refused_token_does_not_make_coze_open_two_conversations() -> None:
    async with asking() as asker:
        asker.upstream.next("401", "")
        await asker.ask()

    assert paths(asker.upstream) == [TOKEN, CREATE, CHAT, TOKEN, CHAT]


@pytest.mark.parametrize(("faults", "tokens"), [(("401", ""), 2), (("401", "401"), 2)])
async def test_so_it_is_when_a_conversation_is_opened(faults: tuple[str, ...], tokens: int) -> None:
    async with asking() as asker:
        asker.upstream.next(*faults, part="create")
        outcome = await collect(Opening(asker), asker.call())

    assert paths(asker.upstream) == [TOKEN, CREATE] * tokens
    assert (outcome.fault is None) == (faults[-1] == "")


class Opening:
    """Opens a conversation where another would ask."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def stream(self, call: Call) -> AsyncIterator[ProviderEvent]:
        await self._asker.adapter.open(call)
        yield Ended()

    async def close(self) -> None:
        """Whoever made the adapter closes it."""


# -- connections -------------------------------------------------------------------------------


@pytest.mark.promise("FD-71")
async def test_a_hundred_answers_come_at_once_over_connections_that_are_pooled() -> None:
    async with asking() as asker:
        pools = Pools(30.0, httpx.create_ssl_context())
        async with httpx.AsyncClient(transport=pools, trust_env=False) as client:
            call = asker.call("w1+hold-middle=1", client=client)
            await asker.adapter.open(call)
            waiting = [
                asyncio.create_task(collect(asker.adapter, call)) for _ in range(CONCURRENCY)
            ]
            await asker.upstream.until(lambda: len(asker.upstream.asked) == CONCURRENCY)
            asker.upstream.open()
            outcomes = await asyncio.gather(*waiting)

    assert CONCURRENCY == 100
    assert {outcome.last for outcome in outcomes} == {Ended("stop")}
