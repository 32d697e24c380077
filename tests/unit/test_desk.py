"""A desk chooses who is asked to take what, and notices when nobody does."""

from datetime import timedelta

import pytest

from actors.desk_options import DeskOptions
from schemas.desk import (
    AgentChanged,
    AgentView,
    Attend,
    MailCase,
    Mailed,
    Seen,
)
from schemas.ownership import (
    Cancel,
    Case,
    CaseMoved,
    Escalate,
    OfferCase,
    Release,
    SlaAlert,
    TakeOver,
    Transfer,
)
from schemas.shifts import Calendar, Shift
from tests.unit.deskworld import DESK, START, World, agent, attend, call, keep_seen, person, session

OFFICE = Calendar(timezone="UTC", shifts=(Shift(start="09:00", end="18:00"),))
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


def test_a_case_is_offered_to_an_agent_who_is_there_and_theirs_once_taken() -> None:
    world = World()
    attend(world, "ann")
    call(world, "s1")
    offered = (world.hold("s1").mode, world.holder("s1"))
    world.ask(session("s1"), TakeOver(agent=person("ann")))

    assert offered == ("pending_manual", "ann")
    assert world.held() == {"s1": "ann"}
    assert world.agent("ann").open == {"s1": 3}
    assert world.desk.waiting == {}


def test_while_nobody_is_there_a_case_waits_and_is_offered_to_the_first_who_comes() -> None:
    world = World()
    call(world, "s1")
    before = world.holder("s1")
    attend(world, "bob", presence="busy")
    busy = world.holder("s1")
    attend(world, "bob")

    assert (before, busy, world.holder("s1")) == ("", "", "bob")


@pytest.mark.promise("FD-62")
def test_the_most_urgent_case_is_offered_first() -> None:
    world = World()
    call(world, "late")
    world.advance(6 * MINUTE)
    call(world, "plain")
    world.ask(session("high"), Escalate(severity="high"))
    call(world, "vip", vip=True)
    order = []
    for _ in range(4):
        attend(world, "ann", capacity=1)
        taken = next(name for name, one in world.desk.waiting.items() if one.offered)
        order.append(taken)
        world.ask(session(taken), TakeOver(agent=person("ann")))
        world.ask(session(taken), Release(agent="ann"))

    assert order == ["late", "vip", "high", "plain"]


def test_nobody_gets_more_than_they_can_do() -> None:
    world = World()
    attend(world, "ann", capacity=2)
    call(world, "s1", "s2", "s3")
    world.ask(session("s1"), TakeOver(agent=person("ann")))
    waiting = [world.holder(name) for name in ("s1", "s2", "s3")]
    world.ask(session("s1"), Release(agent="ann"))

    assert waiting == ["ann", "ann", ""]
    assert world.holder("s3") == "ann"


def test_what_an_agent_has_elsewhere_counts() -> None:
    world = World()
    view = AgentView(id="ann", presence="online", capacity=1, open=("other",), seen=START)
    world.ask(DESK, AgentChanged(agent=view))
    call(world, "s1")

    assert world.holder("s1") == ""


def test_who_has_less_to_do_goes_first_then_who_has_been_idle_for_longer() -> None:
    world = World()
    attend(world, "ann", "bob", "cem", capacity=3)
    chosen = []
    for name in ("s1", "s2", "s3", "s4"):
        call(world, name)
        chosen.append(world.holder(name))
        world.ask(session(name), TakeOver(agent=person(chosen[-1])))
        keep_seen(world, "ann", "bob", "cem", during=SECOND)
    world.ask(session("s2"), Release(agent="bob"))
    world.ask(session("s3"), Release(agent="cem"))
    keep_seen(world, "ann", "bob", "cem", during=SECOND)
    call(world, "s5")

    assert chosen == ["ann", "bob", "cem", "ann"]
    assert world.holder("s5") == "bob"


def test_who_speaks_the_customers_language_goes_first_and_nobody_waits_for_lack_of_it() -> None:
    world = World()
    attend(world, "ann", capacity=1)
    attend(world, "bea", skills=("DE", "billing"), capacity=1)
    attend(world, "cem", skills=("de",), capacity=1)
    call(world, "s1", language="de")
    call(world, "s2", language="de", metadata={"skill": "billing"})
    call(world, "s3", language="de")

    assert [world.holder(name) for name in ("s1", "s2", "s3")] == ["bea", "cem", "ann"]


def test_an_offer_that_lapses_goes_to_the_next_and_then_waits_for_anybody() -> None:
    world = World(DeskOptions(offer="20s"))
    attend(world, "ann", "bob")
    call(world, "s1")
    chosen = []
    for _ in range(3):
        chosen.append(world.holder("s1"))
        keep_seen(world, "ann", "bob", during=20 * SECOND)
    alerts = world.told(SlaAlert)
    attend(world, "cem")

    assert chosen == ["ann", "bob", ""]
    assert [(one.kind, one.limit, one.case.session) for one in alerts] == [("offer", 20, "s1")] * 2
    assert alerts[0].since == START
    assert world.holder("s1") == "cem"


def test_an_offer_to_an_agent_who_goes_away_is_withdrawn_at_once() -> None:
    world = World()
    attend(world, "ann", "bob")
    call(world, "s1")
    world.advance(10 * SECOND)
    world.ask(agent("bob"), Seen())
    world.ask(agent("ann"), Attend(presence="away"))

    assert world.holder("s1") == "bob"
    assert world.told(SlaAlert) == []


def test_who_comes_back_may_be_offered_what_they_let_pass() -> None:
    world = World(DeskOptions(offer="20s"))
    attend(world, "ann")
    call(world, "s1")
    keep_seen(world, "ann", during=30 * SECOND)
    nobody = world.holder("s1")
    attend(world, "ann", presence="away")
    attend(world, "ann")

    assert (nobody, world.holder("s1")) == ("", "ann")


def test_the_cases_of_an_agent_who_is_not_seen_any_more_go_to_another() -> None:
    world = World(DeskOptions(grace="60s"))
    attend(world, "ann")
    call(world, "s1", "s2")
    for name in ("s1", "s2"):
        world.ask(session(name), TakeOver(agent=person("ann")))
    attend(world, "bob")
    keep_seen(world, "bob", during=85 * SECOND)
    before = [world.holder(name) for name in ("s1", "s2")]
    keep_seen(world, "bob", during=10 * SECOND)

    assert before == ["ann", "ann"]
    assert [world.holder(name) for name in ("s1", "s2")] == ["bob", "bob"]
    assert world.agent("ann").presence == "away"
    assert [world.state(session(name)).notices for name in ("s1", "s2")] == [1, 1]


def test_who_was_busy_is_asked_again_once_they_are_done_with_a_case() -> None:
    world = World()
    attend(world, "ann", capacity=2)
    call(world, "s1")
    world.ask(session("s1"), TakeOver(agent=person("ann")))
    call(world, "s2")
    keep_seen(world, "ann", during=70 * SECOND)
    let_pass = (world.holder("s2"), world.desk.waiting["s2"].tried)
    world.ask(session("s1"), Release(agent="ann"))

    assert let_pass == ("", ["ann"])
    assert world.holder("s2") == "ann"


def test_an_agent_who_is_seen_again_in_time_keeps_their_cases() -> None:
    world = World(DeskOptions(grace="60s"))
    attend(world, "ann")
    call(world, "s1")
    world.ask(session("s1"), TakeOver(agent=person("ann")))
    world.advance(80 * SECOND)
    away = (world.agent("ann").presence, world.leaving())
    world.ask(agent("ann"), Seen())
    keep_seen(world, "ann", during=120 * SECOND)

    assert away == ("away", {"s1": START + 90 * SECOND})
    assert (world.holder("s1"), world.leaving()) == ("ann", {})


def test_who_takes_over_without_ever_being_seen_is_left_alone() -> None:
    world = World(DeskOptions(grace="60s"))
    call(world, "s1")
    world.ask(session("s1"), TakeOver(agent=person("script")))
    world.advance(timedelta(hours=2))

    assert world.holder("s1") == "script"


def test_a_case_that_is_handed_to_somebody_who_has_gone_comes_back() -> None:
    world = World(DeskOptions(grace="60s"))
    attend(world, "ann", "bob")
    attend(world, "bob", presence="offline")
    world.ask(session("s1"), TakeOver(agent=person("ann")))
    world.ask(session("s1"), Transfer(agent="ann", to=person("bob")))
    keep_seen(world, "ann", during=70 * SECOND)

    assert world.holder("s1") == "ann"
    assert world.hold("s1").mode == "pending_manual"


def test_without_auto_assign_everything_waits_for_whoever_takes_it() -> None:
    world = World(DeskOptions(auto_assign=False))
    attend(world, "ann")
    call(world, "s1")

    assert world.holder("s1") == ""
    assert list(world.desk.waiting) == ["s1"]


def test_when_nobody_comes_the_bot_goes_on_if_the_desk_is_told_so() -> None:
    world = World(DeskOptions(give_up="10m"))
    call(world, "s1")
    world.advance(9 * MINUTE)
    before = world.hold("s1").mode
    world.advance(MINUTE)

    assert (before, world.hold("s1").mode) == ("pending_manual", "bot_active")
    assert world.desk.waiting == {}


def test_a_cancelled_call_is_no_longer_waited_for() -> None:
    world = World()
    call(world, "s1")
    world.ask(session("s1"), Cancel())
    attend(world, "ann")

    assert (world.holder("s1"), world.desk.waiting, world.desk.due) == ("", {}, None)


def test_what_is_late_is_passed_over() -> None:
    world = World()
    attend(world, "ann")
    call(world, "s1")
    late = CaseMoved(case=Case(session="s1", mode="bot_active", epoch=0))
    world.ask(DESK, late)
    waits = list(world.desk.waiting)
    world.ask(session("s1"), TakeOver(agent=person("ann")))
    world.ask(DESK, CaseMoved(case=Case(session="s1", mode="pending_manual", epoch=1)))

    assert waits == ["s1"]
    assert world.held() == {"s1": "ann"}


def test_an_offer_that_crosses_a_change_is_made_again() -> None:
    world = World()
    call(world, "s1")
    attend(world, "ann")
    # The desk offers by an epoch that is over when the session hears of it.
    world.say(session("s1"), OfferCase(epoch=world.hold("s1").epoch, agent=person("zoe")))
    world.say(agent("ann"), Attend(presence="away"))
    world.say(agent("ann"), Attend(presence="online"))
    world.settle()

    assert world.holder("s1") == "ann"
    assert world.desk.waiting["s1"].offered == person("ann")


@pytest.mark.promise("FD-47", "FD-61")
def test_while_it_is_closed_the_team_is_written_to_once_and_in_the_morning_it_goes_on() -> None:
    world = World(DeskOptions(calendar=OFFICE), mailer=True)
    attend(world, "ann")
    world.advance(timedelta(hours=9))  # 19:00
    call(world, "s1")
    morning = START + timedelta(hours=23)
    at_night = (world.holder("s1"), world.hold("s1").closed_until, world.state(session("s1")))
    letters = list(world.jobs.values())
    world.advance(timedelta(hours=13))
    attend(world, "ann")
    early = world.holder("s1")
    keep_seen(world, "ann", during=timedelta(hours=1))

    assert at_night[:2] == ("", morning)
    assert [one.mailed for one in at_night[2].closings] == [True]
    assert [one.case.session for one in letters] == ["s1"]
    assert (early, world.holder("s1")) == ("", "ann")
    assert len(world.jobs) == 1


def test_what_waits_when_the_desk_closes_is_told_so() -> None:
    world = World(DeskOptions(calendar=OFFICE))
    call(world, "s1")
    world.advance(timedelta(hours=8))

    closings = world.state(session("s1")).closings
    assert [(one.until, one.mailed) for one in closings] == [(START + timedelta(hours=23), False)]


def test_more_cases_than_one_turn_can_tell_are_told_in_the_next() -> None:
    world = World(DeskOptions(calendar=OFFICE), mailer=True)
    names = [f"s{number}" for number in range(120)]
    call(world, *names)
    world.advance(timedelta(hours=8, seconds=1))

    assert [len(world.state(session(name)).closings) for name in names] == [1] * 120
    assert len(world.jobs) == 120


@pytest.mark.promise("FD-61")
def test_the_session_hears_what_became_of_a_letter_however_it_went() -> None:
    world = World(mailer=True)
    sent = world.ask(DESK, MailCase(session="s1", to=("help@example.com",))).run
    lost = world.ask(DESK, MailCase(session="s1")).run
    mailed = Mailed(conversation="s1", sent=True, to=("help@example.com",))
    world.say(DESK, mailed, runid=sent)
    world.settle()
    world.fail(lost, "connection refused")

    letters = world.state(session("s1")).letters
    assert [(one.sent, one.reason) for one in letters] == [
        (True, ""),
        (False, "connection refused"),
    ]
    assert world.desk.mails == {}


def test_a_letter_to_what_is_no_address_is_refused_at_once() -> None:
    refusal = World(mailer=True).ask(DESK, MailCase(session="s1", to=("a@b\r\nBcc: c@d",)))

    assert (refusal.code, refusal.status) == ("bad_recipient", 422)


def test_without_a_mailer_a_letter_is_refused_and_says_what_to_do() -> None:
    refusal = World().ask(DESK, MailCase(session="s1"))

    assert (refusal.code, refusal.status) == ("mailer_not_deployed", 503)
    assert "SMTP_HOST" in refusal.detail


def test_an_agent_who_leaves_the_team_is_not_offered_anything() -> None:
    world = World()
    attend(world, "ann")
    attend(world, "ann", teams=("sales",))
    call(world, "s1")

    assert world.holder("s1") == ""
    assert world.desk.agents == {}
