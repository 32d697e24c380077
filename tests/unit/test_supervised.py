"""What people say in a conversation that they have, what its desk says, and who waits too long."""

from datetime import timedelta
from typing import Any

import pytest

from actors.limits import CUSTOMER_LIMIT
from actors.ownership import MOST_NAME, Ownership, in_manual
from actors.session import Session
from runtime.actor import read_options
from runtime.answers import make_answer, make_refusal
from runtime.errors import ConfigError
from schemas.envelope import encode
from schemas.ownership import (
    MOST_NOTE,
    MOST_SAID,
    AddNote,
    Assignee,
    AssigneeChanged,
    CaseChanged,
    CaseMoved,
    CloseForNow,
    Customer,
    Escalate,
    Escalation,
    MailNoted,
    MailSettled,
    ManualMessage,
    ModeChanged,
    NoteAdded,
    Noted,
    OfferCase,
    Requeue,
    ReturnToBot,
    SayManual,
    SetCustomer,
    SlaAlert,
)
from tests.unit.deskside import ANN, BOB, SESSION, Desk
from tests.unit.gathered import OPTIONS, turn_of
from tests.unit.test_conversing import words


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def pending(desk: Desk) -> Desk:
    desk.open("one", "two")
    desk.ask(Escalate(details="help", by="c"))
    return desk


@pytest.fixture
def live(pending: Desk) -> Desk:
    pending.take()
    return pending


# -- saying -----------------------------------------------------------------------------------


@pytest.mark.promise("FD-46", "FD-51")
def test_what_people_say_is_told_and_kept_in_one_commit(pending: Desk) -> None:
    noted = pending.ask(SayManual(content="anybody?", role="user"))
    pending.take()
    pending.ask(SayManual(content="hello", agent=Assignee(id="ann")))
    said = pending.told(ManualMessage, "conversation")

    assert isinstance(noted, Noted)
    assert said == pending.told(ManualMessage, "history")
    assert [(one.role, one.content, one.agent, one.epoch) for one in said] == [
        ("user", "anybody?", None, 1),
        ("agent", "hello", ANN, 2),
    ]
    assert noted.id == said[0].id
    assert (pending.hold.last, pending.hold.last_by) == ("hello", "agent")
    assert len(pending.state.marks) == 2


def test_what_is_nothing_or_too_much_is_not_said(live: Desk) -> None:
    refused = [
        live.ask(SayManual(content=" \n")),
        live.ask(SayManual(content="字" * (MOST_SAID // 3 + 1))),
        live.ask(AddNote(content=" ", by=ANN)),
        live.ask(AddNote(content="x" * (MOST_NOTE + 1), by=ANN)),
        live.ask(SetCustomer(customer=Customer(metadata={"a": "x" * 3000}))),
    ]

    assert [(one.code, one.status) for one in refused] == [
        ("empty_message", 422),
        ("message_too_large", 413),
        ("empty_note", 422),
        ("note_too_large", 413),
        ("customer_too_large", 413),
    ]
    assert live.told(ManualMessage) == []


def test_the_customer_does_not_speak_to_people_who_were_not_called(desk: Desk) -> None:
    desk.open()

    assert desk.ask(SayManual(content="hi", role="user")).code == "INVALID_STATUS"


def test_a_note_is_for_colleagues_alone(live: Desk) -> None:
    noted = live.ask(AddNote(content="careful", by=BOB))

    assert [(where, one.id) for where, one in live.world.facts if isinstance(one, NoteAdded)] == [
        ("internal", noted.id)
    ]


def test_the_board_reads_what_the_customer_said_last(desk: Desk) -> None:
    desk.open(
        said=words("  which\ncolour " + "x" * 80), team="sales", customer=Customer(nickname="Li")
    )
    (told,) = desk.told(CaseChanged, "desk")

    assert (told.why, told.case.team, told.case.customer.nickname) == ("said", "sales", "Li")
    assert (len(told.case.last), told.case.last[:14]) == (50, "which colour x")
    assert told.case.last_by == "user"


def test_a_conversation_of_no_team_is_on_no_board(desk: Desk) -> None:
    desk.open()

    assert desk.told(CaseChanged) == []
    assert desk.hold.last == "hello"


def test_the_desk_hears_of_a_customer_who_turns_out_to_be_a_vip(pending: Desk) -> None:
    pending.ask(SetCustomer(customer=Customer(vip=True)))
    again = pending.ask(SetCustomer(customer=Customer(vip=True)))
    (_, (_, letter)) = [one for one in pending.world.letters if one[0].actor == "desk"]

    assert isinstance(letter, CaseMoved)
    assert (letter.case.customer.vip, letter.why, again.changed) == (True, "customer", False)


# -- the desk ---------------------------------------------------------------------------------


def test_an_offer_names_an_agent_and_another_epoch_is_ignored(pending: Desk) -> None:
    for offer in (
        OfferCase(epoch=0, agent=BOB),
        OfferCase(epoch=1, agent=ANN),
        OfferCase(epoch=1, agent=BOB),
        OfferCase(epoch=2, agent=ANN),
        OfferCase(epoch=2),
    ):
        pending.ask(offer)
    told = pending.told(AssigneeChanged)

    assert [(one.assignee, one.epoch, one.reason) for one in told] == [
        (ANN, 2, "offered"),
        (None, 3, "withdrawn"),
    ]
    assert [one.mode for one in told] == ["pending_manual"] * 2
    assert pending.letters("human_agent") == [
        ("ann", "pending_manual", 2),
        ("ann", "pending_manual", 3),
    ]


def test_a_closed_desk_is_told_once_and_its_wait_begins_when_it_opens(pending: Desk) -> None:
    opens = pending.world.now + timedelta(hours=9)
    for _ in range(2):
        pending.ask(CloseForNow(epoch=1, until=opens, mailed=True))
    pending.wait(9 * 3600 + 299)
    early = pending.told(SlaAlert)
    pending.wait(1)

    assert [one.content for one in pending.told(ManualMessage)] == [
        "Our desk is closed right now. Your message is kept for it."
    ] * 2  # once in the history, once for followers
    assert (early, len(pending.told(SlaAlert))) == ([], 1)
    assert (pending.hold.mode, pending.hold.closed_until) == ("pending_manual", opens)
    assert pending.take().case.closed_until is None


def test_what_nobody_took_goes_back_to_the_bot_unless_somebody_did(pending: Desk) -> None:
    pending.ask(ReturnToBot(epoch=0))
    kept = pending.hold.mode
    pending.ask(ReturnToBot(epoch=1, reason="nobody online"))

    assert (kept, pending.hold.mode, pending.hold.epoch) == ("pending_manual", "bot_active", 3)
    assert pending.told(ModeChanged)[-1].reason == "nobody"


@pytest.mark.promise("FD-27")
def test_an_agent_who_is_gone_leaves_it_to_the_queue_and_the_customer_is_told_once(
    live: Desk,
) -> None:
    live.ask(SayManual(content="are you there?", role="user"))
    for _ in range(2):
        live.ask(Requeue(epoch=2, reason="silent"))
    notices = [one.notice for one in live.told(ModeChanged)]

    assert live.steps()[2:] == [
        ("manual_live", "bot_active"),
        ("bot_active", "pending_manual"),
    ]
    assert [bool(one) for one in notices[2:]] == [False, True]
    assert (live.hold.mode, live.hold.epoch, live.hold.assignee) == ("pending_manual", 4, None)
    assert live.hold.escalation is not None
    assert live.hold.waiting_since is not None
    assert live.letters("desk")[-1] == ("support", "pending_manual", 4)
    assert live.letters("human_agent")[-1] == ("ann", "pending_manual", 4)
    assert live.open().code == "MANUAL_IN_PROGRESS"


def test_what_became_of_a_letter_is_noted_for_colleagues(pending: Desk) -> None:
    pending.ask(MailSettled(sent=False, to=("a@b.example",), reason="refused"))

    assert pending.told(MailNoted, "internal") == [
        MailNoted(sent=False, to=("a@b.example",), reason="refused")
    ]


# -- waiting too long -------------------------------------------------------------------------


def test_who_waits_too_long_for_a_person_is_noticed_once(pending: Desk) -> None:
    since = pending.world.now
    pending.wait(299)
    early = pending.told(SlaAlert)
    pending.wait(1)
    pending.wait(3600)
    (alert,) = pending.told(SlaAlert, "desk")

    assert early == []
    assert (alert.kind, alert.since, alert.limit) == ("first", since, 300)
    assert pending.hold.mode == "pending_manual"


def test_a_desk_that_has_lost_a_case_hears_of_it_again_for_as_long_as_it_waits(
    pending: Desk,
) -> None:
    told = len(pending.letters("desk"))
    for _ in range(3):
        pending.wait(300)
    again = pending.letters("desk")[told:]
    pending.take()
    taken = len(pending.letters("desk"))
    pending.wait(300)

    assert again == [("support", "pending_manual", 1)] * 3
    assert len(pending.letters("desk")) == taken


def test_an_agent_who_writes_is_there_though_no_screen_says_so(live: Desk) -> None:
    told = len(live.letters("human_agent"))
    live.ask(SayManual(content="hello", role="user"))
    quiet = len(live.letters("human_agent"))
    live.ask(SayManual(content="hi"))

    assert quiet == told
    assert live.letters("human_agent")[told:] == [("ann", "manual_live", live.hold.epoch)]


def test_who_was_answered_in_time_is_nobodys_alarm(live: Desk) -> None:
    live.ask(SayManual(content="hi"))
    live.ask(SayManual(content="hello?", role="user"))
    live.wait(119)
    live.ask(SayManual(content="yes"))
    live.wait(300)

    assert live.told(SlaAlert) == []


def test_a_customer_who_is_not_answered_is_noticed_once_however_much_they_say(live: Desk) -> None:
    live.ask(SayManual(content="hi"))
    since = live.world.now
    for _ in range(4):
        live.ask(SayManual(content="hello?", role="user"))
        live.wait(50)
    (alert,) = live.told(SlaAlert)

    assert (alert.kind, alert.since, alert.limit) == ("reply", since, 120)
    assert alert.case.assignee == ANN


def test_a_conversation_in_which_nobody_speaks_goes_back_to_the_bot(live: Desk) -> None:
    live.wait(1700)
    live.ask(SayManual(content="still here"))
    live.wait(1700)
    kept = live.hold.mode
    live.wait(100)

    assert (kept, live.hold.mode) == ("manual_live", "bot_active")
    assert [one.kind for one in live.told(SlaAlert)][-1] == "idle"
    assert live.told(ModeChanged)[-1].reason == "idle"
    assert live.told(ModeChanged)[-1].notice.endswith("the assistant is back.")
    assert live.world.instances[SESSION].timers == {}


def test_waits_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    off = read_options(
        Session, "session", {"supervision": {"wait": "off", "reply": "off", "idle": "off"}}
    )
    monkeypatch.setitem(OPTIONS, "session", off)
    desk = Desk()
    desk.open(said=None)
    desk.ask(Escalate())
    timers = desk.world.instances[SESSION].timers
    desk.take()

    assert (timers, desk.world.instances[SESSION].timers) == ({}, {})


@pytest.mark.parametrize(
    ("supervision", "problem"),
    [
        ({"wait": "soon"}, "supervision.wait: .*'soon' is not a duration.*or \"off\""),
        ({"notices": {"called": "x" * 501}}, "supervision.notices.called has 501 characters"),
        ({"notices": {"hello": ""}}, "unknown field `hello`"),
    ],
)
def test_terms_that_make_no_sense_are_refused(supervision: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_options(Session, "session", {"supervision": supervision})


# -- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["😀", '"', "\x01"])
def test_the_fullest_case_there_may_be_fits_into_an_answer(desk: Desk, letter: str) -> None:
    name = (letter if letter.isprintable() else "x") * MOST_NAME
    desk.open(said=words(letter * 900), team=name)
    customer = Customer(metadata={"a": "x" * (CUSTOMER_LIMIT - 50)})
    desk.ask(SetCustomer(customer=customer))
    state, options = desk.state, OPTIONS["session"]
    ownership = Ownership(state, options, turn_of(desk.world, SESSION))
    full = letter * 5000
    ownership.escalate(
        Escalation(reason="rule", rule=full, version=full, evidence=full, details=full, by=full)
    )
    ownership.take(Assignee(id=name, name=name))
    refusal = in_manual(state).refusal

    assert len(encode(state.hold.customer)) > CUSTOMER_LIMIT - 50
    assert make_answer("i", ownership.held()).data
    assert make_refusal("i", refusal).refusal == refusal
