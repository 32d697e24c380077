"""Who may speak in a conversation: each request's answer, and what is told of each step."""

import pytest

from actors.ownership import ORDER, Ownership, Why
from actors.session import Session
from runtime.actor import read_options
from schemas.base import Address, Message, tag_of
from schemas.conversation import (
    Abort,
    BatchFinished,
    BatchOpened,
    OpenBatch,
    RunWanted,
    TaskFinished,
    TaskStopped,
)
from schemas.envelope import decode_any
from schemas.model import Prompt
from schemas.ownership import (
    AddNote,
    Assignee,
    AssigneeChanged,
    Cancel,
    CaseChanged,
    Customer,
    Escalate,
    Held,
    ModeChanged,
    NoteAdded,
    OfferCase,
    Release,
    SayManual,
    SetCustomer,
    TakeOver,
    Transfer,
    Transition,
)
from schemas.session import SessionState
from tests.unit.deskside import ANN, BOB, SESSION, Desk
from tests.unit.gathered import answer_of, turn_of
from tests.unit.test_conversing import opening, words


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


# -- from the bot to a person and back --------------------------------------------------------


@pytest.mark.promise("FD-26", "FD-27")
def test_a_conversation_goes_from_the_bot_to_a_person_and_back_in_this_order(live: Desk) -> None:
    held = live.ask(Release(agent="ann", reason="done"))
    modes = list(ORDER)

    assert live.steps() == [
        (modes[0], modes[1]),
        (modes[1], modes[2]),
        (modes[2], modes[0]),
    ]
    assert [one.epoch for one in live.told(ModeChanged)] == [1, 2, 3]
    assert (held.case.mode, held.case.assignee, held.changed) == ("bot_active", None, True)
    assert (live.hold.escalation, live.hold.manual_ended) == (None, live.world.now)
    assert live.world.instances[SESSION].timers == {}


def test_one_commit_tells_followers_colleagues_the_desk_and_the_agent(live: Desk) -> None:
    (called, taken) = live.told(Transition, "internal")

    assert len(called.stopped) == 2
    assert (called.reason, called.escalation.evidence) == ("manual: help", "")
    assert (taken.by, taken.reason, taken.assignee) == ("ann", "taken", ANN)
    assert [one.why for one in live.told(CaseChanged, "desk")][-2:] == ["escalated", "taken"]
    assert live.letters("desk") == [("support", "pending_manual", 1), ("support", "manual_live", 2)]
    assert live.letters("human_agent") == [("ann", "manual_live", 2)]
    assert [one.notice for one in live.told(ModeChanged)] == [
        "A person will be with you shortly.",
        "Ann is here for you now.",
    ]


def test_a_takeover_without_a_call_is_two_steps_in_one_turn(desk: Desk) -> None:
    desk.open()
    desk.take()

    assert desk.steps() == [("bot_active", "pending_manual"), ("pending_manual", "manual_live")]
    assert (desk.hold.assignee, desk.hold.epoch, desk.hold.team) == (ANN, 2, "support")
    assert len(desk.letters("desk")) == 1
    assert desk.hold.escalations == 0


def test_a_step_out_of_order_is_a_fault_of_the_program(desk: Desk) -> None:
    state = SessionState()
    ownership = Ownership(
        state, Session(read_options(Session, "s", {})).options, turn_of(desk.world, SESSION)
    )

    with pytest.raises(RuntimeError, match="is bot_active: 'manual_live' does not follow it"):
        ownership.move("manual_live", Why("taken"))
    with pytest.raises(RuntimeError, match="expected 'manual_live'"):
        ownership.transfer(ANN, Why("transferred"))
    assert (state.hold.mode, state.hold.epoch) == ("bot_active", 0)


def test_without_a_desk_people_can_still_take_it(desk: Desk) -> None:
    del desk.world.deployed["desk"], desk.world.deployed["human_agent"]
    desk.open()
    held = desk.take()

    assert (held.case.mode, desk.world.letters) == ("manual_live", [])


# -- the bot is silent ------------------------------------------------------------------------


@pytest.mark.promise("FD-28", "FD-29", "FD-69")
@pytest.mark.parametrize("mode", ["pending", "live"])
def test_no_model_is_asked_while_people_have_it(mode: str, request: pytest.FixtureRequest) -> None:
    desk: Desk = request.getfixturevalue(mode)
    runs = len(desk.world.jobs)
    refused = desk.open()
    first = desk.ask(OpenBatch(tasks=(), prompt=Prompt()))

    assert (refused.code, refused.status) == ("MANUAL_IN_PROGRESS", 409)
    assert first.code == "MANUAL_IN_PROGRESS"
    assert (refused.told["mode"], refused.told["epoch"]) == (desk.hold.mode, desk.hold.epoch)
    assert (len(desk.world.jobs), desk.world.runs, desk.state.live) == (runs, {}, {})


def test_somebody_elses_conversation_is_unknown_whoever_has_it(desk: Desk) -> None:
    desk.ask(opening(said=words("hi")), principal="alice")
    desk.take()
    others = [
        desk.ask(opening(), principal="bob"),
        desk.ask(Escalate(), principal="bob"),
        desk.ask(Cancel(), principal="bob"),
        desk.ask(SayManual(content="hi", role="user"), principal="bob"),
        desk.ask(SetCustomer(customer=Customer(vip=True)), principal="bob"),
    ]

    assert {one.code for one in others} == {"conversation_not_found"}
    assert isinstance(desk.ask(Cancel(desk=True), principal="bob"), type(others[0]))
    assert desk.ask(Cancel(desk=True), principal="bob").code == "MANUAL_IN_PROGRESS"


@pytest.mark.promise("FD-28", "FD-69")
def test_every_live_run_ends_in_the_turn_in_which_a_person_is_called(desk: Desk) -> None:
    first, second = desk.open("one", "two"), desk.open("three")
    desk.ask(Escalate())
    runs = {task.run for task in (*first.tasks, *second.tasks)}
    kinds = [type(event) for where, event in desk.world.facts if where == "conversation"]
    while waiting := [one for one in desk.world.waiting() if one.actor == "batch"]:
        desk.world.handle(waiting[0])

    assert (desk.world.runs, desk.state.live) == ({}, {})
    assert set(desk.told(Transition)[0].stopped) == runs
    assert {one.run for one in desk.told(TaskStopped)} == runs
    assert kinds[-1] is ModeChanged
    assert {one.code for one in desk.told(TaskFinished)} == {"MANUAL_IN_PROGRESS"}
    assert [one.status for one in desk.told(BatchFinished)] == ["FAILED", "FAILED"]


def test_a_batch_that_wants_another_run_meanwhile_is_told_why_there_is_none(desk: Desk) -> None:
    opened = desk.open("one two")
    desk.world.handle(Address("batch", opened.batch))
    desk.world.end(opened.tasks[0].run, answer_of(desk.world.jobs[opened.tasks[0].run], "failed"))
    desk.world.handle(Address("batch", opened.batch))
    _, wanted = desk.world.instances[SESSION].mail.pop()
    desk.take()
    desk.world.put(SESSION, wanted)
    while waiting := desk.world.waiting():
        desk.world.handle(waiting[0])

    assert decode_any(wanted).type == tag_of(RunWanted)
    assert len(desk.world.jobs) == 1
    assert desk.state.live == {}
    assert [one.code for one in desk.told(TaskFinished)] == ["MANUAL_IN_PROGRESS"]


def test_released_it_is_the_bots_again_but_what_was_stopped_stays_so(live: Desk) -> None:
    live.ask(Release(agent="ann"))

    assert isinstance(live.open(), BatchOpened)
    assert len(live.world.runs) == 1
    assert len(live.ask(Abort()).runs) == 1


# -- who may ----------------------------------------------------------------------------------


@pytest.mark.promise("FD-43")
def test_of_two_who_take_it_the_second_is_told_who_has_it(live: Desk) -> None:
    again = live.take(ANN, epoch=1)
    other = live.take(BOB, force=True)

    assert (again.changed, again.case.epoch) == (False, 2)
    assert (other.code, other.status) == ("ALREADY_TAKEN", 409)
    assert other.detail == "Ann (ann) has it already"
    assert other.told["assignee"] == {"id": "ann", "name": "Ann"}
    assert live.hold.assignee == ANN


def test_what_is_offered_to_one_is_not_anothers_unless_by_force(pending: Desk) -> None:
    pending.ask(OfferCase(epoch=1, agent=BOB))
    refused = pending.take(ANN)
    taken = pending.take(ANN, force=True)

    assert (refused.code, refused.status) == ("ASSIGNED_TO_OTHER", 409)
    assert refused.told["assignee"]["id"] == "bob"
    assert taken.case.assignee == ANN
    assert pending.letters("human_agent") == [
        ("bob", "pending_manual", 2),
        ("bob", "manual_live", 3),
        ("ann", "manual_live", 3),
    ]


def test_who_decided_by_what_is_no_longer_so_is_refused(pending: Desk) -> None:
    assert pending.take(epoch=7).code == "STALE_EPOCH"
    assert isinstance(pending.take(epoch=1), Held)


def test_only_whose_it_is_releases_or_transfers_it_unless_by_force(live: Desk) -> None:
    refused = [
        live.ask(Release(agent="bob")),
        live.ask(Transfer(agent="bob", to=BOB)),
        live.ask(SayManual(content="hi", agent=BOB)),
        live.ask(Transfer(agent="ann", to=ANN)),
        live.ask(Transfer(agent="ann", to=Assignee(id=" "))),
    ]

    assert [(one.code, one.status) for one in refused] == [
        ("NOT_YOURS", 403),
        ("NOT_YOURS", 403),
        ("NOT_YOURS", 403),
        ("same_agent", 422),
        ("invalid_agent", 422),
    ]
    assert live.ask(Release(agent="bob", force=True)).case.mode == "bot_active"


def test_what_nobody_has_is_neither_released_nor_transferred(pending: Desk) -> None:
    for request in (Release(agent="ann"), Transfer(agent="ann", to=BOB), SayManual(content="x")):
        assert pending.ask(request).code == "INVALID_STATUS"


@pytest.mark.parametrize(
    "request_",
    [
        TakeOver(agent=ANN),
        Release(agent="ann"),
        Cancel(),
        Transfer(agent="ann", to=BOB),
        SayManual(content="hi"),
        SayManual(content="hi", role="user"),
        AddNote(content="hi", by=ANN),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_conversation_that_does_not_exist_is_not_found(desk: Desk, request_: Message) -> None:
    refused = desk.ask(request_)

    assert (refused.code, refused.status) == ("conversation_not_found", 404)
    assert desk.state.created is None


def test_a_customer_may_call_a_person_first(desk: Desk) -> None:
    vip = Customer(nickname="Li", vip=True)
    held = desk.ask(Escalate(details="now", customer=vip, severity="high"), principal="li")
    again = desk.ask(Escalate(), principal="li")
    richer = desk.ask(Escalate(customer=Customer(vip=False)), principal="li")

    assert (held.case.mode, held.case.customer, held.case.escalation.severity) == (
        "pending_manual",
        vip,
        "high",
    )
    assert (desk.state.owner, desk.hold.escalations) == ("li", 1)
    assert [one.changed for one in (held, again, richer)] == [True, False, True]
    assert desk.take().case.mode == "manual_live"
    assert desk.ask(Escalate(), principal="li").code == "MANUAL_IN_PROGRESS"


def test_a_call_is_cancelled_in_two_legal_steps(pending: Desk) -> None:
    held = pending.ask(Cancel(by="c"))
    again = pending.ask(Cancel())

    assert pending.steps()[1:] == [
        ("pending_manual", "manual_live"),
        ("manual_live", "bot_active"),
    ]
    assert (held.case.mode, held.changed, again.changed) == ("bot_active", True, False)
    assert pending.hold.manual_ended is None
    assert [one.notice for one in pending.told(ModeChanged)][1:] == ["", "The assistant goes on."]


def test_what_the_desk_began_is_the_first_customers_who_speaks(desk: Desk) -> None:
    desk.ask(Escalate(desk=True), principal="shop")
    desk.ask(Cancel(desk=True), principal="shop")
    asked = opening("one", said=words("hello"))

    assert desk.state.owner == ""
    assert desk.ask(asked, principal="li").batch
    assert desk.state.owner == "li"
    assert desk.ask(asked, principal="wu").code == "conversation_not_found"


def test_a_transfer_changes_who_has_it_and_nothing_else(live: Desk) -> None:
    held = live.ask(Transfer(agent="ann", to=BOB, reason="language", note="speaks Thai"))
    (told,) = live.told(AssigneeChanged, "conversation")

    assert (held.case.mode, held.case.assignee, held.case.epoch) == ("manual_live", BOB, 3)
    assert (told.assignee, told.epoch, told.reason) == (BOB, 3, "transferred")
    assert told.notice == "Bob goes on with this for you."
    assert len(live.told(ModeChanged)) == 2
    assert [(one.was, one.mode, one.reason) for one in live.told(Transition)][2:] == [
        ("manual_live", "manual_live", "transferred: language")
    ]
    assert [one.content for one in live.told(NoteAdded, "internal")] == ["speaks Thai"]
    assert live.letters("human_agent")[1:] == [("ann", "manual_live", 3), ("bob", "manual_live", 3)]
