"""An agent is there while they are seen, and counts what is theirs."""

from datetime import timedelta

import pytest

from actors.human_agent import HumanAgentOptions
from schemas.desk import AgentChanged, Attend, Presence, Seen
from schemas.ownership import Case, CaseMoved, Mode
from tests.unit.deskworld import START, World, agent, person

SECOND = timedelta(seconds=1)
ANN = agent("ann")


def moved(epoch: int, who: str = "ann", mode: Mode = "manual_live", **facts: object) -> CaseMoved:
    case = Case(session="s1", mode=mode, epoch=epoch, assignee=person(who), **facts)  # type: ignore[arg-type]  # as the test says
    return CaseMoved(case=case)


def presence(world: World) -> Presence:
    return world.agent("ann").presence


def test_an_agent_is_what_they_say() -> None:
    world = World()
    first = world.ask(ANN, Attend(name="Ann", presence="online", skills=("de", "de", "en")))
    second = world.ask(ANN, Attend(presence="busy", capacity=3))

    assert (first.presence, first.capacity, first.skills) == ("online", 5, ("de", "en"))
    assert (second.name, second.presence, second.capacity) == ("Ann", "busy", 3)
    assert second.teams == ("support",)


def test_who_is_not_seen_is_away_and_later_offline() -> None:
    world = World()
    world.ask(ANN, Attend(presence="online"))
    seen = []
    for seconds in (29, 1, 299, 1, 3600):
        world.advance(seconds * SECOND)
        seen.append(presence(world))

    assert seen == ["online", "away", "away", "offline", "offline"]
    assert world.desk.agents["ann"].presence == "offline"
    assert world.reminders == []


@pytest.mark.parametrize("said", ["online", "busy"])
def test_who_is_seen_again_is_what_they_were(said: Presence) -> None:
    world = World()
    world.ask(ANN, Attend(presence=said))
    world.advance(200 * SECOND)
    world.ask(ANN, Seen())
    back = presence(world)
    world.advance(30 * SECOND)

    assert (back, presence(world)) == (said, "away")


def test_who_is_seen_stays_and_one_reminder_is_enough() -> None:
    world = World()
    world.ask(ANN, Attend(presence="online"))
    reminders = set()
    for _ in range(60):
        world.advance(5 * SECOND)
        world.ask(ANN, Seen())
        reminders.add(len(world.reminders))

    assert (presence(world), reminders) == ("online", {1})
    assert len(world.told(AgentChanged)) == 1


def test_who_has_said_that_they_are_offline_is_not_called_back_by_an_open_screen() -> None:
    world = World()
    world.ask(ANN, Attend(presence="offline"))
    world.ask(ANN, Seen())

    assert presence(world) == "offline"


def test_what_is_theirs_is_counted_until_it_is_not_and_what_is_late_is_passed_over() -> None:
    world = World()
    world.ask(ANN, Attend(presence="online"))
    world.ask(ANN, moved(3))
    world.ask(ANN, moved(2, who="bob"))
    mine = world.agent("ann").open
    world.ask(ANN, moved(4, who="bob"))

    assert (mine, world.agent("ann").open) == ({"s1": 3}, {})


def test_an_offer_is_not_theirs_yet() -> None:
    world = World()
    world.ask(ANN, moved(3, mode="pending_manual"))

    assert world.agent("ann").open == {}


def test_who_takes_something_or_answers_is_there() -> None:
    world = World()
    world.ask(ANN, Attend(presence="online"))
    world.advance(40 * SECOND)
    away = presence(world)
    world.ask(ANN, moved(3))
    took = presence(world)
    world.advance(20 * SECOND)
    world.ask(ANN, moved(3, last_by="agent", last_at=world.now))
    world.advance(20 * SECOND)

    assert (away, took, presence(world)) == ("away", "online", "online")


def test_a_change_of_teams_is_told_to_the_old_one_too() -> None:
    world = World()
    world.ask(ANN, Attend(presence="online"))
    world.ask(ANN, Attend(teams=("sales", "sales")))

    assert world.desk.agents == {}
    assert world.agent("ann").teams == ["sales"]


def test_without_a_desk_an_agent_is_an_agent_still() -> None:
    world = World()
    del world.deployed["desk"]

    assert world.ask(ANN, Attend(presence="online")).seen == START


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (Attend(name="x" * 65), "name: expected at most 64 characters"),
        (Attend(name="a\nb"), "that can be printed"),
        (Attend(avatar="x" * 501), "avatar"),
        (Attend(capacity=-1), "capacity -1: expected 0 to 50"),
        (Attend(capacity=51), "capacity 51"),
        (Attend(skills=("",)), "skills: expected at most 20"),
        (Attend(teams=("x",) * 11), "teams: expected at most 10"),
    ],
)
def test_what_cannot_be_kept_of_an_agent_is_refused(message: Attend, said: str) -> None:
    refusal = World().ask(ANN, message)

    assert (refusal.code, refusal.status) == ("invalid_agent", 422)
    assert said in refusal.detail


@pytest.mark.parametrize("options", [{"away": "soon"}, {"offline": ""}])
def test_options_of_an_agent_that_cannot_be_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        HumanAgentOptions(**options)
