"""What a session has models do beside answering: have a thread opened, write an agent a draft.

A thread is kept for one actor, whose runs go on in it; nobody else's run is given it.
"""

from datetime import timedelta
from typing import ClassVar

import msgspec

from actors.drafts import Drafts, check_draft
from actors.limits import clip
from actors.opening import check_owner, no_model, serves, unknown
from actors.session_options import SessionOptions
from runtime.actor import Actor, handler
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.assist import (
    DraftOpened,
    MakeThread,
    OpenThread,
    ThreadFailed,
    ThreadFound,
    ThreadKept,
    ThreadMade,
    ThreadOpened,
    WriteDraft,
)
from schemas.base import Address, Message
from schemas.model import Generated, conversation_topic
from schemas.ownership import IN_MANUAL
from schemas.record import RunFailed
from schemas.session import Keeper, SessionState

OPENING = timedelta(minutes=1)
"""How long a provider may take to open a thread."""
MOST_FORMER = 8


class Assisting(Actor):
    """The part of a session that knows its thread, and the drafts that are being written."""

    Options: ClassVar[type[msgspec.Struct] | None] = SessionOptions

    state: SessionState
    options: SessionOptions

    @handler
    def open_thread(self, message: OpenThread, ctx: Turn) -> ThreadKept:
        """Have a thread opened, unless there is one, or it is being opened already."""
        check_owner(self.state.owner, ctx)
        if message.anew and self.state.hold.mode != "bot_active":
            detail = "a person has this conversation; it is begun anew once it is given back"
            raise Reject(IN_MANUAL, detail, status=409)
        actor = _choose(message, ctx)
        self._begin(message, ctx)
        if self.state.thread and not message.anew:
            return ThreadKept(thread=self.state.thread)
        if self._is_opening(ctx):
            return ThreadKept(run=self.state.opening)
        if not ctx.deployed(actor, handling=MakeThread):
            self._keep(ctx.key, "", Keeper(actor=actor), ctx, anew=message.anew)
            return ThreadKept(thread=ctx.key)
        return ThreadKept(run=self._start(actor, message, ctx))

    @handler
    def take_thread(self, message: ThreadMade, ctx: Turn) -> None:
        """A model has had a thread opened, or says why not."""
        run, keeper = ctx.envelope.runid, self.state.keeper
        if not run or run != self.state.opening:
            return
        self._end_opening()
        if not message.thread:
            failed = ThreadFailed(
                run=run, code=message.code, status=message.status, reason=message.reason
            )
            self._tell(failed, ctx)
        elif has_thread(self.state, ctx) and not keeper.anew:
            # An answer has found one meanwhile, which its client may know already.
            self._tell(ThreadOpened(thread=self.state.thread, run=run), ctx)
        else:
            actor = ctx.envelope.source.partition("/")[0]
            made = Keeper(actor=actor, upstream=message.upstream)
            self._keep(message.thread, run, made, ctx, anew=keeper.anew)

    @handler
    def note_thread(self, message: ThreadFound, ctx: Turn) -> None:
        """An answer was kept in a thread of its own: the conversation's, unless it has one.

        In any case a client that was told of it may name the conversation by it.
        """
        known = self.state.thread if has_thread(self.state, ctx) else ""
        theirs = message.left == known
        other = known if theirs else message.thread
        former = [one for one in self.state.keeper.former if one != other]
        keeper = msgspec.structs.replace(
            self.state.keeper, former=[*former, other][-MOST_FORMER:] if other else former
        )
        if theirs:
            keeper.actor, keeper.upstream = message.actor, message.upstream
            self._keep(message.thread, "", keeper, ctx)
        else:
            self.state.keeper = keeper

    @handler
    def take_failed_run(self, message: RunFailed, ctx: Turn) -> None:
        """A run of ours was given up, or came too late to begin."""
        Drafts(self.state, self.options, ctx).fail(message.run, message.reason)
        if message.run == self.state.opening:
            self._end_opening()
            failed = ThreadFailed(
                run=message.run, code="run_failed", status=502, reason=message.reason
            )
            self._tell(failed, ctx)

    @handler
    def write_draft(self, message: WriteDraft, ctx: Turn) -> DraftOpened:
        """Have a model write what an agent might answer; the customer hears nothing of it."""
        if self.state.created is None:
            raise unknown(ctx)
        if self.state.hold.mode == "bot_active":
            detail = "no person has this conversation, or is waited for: the bot answers itself"
            raise Reject("INVALID_STATUS", detail, status=409)
        if not serves(message.actor, ctx):
            raise no_model("a draft is to be written", clip(message.actor, 80))
        check_draft(message, len(self.state.drafts))
        return DraftOpened(run=Drafts(self.state, self.options, ctx).start(message))

    @handler
    def take_draft(self, message: Generated, ctx: Turn) -> None:
        """A draft is written; its readers were told in the same commit."""
        Drafts(self.state, self.options, ctx).end(ctx.envelope.runid)

    def _check_thread(self, thread: str, ctx: Turn) -> None:
        """Raises Reject 400 `unknown_thread` for one that is not this conversation's."""
        known = (self.state.thread, ctx.key, *self.state.keeper.former)
        if thread and thread not in known:
            detail = (
                f"the conversation {clip(thread, 80)!r} was not opened for {clip(ctx.key, 80)!r},"
                " or was left behind; open one, or leave its id out"
            )
            raise Reject("unknown_thread", detail, status=400)

    # -- opening ---------------------------------------------------------------------------

    def _begin(self, message: OpenThread, ctx: Turn) -> None:
        state = self.state
        state.created = state.created or ctx.now
        state.owner = state.owner or ctx.envelope.principal
        state.modified = ctx.now
        state.hold.team = state.hold.team or message.team

    def _is_opening(self, ctx: Turn) -> bool:
        """Whether a run is at it; one whose result should have come long ago is not waited for."""
        until = self.state.keeper.until
        return bool(self.state.opening) and until is not None and ctx.now < until + OPENING

    def _start(self, actor: str, message: OpenThread, ctx: Turn) -> str:
        state, until = self.state, ctx.now + OPENING
        job = MakeThread(conversation=ctx.key)
        state.opening = ctx.start(Address(actor, ctx.key), job, priority=0, expires=until)
        state.keeper.until, state.keeper.anew = until, message.anew
        return state.opening

    def _end_opening(self) -> None:
        self.state.opening = ""
        self.state.keeper = msgspec.structs.replace(self.state.keeper, until=None, anew=False)

    def _keep(
        self, thread: str, run: str, keeper: Keeper, ctx: Turn, *, anew: bool = False
    ) -> None:
        """Have a thread from now on. What was said before one that is begun anew is left behind."""
        self.state.thread, self.state.keeper = thread, keeper
        if anew:
            self.state.marks = [ctx.sequence]
        self._tell(ThreadOpened(thread=thread, run=run), ctx)

    def _tell(self, event: Message, ctx: Turn) -> None:
        ctx.emit(conversation_topic(ctx.key), event, ttl=self.options.kept)


def has_thread(state: SessionState, ctx: Turn) -> bool:
    """Whether a provider keeps the conversation; those that do not call it as we do."""
    return state.thread not in ("", ctx.key)


def _choose(message: OpenThread, ctx: Turn) -> str:
    for actor in message.actors:
        if serves(actor, ctx):
            return actor
    raise no_model("a thread is to be opened", " or ".join(message.actors))
