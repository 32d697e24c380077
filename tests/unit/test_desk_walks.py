"""Whatever happens in whatever order: nobody is forgotten, nobody has too much, offers end."""

import random
from datetime import timedelta

import pytest

from actors.desk_options import DeskOptions
from schemas.desk import Attend, Presence, Seen
from schemas.ownership import Cancel, Customer, Escalate, Hold, Release, TakeOver, Transfer
from tests.unit.deskworld import World, agent, person, session

AGENTS = ("ann", "bob", "cem", "dee")
SESSIONS = tuple(f"s{number}" for number in range(9))
OPTIONS = DeskOptions(offer="20s", grace="40s")


class Walk:
    """Random steps; now and then everybody handles what waits, and all must agree."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(OPTIONS)
        self.capacity = {name: self.chance.randrange(1, 4) for name in AGENTS}
        for name in AGENTS:
            self.world.say(agent(name), Attend(presence="online", capacity=self.capacity[name]))

    def step(self) -> None:
        deeds = (
            self.call,
            self.cancel,
            self.take,
            self.take,
            self.release,
            self.hand_over,
            self.attend,
            self.be_seen,
            self.let_time_pass,
            self.handle_some,
            self.handle_some,
        )
        self.chance.choice(deeds)()

    def call(self) -> None:
        vip, name = self.chance.random() < 0.3, self.chance.choice(SESSIONS)
        self.world.say(session(name), Escalate(customer=Customer(vip=vip)))

    def cancel(self) -> None:
        name = self.chance.choice(SESSIONS)
        if self.world.hold(name).mode == "pending_manual" and self.chance.random() < 0.3:
            self.world.say(session(name), Cancel())

    def take(self) -> None:
        """Somebody takes what is theirs to take."""
        name = self.chance.choice(SESSIONS)
        holder = self.world.hold(name).assignee or person(self.chance.choice(AGENTS))
        if self.world.hold(name).mode == "pending_manual":
            self.world.say(session(name), TakeOver(agent=holder))

    def release(self) -> None:
        name = self.chance.choice(SESSIONS)
        if self.world.hold(name).mode == "manual_live":
            self.world.say(session(name), Release(agent=self.world.holder(name)))

    def hand_over(self) -> None:
        name, to = self.chance.choice(SESSIONS), person(self.chance.choice(AGENTS))
        if self.chance.random() < 0.3:
            self.world.say(session(name), Transfer(agent="", to=to, force=True))

    def attend(self) -> None:
        choices: tuple[Presence, ...] = ("online", "online", "busy", "away", "offline")
        presence = self.chance.choice(choices)
        name = self.chance.choice(AGENTS)
        self.capacity[name] = self.chance.randrange(1, 4)
        told = Attend(presence=presence, capacity=self.capacity[name])
        self.world.say(agent(name), told)

    def be_seen(self) -> None:
        for name in AGENTS:
            if self.chance.random() < 0.7:
                self.world.say(agent(name), Seen())

    def let_time_pass(self) -> None:
        self.world.wake(timedelta(seconds=self.chance.choice((1, 5, 15, 45))))

    def handle_some(self) -> None:
        for _ in range(self.chance.randrange(12)):
            if waiting := self.world.waiting():
                self.world.handle(self.chance.choice(waiting))

    def handle_all(self) -> None:
        """In any order; what is due by now has come."""
        while True:
            self.world.wake(timedelta())
            if not (waiting := self.world.waiting()):
                return
            self.world.handle(self.chance.choice(waiting))

    # -- what must be so -------------------------------------------------------------------

    def check(self) -> None:
        world, desk = self.world, self.world.desk
        holds = {name: world.hold(name) for name in SESSIONS}
        live = {name: world.holder(name) for name in SESSIONS if _is(holds[name], "manual_live")}
        pending = {name for name in SESSIONS if _is(holds[name], "pending_manual")}
        assert world.held() == live
        assert set(desk.waiting) == pending
        for name, waiting in desk.waiting.items():
            assert world.holder(name) == ("" if waiting.offered is None else waiting.offered.id)
            assert waiting.until is None or waiting.until > world.now
        for name in AGENTS:
            self.check_agent(name, live)
        assert all(due > world.now for due in world.leaving().values())

    def check_agent(self, name: str, live: dict[str, str]) -> None:
        world, desk = self.world, self.world.desk
        theirs = {one for one, who in live.items() if who == name}
        offered = {one for one in desk.waiting if world.holder(one) == name}
        assert set(world.agent(name).open) == theirs
        assert not (offered and len(theirs | offered) > self.capacity[name])
        presence = world.agent(name).presence
        assert not (offered and presence not in ("online", "busy"))
        if presence == "online" and len(theirs | offered) < self.capacity[name]:
            stuck = [w for w in desk.waiting.values() if not w.offered and name not in w.tried]
            assert stuck == []


def _is(hold: Hold, mode: str) -> bool:
    return hold.mode == mode


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_everybody_agrees_and_nobody_is_forgotten(seed: int) -> None:
    walk = Walk(seed)
    for number in range(250):
        walk.step()
        if number % 10 == 9:
            walk.handle_all()
            walk.check()


@pytest.mark.parametrize("seed", range(10))
def test_in_the_end_an_agent_who_stays_gets_everything_that_waits(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(150):
        walk.step()
    walk.handle_all()
    world = walk.world
    for name in AGENTS[1:]:
        world.say(agent(name), Attend(presence="offline"))
    world.say(agent("ann"), Attend(presence="online", capacity=len(SESSIONS)))
    walk.handle_all()
    for _ in range(20):
        for name in SESSIONS:
            if world.hold(name).mode == "pending_manual" and world.holder(name) == "ann":
                world.say(session(name), TakeOver(agent=person("ann")))
        world.say(agent("ann"), Attend(presence="away"))
        world.say(agent("ann"), Attend(presence="online"))
        world.wake(timedelta(seconds=5))
        walk.handle_all()

    assert {world.holder(name) for name in SESSIONS} <= {"", "ann"}
    assert [name for name in SESSIONS if world.hold(name).mode == "pending_manual"] == []
