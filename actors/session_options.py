"""What the deployment of a session may say: how long, how much, and by which rules."""

from datetime import timedelta

import msgspec

from actors.terms import Supervision
from runtime.config import duration
from schemas.conversation import BATCH, LONGEST
from schemas.ownership import Arriving
from schemas.regulator import Ruleset

MOST_MARKS = 64
MOST_PROMPT = 4000
DRAFT_PROMPT = (
    "You help an agent of a support desk. Write what the agent could answer the customer next,"
    " in the customer's language and as plain text. Write that answer and nothing else."
)


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`batches` is the type that gathers, `keep` how long what is told is kept.

    A batch may take `deadline` unless its client says, and never more than `longest`, which
    sessions and batches must outlive. `turns` and `tokens` are of what a model is shown of the
    conversation (0: as the model's options say). `arriving` is what becomes of a message that
    comes while a run is going, `regulator` the rules by which a person is called, and
    `supervision` of when people have it; `draft_prompt` tells a model to write what an agent
    might answer.
    """

    batches: str = BATCH
    keep: str = "30d"
    deadline: str = "30m"
    longest: str = "12h"
    turns: int = 10
    tokens: int = 0
    arriving: Arriving = "parallel"
    regulator: Ruleset = Ruleset()
    supervision: Supervision = Supervision()
    draft_prompt: str = DRAFT_PROMPT

    def __post_init__(self) -> None:
        duration(self.keep)
        if duration(self.longest).total_seconds() > LONGEST:
            raise ValueError(f"longest = {self.longest!r}: expected at most {LONGEST / 3600:.0f}h")
        if duration(self.deadline) > duration(self.longest):
            raise ValueError(f"deadline = {self.deadline!r}: expected at most {self.longest!r}")
        if not 0 <= self.turns <= MOST_MARKS:
            raise ValueError(f"turns = {self.turns!r}: expected 0 to {MOST_MARKS}")
        if self.tokens < 0:
            raise ValueError(f"tokens = {self.tokens!r}: expected 0 or more")
        if not 0 < len(self.draft_prompt.strip()) <= MOST_PROMPT:
            raise ValueError(f"draft_prompt: expected 1 to {MOST_PROMPT} characters")

    @property
    def kept(self) -> timedelta:
        """How long what is told is kept."""
        return duration(self.keep)
