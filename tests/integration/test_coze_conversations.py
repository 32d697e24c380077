"""A workflow at Coze as a deployed model: one conversation there for each of ours."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.fakes.upstream import Upstream, fake
from schemas.model import Context
from tests.integration.talking import Talk, talking
from tests.unit.signing import PRIVATE_PEM, PUBLIC_PEM

ALL = Context()


@pytest.fixture
async def upstream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    monkeypatch.setenv("COZE_PRIVATE_KEY", PRIVATE_PEM)
    async with fake("coze", public_key=PUBLIC_PEM) as coze:
        yield coze


def options(upstream: Upstream) -> dict[str, Any]:
    return {
        "provider": "coze",
        "model": "w1",
        "upstreams": [{"url": upstream.url, "key_env": "COZE_PRIVATE_KEY", "name": "cn"}],
        "extra": {"app_id": "a1"},
        "dialect": {"client": "app-1", "key_id": "k1"},
    }


def sent(upstream: Upstream) -> list[tuple[str, list[str]]]:
    """Of each question: the end of the conversation's id at Coze, and what was said there."""
    return [
        (
            call.body["conversation_id"][-1],
            [message["content"] for message in call.body["additional_messages"]],
        )
        for call in upstream.asked
    ]


async def ask(talk: Talk, text: str, **more: Any) -> str:
    return (await talk.ask(text, context=ALL, **more)).outcome


@pytest.mark.promise("FD-13", "FD-15", "FD-23", "FD-24", "FD-25")
async def test_turns_go_on_where_coze_keeps_them_also_after_a_restart(upstream: Upstream) -> None:
    async with talking(options(upstream)) as talk:
        await ask(talk, "one")
        await ask(talk, "two")
        await talk.kit.stop_host()
        await talk.kit.start_host()
        await ask(talk, "three")
        await ask(talk, "else", conversation="d")
        answers = await talk.answers()

    assert sent(upstream) == [("1", ["one"]), ("1", ["two"]), ("1", ["three"]), ("2", ["else"])]
    assert [call.note for call in upstream.asked] == ["c", "c", "c", "d"]
    assert {answer.thread[-1] for answer in answers} == {"1"}


async def test_what_coze_does_not_know_is_told_it_in_a_new_conversation(
    upstream: Upstream,
) -> None:
    upstream.next("", "truncated=0+failed", "json=4000", "")
    async with talking(options(upstream) | {"tries": 1}) as talk:
        await ask(talk, "one")
        failed = await ask(talk, "two")
        refused = await ask(talk, "three")
        await ask(talk, "four")
        await ask(talk, "five", slot=1)

    assert (failed, refused) == ("failed", "failed")
    assert sent(upstream) == [
        ("1", ["one"]),
        ("1", ["two"]),
        ("2", ["one", "You said: one", "three"]),
        ("3", ["one", "You said: one", "four"]),
        ("4", ["one", "You said: one", "four", "You said: four", "five"]),
    ]


async def test_an_attempt_after_one_that_broke_off_begins_anew_at_coze(upstream: Upstream) -> None:
    upstream.next("", "reset=2", "")
    async with talking(options(upstream)) as talk:
        await ask(talk, "one")
        outcome = await ask(talk, "two")
        answers = await talk.answers()

    assert outcome == "answered"
    assert answers[-1].text == "You said: two"
    assert sent(upstream) == [
        ("1", ["one"]),
        ("1", ["two"]),
        ("2", ["one", "You said: one", "two"]),
    ]
