"""A conversation that people can take, in memory, and short words for what is said to it."""

from datetime import timedelta
from typing import Any

from schemas.base import Address, Message
from schemas.deployment import Deployment
from schemas.ownership import (
    Assignee,
    CaseMoved,
    Hold,
    ModeChanged,
    TakeOver,
)
from schemas.session import SessionState
from tests.unit.gathered import World
from tests.unit.test_conversing import opening, words

SESSION = Address("session", "c")
ANN, BOB = Assignee(id="ann", name="Ann"), Assignee(id="bob", name="Bob")


class Desk:
    """A world with one conversation, and short words for what is said to it."""

    def __init__(self) -> None:
        self.world = World()
        for name in ("desk", "human_agent"):
            self.world.deployed[name] = Deployment(name=name, type="x:Y", kind="keyed")

    def ask(self, message: Message, **facts: Any) -> Any:
        return self.world.ask(SESSION, message, **facts)

    def open(self, *actors: str, **rest: Any) -> Any:
        return self.ask(opening(*actors, **{"said": words("hello"), **rest}))

    def take(self, agent: Assignee = ANN, **more: Any) -> Any:
        return self.ask(TakeOver(agent=agent, **more))

    @property
    def state(self) -> SessionState:
        found = self.world.state(SESSION)
        assert isinstance(found, SessionState)
        return found

    @property
    def hold(self) -> Hold:
        return self.state.hold

    def told(self, kind: type[Any], topic: str = "") -> list[Any]:
        return [
            event
            for where, event in self.world.facts
            if isinstance(event, kind) and topic in ("", where)
        ]

    def steps(self) -> list[tuple[str, str]]:
        """Each change of the mode: what followed what."""
        return [(one.was, one.mode) for one in self.told(ModeChanged)]

    def letters(self, actor: str) -> list[tuple[str, str, int]]:
        """Who was told which mode, and the epoch of it."""
        return [
            (to.key, letter.case.mode, letter.case.epoch)
            for to, letter in self.world.letters
            if to.actor == actor and isinstance(letter, CaseMoved)
        ]

    def wait(self, seconds: float) -> None:
        self.world.advance(timedelta(seconds=seconds))
        while self.world.instances[SESSION].mail:
            self.world.handle(SESSION)
