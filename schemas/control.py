"""What operators have said about a key or a whole type; in the bucket `config`, `control.<…>`.

Hosts follow it: a pause holds for as long as it is there, the rest until it is done.
"""

import msgspec

PREFIX = "control."


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """End an instance: what was sent to it up to a sequence is not run, and it starts afresh.

    `number` grows from kill to kill, so that each is done once.
    """

    number: int
    upto: int
    by: str


class Control(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that is said about one address. `skips` are sequences not to be run, with who says so."""

    address: str
    paused: bool = False
    by: str = ""
    reason: str = ""
    skips: dict[int, str] = {}
    kill: Kill | None = None

    def sentence(self, seq: int) -> str:
        """Why a message is not to be run, or nothing."""
        if seq in self.skips:
            return f"skipped by {self.skips[seq]}"
        if self.kill is not None and seq <= self.kill.upto:
            return f"its instance was killed by {self.kill.by}"
        return ""

    def is_kill_due(self, killed: int) -> bool:
        """Whether an instance that was last killed by `killed` is to be killed again."""
        return self.kill is not None and self.kill.number > killed

    @property
    def says(self) -> str:
        """Why it is paused, for people."""
        return f"paused by {self.by}" + (f": {self.reason}" if self.reason else "")
