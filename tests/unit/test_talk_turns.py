"""What was said as whole turns, whoever said it: to models, and from person to person."""

from collections.abc import Sequence

import pytest

from actors.models.turns import Entries, chain, make_turns
from schemas.conversation import MessageAnswered, MessageSaid
from schemas.model import Text, ToolCall, Utterance
from schemas.ownership import Assignee, ManualMessage

ANN = Assignee(id="ann", name="Ann")


def words(text: str) -> Utterance:
    return Utterance(role="user", content=(Text(text),))


def text_of(message: Utterance) -> str:
    return "".join(part.text for part in message.content if isinstance(part, Text))


class Log:
    """What was said, in the order of its telling."""

    def __init__(self, most: int = 100) -> None:
        self.entries = Entries(most)
        self._count = 0

    def asked(self, text: str, answer: str = "", *, thread: str = "", own: bool = True) -> "Log":
        batch = self._id()
        self.entries.add_said("x", MessageSaid(batch=batch, message=words(text)))
        if answer:
            told = MessageAnswered(
                batch=batch,
                task=f"{batch}-1",
                run="r",
                attempt=1,
                model="m",
                text=answer,
                thread=thread,
            )
            self.entries.add_answer(told, own=own)
        return self

    def called(self, text: str) -> "Log":
        self.entries.add_said(self._id(), MessageSaid(batch="", message=words(text)))
        return self

    def person(self, role: str, text: str) -> "Log":
        agent = ANN if role == "agent" else None
        said = ManualMessage(id=self._id(), role=role, content=text, agent=agent)  # type: ignore[arg-type]  # one of three words
        self.entries.add_manual(said)
        return self

    def shown(self, *, unanswered: bool = False) -> list[list[str]]:
        turns = make_turns(self.entries.all(), unanswered=unanswered)
        return [
            [f"{message.role[0]}: {text_of(message)}" for message in turn]
            for turn in chain(turns, ())
        ]

    def _id(self) -> str:
        self._count += 1
        return str(self._count)


def test_what_people_said_stands_between_what_models_answered() -> None:
    log = Log().asked("hi", "hello").called("a person!")
    log.person("system", "somebody comes").person("agent", "Ann here")
    log.person("user", "thanks").person("agent", "bye").asked("bot?", "yes")

    assert log.shown() == [
        ["u: hi", "a: hello"],
        ["u: a person!", "a: Ann here"],
        ["u: thanks", "a: bye"],
        ["u: bot?", "a: yes"],
    ]


def test_several_messages_of_one_side_are_one() -> None:
    log = Log().person("user", "one").person("user", "two")
    log.person("agent", "three").person("agent", "four")

    assert log.shown() == [["u: one\n\ntwo", "a: three\n\nfour"]]


def test_what_no_model_answered_counts_if_a_person_was_told_it_then() -> None:
    """A takeover stops the run; what was asked is answered by the agent."""
    log = Log().asked("lost").asked("hi", "hello").asked("why?").person("agent", "because")

    assert log.shown() == [["u: hi", "a: hello"], ["u: why?", "a: because"]]


@pytest.mark.parametrize(("unanswered", "last"), [(False, []), (True, [["u: why?"]])])
def test_what_nobody_has_answered_yet_is_shown_to_who_writes_a_draft(
    unanswered: bool, last: Sequence[list[str]]
) -> None:
    log = Log().asked("hi", "hello").asked("why?")

    assert log.shown(unanswered=unanswered) == [["u: hi", "a: hello"], *last]


def test_an_agent_may_speak_first() -> None:
    assert Log().asked("hi", "hello").person("agent", "Ann").shown() == [
        ["u: hi", "a: hello"],
        ["a: Ann"],
    ]


def test_only_the_last_are_kept_and_answers_to_the_others_left_out() -> None:
    log = Log(most=2).asked("one", "1").asked("two", "2").person("user", "three")
    gone = MessageAnswered(batch="1", task="1-1", run="r", attempt=1, model="m", text="late")
    log.entries.add_answer(gone, own=True)

    assert log.shown() == [["u: two", "a: 2"], ["u: three"]]


def test_a_turn_knows_in_which_threads_its_actor_answered() -> None:
    log = Log().asked("one", "1", thread="t1").asked("two", "2", thread="t2", own=False)
    log.person("agent", "Ann")

    turns = make_turns(log.entries.all(), unanswered=False)

    assert [sorted(turn.threads) for turn in turns] == [["t1"], [], []]


def test_calls_that_nothing_answers_are_left_out_when_people_go_on() -> None:
    log = Log()
    log.entries.add_said("x", MessageSaid(batch="b", message=words("weather?")))
    calls = (ToolCall(id="c1", name="look"),)
    told = MessageAnswered(
        batch="b", task="b-1", run="r", attempt=1, model="m", text="I look", calls=calls
    )
    log.entries.add_answer(told, own=True)
    log.person("agent", "rain")

    [first, _] = chain(make_turns(log.entries.all(), unanswered=False), ())

    assert [message.calls for message in first] == [(), ()]
