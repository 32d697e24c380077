"""Keeps what it is told of cases: stands for a desk, or for an agent."""

import msgspec

from runtime import Actor, Turn, handler
from schemas.ownership import CaseMoved


class ClerkState(msgspec.Struct):
    """Of each conversation the changes that it was told of: epoch, mode, and whose it is."""

    moved: dict[str, list[tuple[int, str, str]]] = {}


class Clerk(Actor):
    """A desk, or an agent, who only writes down."""

    state: ClerkState

    @handler
    def hear(self, message: CaseMoved, ctx: Turn) -> None:
        case = message.case
        assignee = case.assignee.id if case.assignee else ""
        heard = self.state.moved.setdefault(case.session, [])
        heard.append((case.epoch, case.mode, assignee))
