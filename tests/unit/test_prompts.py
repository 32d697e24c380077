"""What a model is given: system words, settings, the question to a judge; what echo makes of it."""

from typing import Any

import pytest

from actors.models.context import estimate
from actors.models.echo import Echo
from actors.models.events import Call, Ended, ReasoningDelta, TextDelta
from actors.models.prompts import put_before, put_first, put_to_judge, read_choice, settle
from schemas.model import FileRef, Image, Text, Utterance


def say(role: Any, text: str) -> Utterance:
    return Utterance(role=role, content=(Text(text),))


def test_the_deployments_own_words_join_the_clients_system_message() -> None:
    user = say("user", "hi")
    alone = put_first("Be brief.", [user])
    joined = put_first("Be brief.", [say("system", "Speak French."), user])

    assert [one.role for one in alone] == ["system", "user"]
    assert len(joined) == 2
    assert [part.text for part in joined[0].content if isinstance(part, Text)] == [
        "Be brief.",
        "\n\n",
        "Speak French.",
    ]
    assert put_first("", [user]) == [user]


def test_what_was_said_before_comes_after_the_rules_and_before_the_rest() -> None:
    rules, before, now = say("system", "rules"), say("user", "before"), say("user", "now")

    assert put_before([before], [rules, now]) == [rules, before, now]


@pytest.mark.parametrize(
    ("given", "limits", "expected"),
    [
        ({}, {}, {"temperature": 0.6}),
        ({"temperature": 1.0}, {}, {"temperature": 1.0}),
        ({}, {"max_tokens": 100}, {"temperature": 0.6, "max_tokens": 100}),
        ({"max_tokens": 50}, {"max_tokens": 100}, {"temperature": 0.6, "max_tokens": 50}),
        (
            {"max_completion_tokens": 500},
            {"max_tokens": 100},
            {"temperature": 0.6, "max_completion_tokens": 100},
        ),
        ({"temperature": 1.9}, {"temperature": 1.0}, {"temperature": 1.0}),
    ],
)
def test_settings_are_the_clients_the_deployments_and_none_beyond_a_limit(
    given: dict[str, Any], limits: dict[str, float], expected: dict[str, Any]
) -> None:
    assert settle({"temperature": 0.6}, given, limits) == expected


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("2", 2),
        ("[3]", 3),
        ("Answer 1 is good, but the best is 2.", 2),
        ("The best is 2, of 2026.", 2),
        ("0", None),
        ("9", None),
        ("none of them", None),
        ("", None),
    ],
)
def test_a_judge_names_one_of_the_numbers_or_none(answer: str, choice: int | None) -> None:
    assert read_choice(answer, 3) == choice


def test_a_judge_sees_the_answers_numbered_from_one() -> None:
    asked = put_to_judge(["first", "second"])
    (part,) = asked.content

    assert isinstance(part, Text)
    assert "[1]\nfirst" in part.text
    assert "[2]\nsecond" in part.text


def test_tokens_are_estimated_by_bytes_and_files_by_the_piece() -> None:
    image = Image(file=FileRef(id="f", media="image/png"))

    assert estimate(say("user", "x" * 30)) == 14
    assert estimate(say("user", "你好")) == 6
    assert estimate(Utterance(role="user", content=(image,))) == 1004


async def echo(*messages: Utterance, extra: Any = None, **settings: Any) -> list[Any]:
    call = Call(
        client=None,  # type: ignore[arg-type]  # echo asks nobody
        upstream=None,  # type: ignore[arg-type]
        model="echo",
        messages=messages,
        load=None,  # type: ignore[arg-type]
        settings=settings,
        extra=extra or {},
    )
    return [event async for event in Echo().stream(call)]


@pytest.mark.parametrize(
    "text", ["hello", "  two  spaces ", "短い文章、スペースなし。" * 5, "a\nb\n\nc", "🙂🙃" * 9]
)
async def test_echo_says_exactly_what_was_said_in_small_pieces(text: str) -> None:
    events = await echo(say("system", "rules"), say("user", "before"), say("user", text))
    pieces = [event.text for event in events if isinstance(event, TextDelta)]

    assert "".join(pieces) == text
    assert all(len(piece.strip()) <= 8 for piece in pieces)
    assert events[-1] == Ended("stop")


async def test_echo_thinks_first_if_it_is_told_to_and_stops_where_it_must() -> None:
    events = await echo(say("user", "one two three"), extra={"reasoning": "Hm."}, max_tokens=3)

    assert [e.text for e in events if isinstance(e, ReasoningDelta)] == ["Hm."]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "one two "
    assert events[-1] == Ended("length")


async def test_echo_names_the_files_it_was_given() -> None:
    file = FileRef(id="f1", name="cat.png", media="image/png", size=9)
    said = Utterance(role="user", content=(Text("what is this?"), Image(file=file)))
    text = "".join(e.text for e in await echo(said) if isinstance(e, TextDelta))

    assert text == "what is this?\n[cat.png, image/png, 9 bytes]"
