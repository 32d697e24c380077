"""Following a conversation: how it stands, then what comes, from any cursor, on any edge."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from runtime.tables import KeyTable
from runtime.testing import Kit, running
from schemas.base import Address
from schemas.ownership import Assignee, SayManual, TakeOver
from tests.integration.answering import Answering, gate
from tests.integration.asking import COMPLETIONS, GEMINI, Files, ask, history_of, models, polled
from tests.integration.edges import Edge, serving
from tests.integration.feed import Block, Feed, feed
from tests.integration.waiting import until_known
from tests.unit.parcels import png

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = " ".join(f"word{n}" for n in range(60))
STEADY = {"extra": {"rate": 100}}
"""Answers for about a second."""
MINE, YOURS, ALL = "m" * 8 + "ine-secret", "y" * 8 + "ours-secret", "a" * 8 + "ll-secret"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    named = models(gemini=GEMINI, steady=STEADY, steadier=STEADY)
    async with running(waits=Answering, **named) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


def events_of(asked: Any, after: str = "") -> str:
    place = f"?after={after}" if after else ""
    return f"/v1/conversations/{asked['conversation_id']}/events{place}"


def spoken(blocks: list[Block]) -> dict[str, str]:
    """The text of each run as one who follows it has it: a snapshot, and deltas behind it."""
    texts: dict[str, str] = {}
    for block in blocks:
        if block.name == "reset":
            running = block.data["snapshot"]["running"]
            texts = {one["run"]: one["text"] for one in running}
        elif block.name == "run.superseded":
            texts[block.said["run"]] = ""
        elif block.name == "run.delta":
            texts[block.said["run"]] = texts.get(block.said["run"], "") + block.said["text"]
    return texts


async def to_the_end(stream: Feed) -> list[Block]:
    return await stream.until("batch.finished")


async def test_who_comes_in_is_told_how_it_stands_and_then_what_comes(edge: Edge) -> None:
    async with contextlib.AsyncExitStack() as stack:
        with gate("waits"):
            asked = await ask(edge, "hello", "waits, gemini", conversation_id="stands")
            await first_word(edge, asked)
            stream = await stack.enter_async_context(feed(edge, events_of(asked)))
            [reset] = await stream.take(1)
        rest = await to_the_end(stream)
    snapshot = reset.data["snapshot"]
    view = (await edge.get(f"/v1/conversations/{asked['conversation_id']}")).json()

    assert reset.name == "reset"
    assert int(reset.cursor) == snapshot["cursor"]
    assert [(one["role"], one["is_loading"]) for one in snapshot["messages"]] == [
        ("user", False),
        ("assistant", False),
        ("assistant", True),
    ]
    assert [(one["text"], one["n"]) for one in snapshot["running"]] == [("well", 1)]
    assert rest[-1].name == "batch.finished"
    assert all(int(each.cursor) > snapshot["cursor"] for each in rest)
    assert view["running"] == []
    assert view["cursor"] >= int(rest[-1].cursor)


async def first_word(edge: Edge, asked: Any) -> None:
    """Wait until the model has said its first word, and the other one all of it."""

    async def is_said() -> bool:
        view = (await edge.get(f"/v1/conversations/{asked['conversation_id']}")).json()
        return [one["text"] for one in view["running"]] == ["well"]

    await until_known(is_said)


async def test_a_feed_goes_on_mid_token_from_any_cursor_on_another_edge(
    kit: Kit, edge: Edge
) -> None:
    asked = await ask(edge, WORDS, "steady, steadier", conversation_id="resumed")
    async with feed(edge, events_of(asked, "0")) as stream:
        whole = await to_the_end(stream)
    deltas = [each for each in whole if each.name == "run.delta"]
    async with serving(kit.server.url) as other:
        for block in whole[:: max(1, len(whole) // 12)]:
            async with feed(other, events_of(asked), **{"Last-Event-ID": block.cursor}) as stream:
                again = await to_the_end(stream) if block is not whole[-1] else []
            assert [one.cursor for one in again] == [
                one.cursor for one in whole if int(one.cursor) > int(block.cursor)
            ]

    assert len(deltas) > 10
    assert set(spoken(whole).values()) == {WORDS}


async def test_a_snapshot_and_what_comes_after_it_are_one_text_wherever_one_comes_in(
    kit: Kit, edge: Edge
) -> None:
    asked = await ask(edge, WORDS, "steady, steadier, gemini", conversation_id="joined")

    async def come_in(late: float, at: Edge) -> list[Block]:
        # Spread over the second in which the models speak: wherever it falls, it must hold.
        await asyncio.sleep(late)
        async with feed(at, events_of(asked)) as stream:
            blocks = await stream.take(1)
            messages = blocks[0].data["snapshot"]["messages"]
            if any(one["is_loading"] for one in messages):
                blocks += await to_the_end(stream)
            return blocks

    async with serving(kit.server.url) as other:
        followers = [come_in(n / 20, edge if n % 2 else other) for n in range(20)]
        found = await asyncio.gather(*followers)
    history = (await edge.get(history_of(asked))).json()

    for blocks in found:
        assert set(spoken(blocks).values()) <= {WORDS}
    assert sum(len(spoken(blocks)) == 2 for blocks in found) > 3, "some came in while they spoke"
    assert [one["content"] for one in history] == [WORDS] * 4


async def test_a_cursor_that_is_none_of_this_log_starts_afresh_with_a_snapshot(edge: Edge) -> None:
    asked = await ask(edge, "hello", "gemini")
    await polled(edge, asked)
    async with feed(edge, events_of(asked, str(2**40))) as stream:
        [reset] = await stream.take(1)

    assert reset.name == "reset"
    assert [one["content"] for one in reset.data["snapshot"]["messages"]] == ["hello", "hello"]


# -- whose it is -----------------------------------------------------------------------------


def key(id: str, *scopes: str) -> KeyTable:
    return KeyTable(id=id, secret_env=f"KEY_{id.upper()}", scopes=list(scopes))


KEYS = {
    MINE: key("mine", "chat:send", "chat:read"),
    YOURS: key("yours", "chat:send", "chat:read"),
    ALL: key("all", "chat:send", "chat:read", "chat:all"),
}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(kit: Kit) -> AsyncIterator[Edge]:
    """An edge that says it listens elsewhere too, so that nothing is open without a key."""
    hosts = ["chat.example"]
    async with serving(kit.server.url, keys=KEYS, hosts=hosts) as edge:
        edge.client.headers.pop("X-Relay-API-Key")
        yield edge


async def test_what_somebody_began_is_theirs_to_see_and_nobodys_else(guarded: Edge) -> None:
    picture: Files = [("files", ("a.png", png(), "image/png"))]
    asked = await ask(guarded, "hello", "gemini", files=picture, headers=bearer(MINE))
    conversation, batch = asked["conversation_id"], asked["batch_id"]
    mine = await guarded.get(f"/v1/batches/{batch}", headers=bearer(MINE))
    history = await guarded.get(history_of(asked), headers=bearer(MINE))
    file = history.json()[0]["files"][0]
    paths = [
        f"/v1/batches/{batch}",
        f"/v1/tasks/{asked['task_ids'][0]}",
        f"/v1/conversations/{conversation}",
        history_of(asked),
        events_of(asked),
        file.removeprefix(guarded.url),
    ]
    asks = [(path, bearer(YOURS)) for path in paths]
    strangers = [(await guarded.get(p, headers=h)).status_code for p, h in asks]
    nobody = [(await guarded.get(path)).status_code for path in paths]
    others = [await guarded.get(p, headers=bearer(ALL)) for p in paths if "events" not in p]
    listed = [
        (await guarded.get("/v1/conversations", headers=bearer(secret))).json()["conversations"]
        for secret in (MINE, YOURS, ALL)
    ]

    assert mine.status_code == history.status_code == 200
    assert strangers == [404] * len(paths)
    assert nobody == [401] * len(paths)
    assert [one.status_code for one in others] == [200] * len(others)
    seen = [conversation in [one["conversation_id"] for one in found] for found in listed]
    assert seen == [True, False, True]


async def test_nobody_goes_on_with_or_stops_what_somebody_else_began(guarded: Edge) -> None:
    asked = await ask(guarded, "hello", "gemini", headers=bearer(MINE))
    conversation = asked["conversation_id"]
    form = [("prompt", (None, "mine too")), ("conversation_id", (None, conversation))]
    said = await guarded.client.post(COMPLETIONS, files=form, headers=bearer(YOURS))
    stopped = [
        await guarded.post(f"/v1/{path}/abort", headers=bearer(YOURS))
        for path in (f"conversations/{conversation}", f"batches/{asked['batch_id']}")
    ]

    assert said.status_code == 404
    assert [one.status_code for one in stopped] == [404, 404]
    assert len((await guarded.get(history_of(asked), headers=bearer(MINE))).json()) <= 2


async def test_a_file_is_named_in_json_by_whose_it_is_only(guarded: Edge) -> None:
    picture: Files = [("files", ("a.png", png(), "image/png"))]
    asked = await ask(guarded, "look", "gemini", files=picture, headers=bearer(MINE))
    history = (await guarded.get(history_of(asked), headers=bearer(MINE))).json()
    named = {"type": "file", "file": {"file_id": history[0]["files"][0].rpartition("/")[2]}}
    body = {"model": "gemini", "messages": [{"role": "user", "content": [named]}]}
    answers = [
        await guarded.client.post(
            COMPLETIONS, json=body, headers=bearer(secret) | {"x-conversation-id": name}
        )
        for secret, name in ((MINE, "named-mine"), (YOURS, "named-yours"))
    ]

    assert [one.status_code for one in answers] == [200, 400]
    assert "there is no such file" in answers[1].json()["error"]["message"]


async def test_a_key_in_a_url_is_refused_everywhere(guarded: Edge) -> None:
    for path in ("/v1/conversations", f"/files/{'0' * 32}", "/v1/nodes"):
        refused = await guarded.get(f"{path}?api_key={MINE}")

        assert (refused.status_code, refused.json()["code"]) == (400, "credential_in_url")
        assert MINE not in refused.text


async def test_what_people_said_stands_in_the_history_under_their_names(
    kit: Kit, edge: Edge
) -> None:
    asked = await ask(edge, "hello", "gemini", conversation_id="served")
    await polled(edge, asked)
    session, ann = Address("session", "served"), Assignee(id="ann", name="Ann")
    await kit.ask(session, TakeOver(agent=ann))
    await kit.ask(session, SayManual(content="good day", agent=ann))
    await kit.ask(session, SayManual(content="thanks", role="user"))
    history = (await edge.get(history_of(asked))).json()
    snapshot = (await edge.get("/v1/conversations/served")).json()

    assert [(one["role"], one["name"], one["content"]) for one in history] == [
        ("user", None, "hello"),
        ("assistant", None, "hello"),
        ("agent", "Ann", "good day"),
        ("user", None, "thanks"),
    ]
    assert all(bool(one["batch_id"]) != bool(one["message_id"]) for one in history)
    assert snapshot["messages"] == history
