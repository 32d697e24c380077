"""Where a provider keeps a conversation: opened once, kept, and gone on in by every message."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from actors.batch import Batch
from actors.fakes.upstream import Upstream, fake
from actors.session import Session
from runtime.ask import Origin
from runtime.errors import Refused
from runtime.testing import Kit, running
from schemas.assist import OpenThread, ThreadFailed, ThreadKept, ThreadOpened
from schemas.conversation import MessageAnswered
from schemas.model import Prompt, history_topic
from schemas.ownership import Assignee, Escalate, Release, SayManual, TakeOver
from tests.integration.answering import Answering, Talk, words
from tests.integration.talking import deployed
from tests.unit.signing import PRIVATE_PEM, PUBLIC_PEM

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANN = Assignee(id="ann", name="Ann")

numbers = count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with fake("coze", public_key=PUBLIC_PEM) as coze:
        yield coze


def coze(upstream: Upstream, name: str = "coze") -> Any:
    options = {
        "provider": "coze",
        "model": "w1",
        "upstreams": [{"url": upstream.url, "key_env": "COZE_PRIVATE_KEY", "name": "cn"}],
        "extra": {"app_id": "a1"},
        "dialect": {"client": "app-1", "key_id": "k1"},
        "tries": 1,
        "breaker": {"faults": 1000, "rest": "1ms"},
    }
    return deployed(options, name=name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit(upstream: Upstream) -> AsyncIterator[Kit]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COZE_PRIVATE_KEY", PRIVATE_PEM)
        echo = deployed({"provider": "echo"}, name="echo")
        models: dict[str, Any] = {"coze": coze(upstream), "other": coze(upstream, "other")}
        models |= {"echo": echo, "plain": Answering}
        async with running(session=Session, batch=Batch, **models) as kit:
            yield kit


@pytest.fixture
def talk(kit: Kit) -> Talk:
    return Talk(kit, f"s{next(numbers)}")


async def opened(
    talk: Talk, *actors: str, anew: bool = False, principal: str = ""
) -> tuple[ThreadKept, str]:
    """What is answered to the wish for a thread, and the thread that then was opened."""
    wish = OpenThread(actors=actors or ("coze",), anew=anew)
    kept = await talk.kit.ask(talk.session, wish, origin=Origin(principal=principal))
    if kept.thread:
        return kept, kept.thread
    return kept, (await talk.kit.event(talk.topic, ThreadOpened)).thread


async def say(talk: Talk, text: str, actor: str = "coze", **more: Any) -> None:
    await talk.finished(await talk.open(actor, text=text, **more))


def asked(upstream: Upstream, talk: Talk) -> list[tuple[str, list[str]]]:
    """Of each question of a session: where at Coze, and what was said there."""
    return [
        (call.body["conversation_id"], [one["content"] for one in call.body["additional_messages"]])
        for call in upstream.asked
        if call.body["session_name"] == talk.id
    ]


def created(upstream: Upstream, talk: Talk) -> int:
    """How many conversations Coze has made for a session."""
    return sum(
        call.path == "/v1/conversation/create" and call.note == talk.id for call in upstream.calls
    )


@pytest.mark.promise("FD-06", "FD-15", "FD-21", "FD-22", "FD-24")
async def test_a_thread_is_opened_first_and_every_message_goes_on_in_it(
    talk: Talk, upstream: Upstream
) -> None:
    kept, thread = await opened(talk)
    await say(talk, "one", thread=thread)
    await say(talk, "two")
    again, _ = await opened(talk)

    assert (bool(kept.run), kept.thread) == (True, "")
    assert again == ThreadKept(thread=thread)
    assert thread.startswith("7543")
    assert asked(upstream, talk) == [(thread, ["one"]), (thread, ["two"])]
    assert created(upstream, talk) == 1


@pytest.mark.promise("FD-25")
async def test_a_message_without_a_thread_gets_one_that_is_kept_for_the_next(
    talk: Talk, upstream: Upstream
) -> None:
    first = await talk.open("coze", text="one")
    await talk.finished(first)
    [answer] = await talk.kit.events(history_topic(talk.id), MessageAnswered)
    second = await talk.open("coze", text="two", thread=answer.thread)
    await talk.finished(second)

    assert (first.thread, second.thread) == ("", answer.thread)
    assert await talk.told(ThreadOpened) == [ThreadOpened(thread=answer.thread)]
    assert asked(upstream, talk) == [(answer.thread, ["one"]), (answer.thread, ["two"])]


@pytest.mark.promise("FD-23")
async def test_a_thread_of_another_conversation_or_one_made_by_hand_is_refused(
    talk: Talk, upstream: Upstream
) -> None:
    other = Talk(talk.kit, f"{talk.id}-other")
    _, thread = await opened(talk)
    _, theirs = await opened(other)
    for wrong in (theirs, "7543999", "x" * 3000):
        with pytest.raises(Refused, match="unknown_thread") as caught:
            await talk.open("coze", thread=wrong)
        assert caught.value.refusal.status == 400

    assert thread != theirs
    assert asked(upstream, talk) == []


async def test_whoever_asks_while_a_thread_is_being_opened_waits_for_the_same_one(
    talk: Talk, upstream: Upstream
) -> None:
    upstream.next("hold", part="create")
    wish = OpenThread(actors=("gone", "coze"))
    asked_for = [await talk.kit.ask(talk.session, wish) for _ in range(3)]
    await upstream.held()
    upstream.release()
    await talk.kit.event(talk.topic, ThreadOpened)

    assert len({one.run for one in asked_for}) == 1
    assert created(upstream, talk) == 1


@pytest.mark.parametrize(
    ("faults", "code", "status"),
    [
        ("500", "server_error", 502),
        ("json=4101", "unauthorized", 502),
        ("401,401", "unauthorized", 502),
    ],
)
async def test_a_thread_that_is_not_opened_is_told_and_may_be_asked_for_again(
    talk: Talk, upstream: Upstream, faults: str, code: str, status: int
) -> None:
    upstream.next(*faults.split(","), part="create")
    kept = await talk.kit.ask(talk.session, OpenThread(actors=("coze",)))
    failed = await talk.kit.event(talk.topic, ThreadFailed)
    _, thread = await opened(talk)

    assert (failed.run, failed.code, failed.status) == (kept.run, code, status)
    assert failed.reason
    assert (await talk.state()).thread == thread


@pytest.mark.promise("FD-20")
async def test_a_token_that_is_refused_is_renewed_once_for_a_thread_too(
    talk: Talk, upstream: Upstream
) -> None:
    upstream.next("401", part="create")
    _, thread = await opened(talk)

    assert thread
    paths = [call.path.rpartition("/")[2] for call in upstream.calls if call.note == talk.id]
    assert paths.count("token") == 2


async def test_a_conversation_begun_anew_leaves_its_thread_and_what_was_said_behind(
    talk: Talk, upstream: Upstream
) -> None:
    _, first = await opened(talk)
    await say(talk, "one")
    _, second = await opened(talk, anew=True)
    await say(talk, "two", thread=second)
    await say(talk, "three", actor="other")
    with pytest.raises(Refused, match="unknown_thread"):
        await talk.open("coze", thread=first)

    assert asked(upstream, talk)[:2] == [(first, ["one"]), (second, ["two"])]
    assert asked(upstream, talk)[2][1] == ["two", "You said: two", "three"]


async def test_a_thread_goes_on_after_another_model_has_answered_with_what_it_has_not_heard(
    talk: Talk, upstream: Upstream
) -> None:
    _, thread = await opened(talk)
    await say(talk, "one")
    await say(talk, "two", actor="echo")
    await say(talk, "three")
    await say(talk, "four")

    assert asked(upstream, talk) == [
        (thread, ["one"]),
        (thread, ["two", "two", "three"]),
        (thread, ["four"]),
    ]


async def test_a_thread_that_coze_has_lost_is_replaced_and_its_clients_still_understood(
    talk: Talk, upstream: Upstream
) -> None:
    _, lost = await opened(talk)
    await say(talk, "one")
    known: dict[str, str] = upstream.provider.conversations  # type: ignore[attr-defined]  # Coze's own
    known["elsewhere"] = known.pop(lost)
    await say(talk, "two", thread=lost)
    await say(talk, "three", thread=lost)
    found = (await talk.state()).thread

    assert found != lost
    assert asked(upstream, talk) == [
        (lost, ["one"]),
        (lost, ["two"]),
        (found, ["one", "You said: one", "two"]),
        (found, ["three"]),
    ]


async def test_a_thread_of_another_model_is_not_the_conversations_but_names_it_too(
    talk: Talk, upstream: Upstream
) -> None:
    _, thread = await opened(talk)
    await say(talk, "one", actor="other")
    [answer] = await talk.kit.events(history_topic(talk.id), MessageAnswered)
    await say(talk, "two", thread=answer.thread)

    assert (await talk.state()).thread == thread
    assert asked(upstream, talk) == [
        (answer.thread, ["one"]),
        (thread, ["one", "You said: one", "two"]),
    ]


async def test_an_attempt_that_broke_off_is_repeated_in_the_same_thread(
    talk: Talk, upstream: Upstream
) -> None:
    _, thread = await opened(talk)
    upstream.next("reset=2", "")
    await say(talk, "one")

    assert asked(upstream, talk) == [(thread, ["one"]), (thread, ["one"])]
    assert (await talk.state()).thread == thread


async def test_what_leaves_nothing_behind_has_no_part_in_the_thread(
    talk: Talk, upstream: Upstream
) -> None:
    _, thread = await opened(talk)
    await say(talk, "one")
    await say(talk, "secret", said=None)
    await say(talk, "two")

    where = [place for place, _ in asked(upstream, talk)]
    assert [place == thread for place in where] == [True, False, True]
    assert (await talk.state()).thread == thread


@pytest.mark.parametrize("actor", ["echo", "plain"])
async def test_where_no_threads_are_kept_the_conversations_own_id_is_the_answer(
    talk: Talk, actor: str
) -> None:
    _, thread = await opened(talk, actor)
    await say(talk, "one", actor=actor, thread=talk.id)

    assert thread == talk.id
    assert await talk.told(ThreadOpened) != []


async def test_nobody_opens_a_thread_in_somebody_elses_conversation_or_for_no_model(
    talk: Talk,
) -> None:
    await opened(talk, principal="ann")
    with pytest.raises(Refused, match="conversation_not_found"):
        await opened(talk, principal="bob")
    with pytest.raises(Refused, match="model_not_found"):
        await opened(talk, "session", "nobody", principal="ann")

    assert (await talk.state()).owner == "ann"


async def test_parameters_of_a_message_reach_the_workflow(talk: Talk, upstream: Upstream) -> None:
    prompt = Prompt(messages=(words("hi"),), settings={"parameters": {"USER_LANGUAGE": "de"}})
    await talk.finished(await talk.open("coze", prompt=prompt))
    [call] = [one for one in upstream.asked if one.body["session_name"] == talk.id]

    assert call.body["parameters"] == {"USER_LANGUAGE": "de"}


@pytest.mark.promise("FD-15", "FD-24")
async def test_a_takeover_keeps_the_thread_which_then_hears_what_people_said(
    talk: Talk, upstream: Upstream
) -> None:
    _, thread = await opened(talk)
    await say(talk, "one")
    await talk.kit.ask(talk.session, TakeOver(agent=ANN))
    await talk.kit.ask(talk.session, SayManual(content="two", role="user"))
    await talk.kit.ask(talk.session, SayManual(content="three", agent=ANN))
    with pytest.raises(Refused, match="MANUAL_IN_PROGRESS"):
        await opened(talk, anew=True)
    during, _ = await opened(talk)
    await talk.kit.ask(talk.session, Release(agent=ANN.id))
    await say(talk, "four", thread=thread)
    await say(talk, "five", thread=thread)

    assert during == ThreadKept(thread=thread)
    assert asked(upstream, talk) == [
        (thread, ["one"]),
        (thread, ["two", "three", "four"]),
        (thread, ["five"]),
    ]
    roles = [[one["role"] for one in call.body["additional_messages"]] for call in upstream.asked]
    assert roles[-2] == ["user", "assistant", "user"]


async def test_what_people_said_is_shown_to_any_model_afterwards(
    talk: Talk, upstream: Upstream
) -> None:
    await talk.finished(await talk.open("echo", text="one"))
    await talk.kit.ask(talk.session, Escalate(details="wants a person"))
    await talk.kit.ask(talk.session, SayManual(content="hurry", role="user"))
    await talk.kit.ask(talk.session, TakeOver(agent=ANN))
    await talk.kit.ask(talk.session, SayManual(content="here I am", agent=ANN))
    await talk.kit.ask(talk.session, Release(agent=ANN.id))
    await talk.finished(await talk.open("other", text="two"))

    [(_, said)] = asked(upstream, talk)
    assert said == ["one", "one", "hurry", "here I am", "two"]
