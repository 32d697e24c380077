"""Which answers are taken for polite refusals, and which only sound like one."""

import msgspec
import pytest

from actors.models.refusals import RefusalOptions, Refusals, languages

ALL = Refusals(True)
LONG = "Here is what you asked for, with all that belongs to it. " * 20


@pytest.mark.promise("AC-15")
@pytest.mark.parametrize(
    "answer",
    [
        "I cannot create images.",
        "Sorry, I can’t create images yet, but I can describe one.",
        "Image tools are not yet available to create images in your region.",
        "您登录了吗？请先登录。",
        "抱歉，无法为您创建任何图片。",
        "该功能在您所在的地区尚未开通",
        "i CANNOT   create\nimages",
        "I cannot create images. " + LONG,
    ],
)
def test_a_polite_refusal_is_one(answer: str) -> None:
    found = ALL.find(answer)

    assert found is not None
    assert found.text


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Paris.",
        LONG + "Some models say: I cannot create images.",
        "“I cannot create images” is what the old model said, and 「无法创建图片」 in Chinese.",
        'print("I cannot create images")',
        LONG + "无法创建图片",
    ],
)
def test_a_good_answer_that_holds_such_words_is_none(answer: str) -> None:
    assert ALL.find(answer) is None


def test_what_fired_is_told_with_the_text_it_fired_on() -> None:
    found = ALL.find("抱歉，无法创建图片，因为功能未开放。")

    assert "zh: '无法创建图片' in '抱歉,无法创建图片" in str(found)


def test_rules_are_chosen_by_language_and_added_to() -> None:
    chinese = Refusals(RefusalOptions(languages=("zh",), phrases=("No way",)))

    assert chinese.find("I cannot create images.") is None
    assert chinese.find("无法创建图片") is not None
    assert chinese.find("no way!") is not None


def test_only_ones_own_phrases_or_none_at_all() -> None:
    own = Refusals(RefusalOptions(phrases=("No way",), only=True))

    assert own.find("无法创建图片") is None
    assert Refusals(False).find("I cannot create images.") is None


def test_a_language_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(msgspec.ValidationError, match="'xx': expected some of de, en"):
        msgspec.convert({"languages": ["xx"]}, RefusalOptions)
    assert {"zh", "en"} <= languages()
