"""What a session keeps: who began it, which runs may speak, who has it, what waits its turn."""

from datetime import datetime

import msgspec

from schemas.conversation import OpenTask, Wanted
from schemas.model import Prompt
from schemas.ownership import Arriving, Hold


class LiveRun(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A run that may be speaking in a conversation."""

    task: str
    batch: str
    actor: str
    model: str
    since: datetime | None = None
    until: datetime | None = None


class Keeper(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Who keeps a conversation's thread: the `actor` that had it opened, at which `upstream`.

    `former` are others in which answers are kept; clients may know the conversation by them. A
    thread that is being opened is waited for `until`; `anew` is one that the old one is
    left behind for.
    """

    actor: str = ""
    upstream: str = ""
    former: list[str] = []
    until: datetime | None = None
    anew: bool = False


class Queued(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A batch that waits until the runs before it are over; its batch gathers already.

    `remember` says whether what was said and is answered becomes part of the conversation, and
    `whole` whether its prompt needs nothing of what was said before.
    """

    batch: str
    tasks: tuple[OpenTask, ...]
    wanted: tuple[Wanted, ...]
    prompt: Prompt
    remember: bool = False
    whole: bool = False
    expires: datetime | None = None


class SessionState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A conversation. `marks` are the sequences of the last requests that were remembered: what
    was said in answer to one, or with it, stands after it in the log.

    `thread` is where a provider that keeps conversations itself keeps this one; `opening` is the
    run that has it opened. `unanswered` are the batches whose messages the last of them answers
    too, because it interrupted them. `drafts` are runs that write for an agent alone.
    """

    created: datetime | None = None
    modified: datetime | None = None
    title: str = ""
    owner: str = ""
    """The principal that said something first."""
    live: dict[str, LiveRun] = {}
    sweeps: datetime | None = None
    """When runs are looked for whose time is over; None while none is live."""
    marks: list[int] = []
    batches: int = 0
    hold: Hold = msgspec.field(default_factory=Hold)
    thread: str = ""
    opening: str = ""
    keeper: Keeper = msgspec.field(default_factory=Keeper)
    arriving: Arriving | None = None
    queued: list[Queued] = []
    unanswered: list[str] = []
    drafts: dict[str, LiveRun] = {}
