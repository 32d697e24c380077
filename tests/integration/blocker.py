"""An actor whose handlers keep the whole process from doing anything else."""

import re
import time

import msgspec

from runtime import Actor, Turn, handler
from schemas.base import Message


class Sleep(Message, tag="blocker.sleep"):
    """Block for so many seconds; the interpreter's lock is free meanwhile."""

    seconds: float


class Backtrack(Message, tag="blocker.backtrack"):
    """Block for longer than anybody lives, with the interpreter's lock held."""


class Nothing(msgspec.Struct):
    """No state to speak of."""


class Blocker(Actor):
    """Does what no handler should."""

    state: Nothing

    @handler
    def sleep(self, message: Sleep, ctx: Turn) -> None:
        time.sleep(message.seconds)

    @handler
    def backtrack(self, message: Backtrack, ctx: Turn) -> None:
        re.match("(a+)+$", "a" * 60 + "b")
