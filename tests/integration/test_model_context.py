"""What a model is given of a conversation, read from its log by whichever worker has the job."""

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest

from runtime.testing import running
from schemas import subjects
from schemas.base import tag_of
from schemas.conversation import MessageAnswered, MessageSaid, RunsOver
from schemas.envelope import encode, seal
from schemas.model import (
    Context,
    FileRef,
    Image,
    Prompt,
    Text,
    Utterance,
    history_topic,
)
from tests.integration.talking import Asker, Talk, deployed, talking, user
from tests.integration.wordy import Reply, Wordy, options, wordy_spoken

pytestmark = pytest.mark.usefixtures("wordy_spoken")
__all__ = ["wordy_spoken"]

ALL = Context()


@pytest.fixture
async def upstream() -> AsyncIterator[Wordy]:
    """Answers each call with its number."""
    async with Wordy(lambda n, body: Reply((f"answer {n}",))) as one:
        yield one


@pytest.mark.promise("AC-12")
async def test_the_last_turns_are_put_in_front_and_survive_the_host(upstream: Wordy) -> None:
    async with talking(options(upstream)) as talk:
        await talk.ask("one", context=ALL)
        await talk.ask("two", context=ALL)
        await talk.kit.stop_host()
        await talk.kit.start_host()
        await talk.ask("three", context=Context(turns=1))

    assert upstream.texts == [
        ["user: one"],
        ["user: one", "assistant: answer 1", "user: two"],
        ["user: two", "assistant: answer 2", "user: three"],
    ]


async def test_failed_turns_and_those_not_remembered_are_left_out(upstream: Wordy) -> None:
    upstream.plan = lambda n, body: Reply(status=400) if n == 1 else Reply((f"answer {n}",))
    async with talking(options(upstream)) as talk:
        await talk.ask("failed")
        await talk.ask("secret", remember=False)
        await talk.ask("good")
        await talk.ask("now", context=ALL)

    assert upstream.texts[-1] == ["user: good", "assistant: answer 3", "user: now"]


@pytest.mark.promise("AC-12")
async def test_an_event_that_nobody_can_read_is_not_the_end_of_its_conversation(
    upstream: Wordy,
) -> None:
    async with talking(options(upstream)) as talk:
        await talk.ask("one")
        for kind in (MessageSaid, MessageAnswered):
            odd = seal(RunsOver(runs=()), id="odd", source="model/c", subject="c")
            odd = msgspec.structs.replace(odd, type=tag_of(kind))
            await talk.kit.bus.publish(subjects.event(history_topic("c")), encode(odd))
        await talk.ask("two", context=ALL)

    assert upstream.texts[-1] == ["user: one", "assistant: answer 1", "user: two"]


@pytest.mark.promise("AC-52")
async def test_ten_turns_are_given_unless_told_otherwise(upstream: Wordy) -> None:
    async with talking(options(upstream)) as talk:
        for n in range(12):
            await talk.ask(f"say {n}")
        await talk.ask("now", context=ALL)

    assert upstream.texts[-1][:2] == ["user: say 2", "assistant: answer 3"]
    assert len(upstream.texts[-1]) == 2 * 10 + 1


async def test_only_turns_that_fit_are_given_the_newest_first(upstream: Wordy) -> None:
    async with talking(options(upstream)) as talk:
        await talk.ask("long " * 200)
        await talk.ask("short")
        await talk.ask("now", context=Context(tokens=100))
        await talk.ask("again", context=Context(tokens=5))

    assert upstream.texts[2] == ["user: short", "assistant: answer 2", "user: now"]
    assert upstream.texts[3] == ["user: again"]


async def test_of_several_answers_to_a_turn_a_model_is_given_its_own(upstream: Wordy) -> None:
    async with running(
        asker=Asker,
        model=deployed(options(upstream)),
        other=deployed({**options(upstream), "model": "n"}, name="other"),
    ) as kit:
        talk = Talk(kit)
        await talk.ask("hello", batch="b", task="b-1")
        await talk.ask("hello", batch="b", task="b-2", actor="other")
        await talk.ask("now", context=ALL, batch="c")
        await talk.ask("now", context=ALL, batch="d", actor="other")

    assert upstream.texts[2] == ["user: hello", "assistant: answer 1", "user: now"]
    assert upstream.texts[3][:2] == ["user: hello", "assistant: answer 2"]


async def test_the_deployments_system_prompt_comes_first(upstream: Wordy) -> None:
    async with talking(options(upstream, system="Be brief.", settings={"seed": 1})) as talk:
        await talk.ask("one")
        await talk.ask("two", context=ALL)

    assert upstream.texts[1] == [
        "system: Be brief.",
        "user: one",
        "assistant: answer 1",
        "user: two",
    ]
    assert upstream.calls[0]["settings"] == {"seed": 1}


async def test_a_file_that_has_expired_leaves_a_note(upstream: Wordy) -> None:
    gone = FileRef(id="0" * 32, name="cat.png", media="image/png", size=3)
    said = Utterance(role="user", content=(Text("look: "), Image(file=gone)))
    async with talking(options(upstream)) as talk:
        await talk.ask("-", prompt=Prompt(messages=(user("x"),)), said=said)
        await talk.ask("now", context=ALL)

    assert upstream.texts[1][0] == "user: look: [the file cat.png is no longer kept]"


async def test_a_prompt_too_long_for_a_message_is_read_from_its_file(upstream: Wordy) -> None:
    body = msgspec.json.encode(Prompt(messages=(user("from the file"),), settings={"seed": 7}))

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    async with talking(options(upstream)) as talk:
        files = talk.kit.host.system.files
        file = await files.put("prompt", chunks(), ttl=timedelta(hours=1))
        await talk.ask("-", prompt=Prompt(body=file))
        gone = msgspec.structs.replace(file, id="0" * 32, name="prompt.json")
        result = await talk.ask("-", prompt=Prompt(body=gone))

    assert upstream.texts == [["user: from the file"]]
    assert upstream.calls[0]["settings"] == {"seed": 7}
    assert (result.code, result.reason) == (
        "bad_request",
        "the file 'prompt.json' is no longer kept",
    )


async def test_a_judge_is_shown_the_answers_and_its_number_is_the_result(upstream: Wordy) -> None:
    async with talking(options(upstream)) as talk:
        await talk.ask("hello", batch="b", task="b-1")
        await talk.ask("hello", batch="b", task="b-2")
        upstream.plan = lambda n, body: Reply(("The best is ", "2."))
        chosen = await talk.ask("hello", batch="b", task="b-j", candidates=("b-1", "b-2"))
        upstream.plan = lambda n, body: Reply(("Hard to say.",))
        undecided = await talk.ask("hello", batch="b", task="b-k", candidates=("b-1", "b-2"))
        kept = await talk.answers()

    assert upstream.texts[2][0] == "user: hello"
    assert "[1]\nanswer 1\n\n[2]\nanswer 2" in upstream.texts[2][1]
    assert (chosen.outcome, chosen.excerpt) == ("answered", "2")
    assert (undecided.outcome, undecided.code) == ("failed", "no_choice")
    assert [(one.task, one.remembered) for one in kept] == [
        ("b-1", True),
        ("b-2", True),
        ("b-j", False),
    ]


@pytest.mark.promise("AC-15")
async def test_a_polite_refusal_is_an_outcome_of_its_own_and_not_remembered(
    upstream: Wordy,
) -> None:
    upstream.plan = lambda n, body: Reply(("I cannot ", "create images."))
    async with talking(options(upstream)) as talk:
        result = await talk.ask("draw a cat")
        upstream.plan = lambda n, body: Reply(())
        empty = await talk.ask("hello?")
        upstream.plan = lambda n, body: Reply((), lines=({"refusal": "SAFETY"},))
        blocked = await talk.ask("hello?")
        kept = await talk.kit.events(history_topic("c"), MessageAnswered)

    assert (result.outcome, result.code) == ("refused", "refusal_rule")
    assert "'I cannot create images' in 'i cannot create images.'" in result.reason
    assert (empty.outcome, empty.code) == ("refused", "empty_answer")
    assert (blocked.outcome, blocked.code, blocked.finish) == (
        "refused",
        "refused_by_provider",
        "content_filter",
    )
    assert [(one.outcome, one.remembered) for one in kept] == [("refused", False)] * 3


async def test_what_a_model_thinks_and_calls_is_told_and_kept_apart_from_its_text(
    upstream: Wordy,
) -> None:
    lines = (
        {"reasoning": "Hm. "},
        {"tool": {"index": 0, "call": "call_1", "name": "look_up", "text": '{"q":'}},
        {"tool": {"index": 0, "text": '"x"}'}},
        {"usage": {"prompt": 3, "completion": 9, "reasoning": 2}},
    )
    upstream.plan = lambda n, body: Reply((), lines=lines)
    async with talking(options(upstream)) as talk:
        result = await talk.ask("look it up")
        said = await talk.deltas()
        (kept,) = await talk.answers()

    assert result.outcome == "answered"
    assert (result.usage.completion, result.usage.reasoning) == (9, 2)
    assert {one.kind for one in said} == {"reasoning", "tool"}
    assert (kept.text, kept.reasoning) == ("", "Hm. ")
    assert [(c.id, c.name, c.arguments) for c in kept.calls] == [("call_1", "look_up", '{"q":"x"}')]
