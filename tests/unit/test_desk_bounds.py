"""What a desk keeps is bounded, whatever comes; and what may be configured and kept of it."""

import pytest

from actors.desk_options import DeskOptions, Phrase
from actors.queueing import MOST_BEYOND, MOST_WAITING
from runtime.record import STATE_LIMIT
from schemas.desk import (
    AgentChanged,
    AgentView,
    DropQuickReply,
    ListQuickReplies,
    MailCase,
    Presence,
    QuickReplies,
    SaveQuickReply,
)
from schemas.ownership import (
    Assignee,
    Cancel,
    Case,
    CaseMoved,
    Customer,
    Escalate,
    Escalation,
    TakeOver,
)
from schemas.shifts import Calendar, Shift
from tests.unit.deskworld import DESK, START, TEAM, World, attend, call, session


@pytest.mark.parametrize(("length", "forgotten"), [(36, False), (600, True)])
def test_a_state_of_the_worst_size_fits(length: int, forgotten: bool) -> None:
    world = World()
    long, wide = "x" * length, "ü" * 200
    count = MOST_WAITING + 100
    names = [f"{number}-{long}" for number in range(count)]
    for name in names:
        case = Case(
            session=name,
            mode="pending_manual",
            epoch=1,
            team=TEAM,
            title=wide,
            last=wide,
            escalation=Escalation(reason="keyword", evidence=wide, details=wide * 20),
            customer=Customer(nickname=wide, language=wide, metadata={"skill": wide, "a": wide}),
            pending_since=START,
            created=START,
        )
        world.say(DESK, CaseMoved(case=case))
    for number in range(120):
        view = AgentView(
            id=f"a{number}-{'y' * 50}",
            name=wide,
            avatar="/" + "z" * 200,
            presence="online",
            skills=(wide,) * 20,
            open=(),
            seen=START,
        )
        world.say(DESK, AgentChanged(agent=view))
    while world.instances[DESK].mail:
        world.handle(DESK)

    kept = {*world.desk.waiting, *world.desk.beyond}
    assert len(world.instances[DESK].state) < STATE_LIMIT
    assert (kept != set(names)) is forgotten
    assert len(world.desk.waiting) < count <= MOST_WAITING + MOST_BEYOND


@pytest.mark.parametrize("length", [10, 64, 200])
def test_a_desk_goes_on_when_all_agents_leave_with_all_that_they_have(length: int) -> None:
    world, long = World(mailer=True), "x" * length
    agents = [f"a{number}-{'y' * 30}" for number in range(110)]
    for number in range(20):
        world.say(DESK, SaveQuickReply(title=f"{number}", text="z" * 1000))
    _be(world, agents, "online", long)
    for number in range(600):
        who, name = Assignee(agents[number % len(agents)]), f"{number}-{long}"
        case = Case(session=name, mode="manual_live", epoch=3, team=TEAM, assignee=who)
        world.say(DESK, CaseMoved(case=case))
    _be(world, agents, "offline", long)
    for number in range(200):
        name = f"w{number}-{long}"
        world.say(DESK, MailCase(session=name))
        case = Case(session=name, mode="pending_manual", epoch=1, team=TEAM, pending_since=START)
        world.say(DESK, CaseMoved(case=case))
    while world.instances[DESK].mail:
        world.handle(DESK)

    assert len(world.instances[DESK].state) < STATE_LIMIT
    assert len(world.leaving()) >= 60
    assert len({*world.desk.waiting, *world.desk.beyond}) >= 50
    assert world.desk.waiting


def _be(world: World, agents: list[str], presence: Presence, long: str) -> None:
    for name in agents:
        view = AgentView(
            id=name,
            name="ü" * 30,
            presence=presence,
            skills=("english", "german"),
            open=tuple(f"{name}-{number}-{long}" for number in range(20)),
            seen=START,
        )
        world.say(DESK, AgentChanged(agent=view))


def test_who_waits_beyond_the_queue_gets_in_when_there_is_room() -> None:
    world = World()
    names = [f"s{number}" for number in range(MOST_WAITING + 30)]
    call(world, *names[:-1])
    call(world, names[-1], vip=True)
    beyond = list(world.desk.beyond)
    for name in names[: MOST_WAITING // 2]:
        world.ask(session(name), Cancel())

    assert len(beyond) == 30
    assert names[-1] not in beyond
    assert world.desk.beyond == {}
    assert set(world.desk.waiting) == set(names[MOST_WAITING // 2 :])


def test_the_team_is_written_to_once_about_who_had_to_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.queueing.MOST_WAITING", 20)
    night = Calendar(timezone="UTC", shifts=(Shift(start="12:00", end="18:00"),))
    world = World(DeskOptions(calendar=night), mailer=True)
    names = [f"s{number}" for number in range(20)]
    call(world, *names)
    call(world, "vip", vip=True)
    (out,) = world.desk.beyond
    for name in [one for one in names if one != out][:10]:
        world.ask(session(name), Cancel())

    assert out in world.desk.waiting
    letters = [job.case.session for job in world.jobs.values()]
    assert sorted(letters) == sorted([*names, "vip"])


def test_a_rush_that_is_larger_than_the_queue_is_served_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.queueing.MOST_WAITING", 20)
    world = World()
    names = [f"s{number}" for number in range(90)]
    attend(world, *(f"a{number}" for number in range(20)), capacity=5)
    for name in names:
        world.say(session(name), Escalate())
    world.settle()
    first = (len(world.desk.waiting), len(world.desk.beyond))
    rounds = 0
    while offered := [name for name in names if world.hold(name).mode == "pending_manual"]:
        for name in offered:
            if holder := world.hold(name).assignee:
                world.say(session(name), TakeOver(agent=holder))
        world.settle()
        rounds += 1

    assert first == (20, 70)
    assert set(world.held()) == set(names)
    assert rounds < 10
    assert max(len(world.agent(f"a{number}").open) for number in range(20)) == 5


def test_quick_replies_are_there_from_the_start_and_can_be_changed() -> None:
    world = World()
    first = world.ask(DESK, ListQuickReplies())
    added = world.ask(DESK, SaveQuickReply(title=" Hi ", text="Hello", by="ann"))
    new = added.replies[-1]
    changed = world.ask(DESK, SaveQuickReply(id=new.id, title="Hi", text="Hello there"))
    dropped = world.ask(DESK, DropQuickReply(id=first.replies[0].id))

    assert len(first.replies) >= 5
    assert all(" · " in one.text for one in first.replies)
    assert (new.title, new.by) == ("Hi", "ann")
    assert changed.replies[-1].text == "Hello there"
    assert dropped == QuickReplies(replies=changed.replies[1:])


@pytest.mark.parametrize(
    ("request_", "code", "status"),
    [
        (SaveQuickReply(title="", text="x"), "invalid_quick_reply", 422),
        (SaveQuickReply(title="x", text="y" * 1001), "invalid_quick_reply", 422),
        (SaveQuickReply(title="x", text="y", id="nobody"), "quick_reply_not_found", 404),
        (DropQuickReply(id="nobody"), "quick_reply_not_found", 404),
    ],
)
def test_a_quick_reply_that_cannot_be_is_refused(request_: object, code: str, status: int) -> None:
    refusal = World().ask(DESK, request_)  # type: ignore[arg-type]  # one of two requests

    assert (refusal.code, refusal.status) == (code, status)


def test_a_team_has_only_so_many_quick_replies() -> None:
    world = World(DeskOptions(replies=(Phrase(title="a", text="b"),)))
    answers = [world.ask(DESK, SaveQuickReply(title=f"{n}", text="c")) for n in range(50)]

    assert answers[0].replies[0].id == "r1"
    assert (answers[-1].code, answers[-1].status) == ("too_many", 413)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"offer": "soon"}, "offer = 'soon' is not a duration"),
        ({"grace": ""}, "grace = "),
        ({"give_up": "x"}, "give_up = "),
        ({"mailer": "Mailer!"}, "expected a lower-case letter"),
        ({"calendar": Calendar(timezone="Mars")}, "calendar: timezone 'Mars' is not known"),
        ({"replies": (Phrase(title="", text="x"),)}, "a title is empty"),
        ({"replies": (Phrase(title="x", text="y" * 900),) * 40}, "in all, expected at most 50"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DeskOptions(**options)  # type: ignore[arg-type]  # that is the point
