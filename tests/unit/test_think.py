"""Thoughts and answer of a model that writes both into one text."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.models.think import Thinks, ThinkSplitter, split_whole


def split(*pieces: str, thinks: Thinks = "tags", complete: bool = True) -> tuple[str, str]:
    splitter = ThinkSplitter(thinks)
    found = [each for piece in pieces for each in splitter.feed(piece)]
    found += splitter.end(complete=complete)
    thoughts = "".join(text for kind, text in found if kind == "reasoning")
    return thoughts, "".join(text for kind, text in found if kind == "text")


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>a</think>b", "a", "b"),
        ("\n<think>\na\n</think>\n\nb", "a\n", "b"),
        ("<think></think>b", "", "b"),
        ("<think>a</think><think>b</think>c", "ab", "c"),
        ("just this", "", "just this"),
        ("  indented", "", "  indented"),
        ("<think>never closed", "never closed", ""),
        ("<thin", "", "<thin"),
        ("<think>a</thi", "a</thi", ""),
        ("", "", ""),
    ],
)
def test_tags_before_the_answer_hold_thoughts(text: str, thought: str, answer: str) -> None:
    assert split(text) == (thought, answer)


def test_a_tag_may_be_split() -> None:
    assert split("<thi", "nk>a</thi", "nk>b") == ("a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "Use `<think>` so:\n```\n<think>x</think>\n```\n",
        "```html\n<think>x</think>\n```",
        "a <think>b</think> c",
        "a</think>b",
    ],
)
def test_tags_in_an_answer_are_part_of_it(text: str) -> None:
    assert split(text) == ("", text)


@pytest.mark.parametrize("text", ["a\n</think>\n\nb", "<think>\na\n</think>b", "\na\n</think>b"])
def test_an_opening_tag_that_the_template_holds_may_be_missing(text: str) -> None:
    assert split(text, thinks="opened") == ("a\n", "b")


def test_expected_thoughts_that_never_end_were_the_answer() -> None:
    assert split("all ", "of it", thinks="opened") == ("all of it", "all of it")


def test_expected_thoughts_that_were_cut_short_are_thoughts() -> None:
    assert split("half a thou", thinks="opened", complete=False) == ("half a thou", "")


def test_no_tag_counts_where_none_is_expected() -> None:
    assert split("<think>a</think>b", thinks="never") == ("", "<think>a</think>b")


def test_pieces_are_not_held_back_without_need() -> None:
    splitter = ThinkSplitter()

    assert list(splitter.feed("<think>abc<")) == [("reasoning", "abc")]
    assert list(splitter.feed("d")) == [("reasoning", "<d")]
    assert list(splitter.feed("</think>e")) == [("text", "e")]
    assert list(splitter.feed("<")) == [("text", "<")]


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("a\n</think>\n\nb", "a\n", "b"),
        ("<think>a</think>b", "a", "b"),
        ("plain", "", "plain"),
        ("The tag `</think>` ends it", "", "The tag `</think>` ends it"),
        ("```\n</think>\n```", "", "```\n</think>\n```"),
        ("```\ncode\n```\nhm\n</think>b", "```\ncode\n```\nhm\n", "b"),
    ],
)
def test_a_text_that_is_there_as_a_whole_needs_no_opening_tag(
    text: str, thought: str, answer: str
) -> None:
    assert split_whole(text) == (thought, answer)


def test_a_whole_text_without_the_expected_end_of_thoughts_is_the_answer() -> None:
    assert split_whole("plain", "opened") == ("", "plain")


TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "a", " ", "\n", "<", "</", "think>", "`", "```", "é"]),
    max_size=12,
).map("".join)


@given(
    TEXTS,
    st.lists(st.integers(0, 200), max_size=12),
    st.sampled_from(["tags", "opened", "never"]),
    st.booleans(),
)
@example("<think><think>a", [7], "opened", True)
def test_it_does_not_matter_where_a_text_is_cut(
    text: str, places: Iterable[int], thinks: Thinks, complete: bool
) -> None:
    ordered = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(ordered)]

    assert split(*pieces, thinks=thinks, complete=complete) == split(
        text, thinks=thinks, complete=complete
    )


@given(TEXTS)
def test_nothing_but_tags_and_white_space_is_lost(text: str) -> None:
    def bare(text: str) -> str:
        return "".join(text.replace("<think>", "").replace("</think>", "").split())

    thought, answer = split(text)

    assert bare(thought + answer) == bare(text)
