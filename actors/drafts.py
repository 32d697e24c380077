"""What models write for an agent alone: runs that are heard on internal/<c>, and nowhere else.

They are no part of the conversation: who may speak does not concern them.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from actors.limits import clip
from actors.live import GRACE, OVERDUE
from actors.session_options import MOST_MARKS, SessionOptions
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.assist import DraftWritten, WriteDraft
from schemas.base import Address
from schemas.conversation import MOST_NAME, SweepDue
from schemas.model import Context, Generate, Prompt, Text, Utterance
from schemas.ownership import internal_topic
from schemas.session import LiveRun, SessionState

MOST_DRAFTS = 4
"""At once in a conversation."""
MOST_HINT = 2000
WITHIN = timedelta(minutes=2)
"""How long one may take; its reader waits for it."""
REMINDER = "drafts"
HINT = "What the agent wants said:"


class Drafts:
    """What a session's turn does with its drafts; what it knows of them is in the state."""

    def __init__(self, state: SessionState, options: SessionOptions, ctx: Turn) -> None:
        self._state = state
        self._options = options
        self._ctx = ctx

    def start(self, wanted: WriteDraft) -> str:
        """Start a run that writes one, and know of it until it is over."""
        ctx, until = self._ctx, self._ctx.now + WITHIN
        name, model = ctx.new_id(), wanted.model or wanted.actor
        job = Generate(
            task=f"{name}-1",
            batch=name,
            conversation=ctx.key,
            model=model,
            prompt=self._prompt(wanted.hint),
            context=self._context(),
            remember=False,
            keep=self._options.kept.total_seconds(),
            aside=True,
        )
        topic = internal_topic(ctx.key)
        run = ctx.start(Address(wanted.actor, ctx.key), job, topic=topic, expires=until)
        self._state.drafts[run] = LiveRun(
            task=job.task,
            batch=name,
            actor=wanted.actor,
            model=model,
            since=ctx.now,
            until=until,
        )
        self._watch()
        return run

    def end(self, run: str) -> bool:
        """A run is over; whether it was a draft's."""
        if self._state.drafts.pop(run, None) is None:
            return False
        self._watch()
        return True

    def fail(self, run: str, reason: str) -> None:
        """A run is over without a draft, and has not said so itself."""
        if self.end(run):
            self._tell(run, reason)

    def stop(self, reason: str, runs: Iterable[str] | None = None) -> None:
        """Stop some, or all of them: nobody is there to read them."""
        for run in list(self._state.drafts if runs is None else runs):
            self._ctx.stop(run, reason)
            self._tell(run, reason)
            del self._state.drafts[run]
        self._watch()

    def sweep(self) -> None:
        """Stop those whose time was over long ago, and come back for the others."""
        now = self._ctx.now
        self.stop(OVERDUE, [run for run, end in self._ends().items() if end <= now])

    def _prompt(self, hint: str) -> Prompt:
        """An instruction from outside of the conversation, behind all that was said in it."""
        said = self._options.draft_prompt
        if hint.strip():
            said = f"{said}\n\n{HINT}\n{hint.strip()}"
        return Prompt(messages=(Utterance(role="user", content=(Text(said),)),))

    def _context(self) -> Context | None:
        marks = self._state.marks
        if not marks:
            return None
        most = 2 * (self._options.turns or MOST_MARKS)
        return Context(
            after=marks[-most:][0],
            until=self._ctx.sequence,
            turns=self._options.turns,
            tokens=self._options.tokens,
        )

    def _tell(self, run: str, reason: str) -> None:
        told = DraftWritten(run=run, reason=reason)
        self._ctx.emit(internal_topic(self._ctx.key), told, ttl=self._options.kept)

    def _ends(self) -> dict[str, datetime]:
        now = self._ctx.now
        return {run: (one.until or now) + GRACE for run, one in self._state.drafts.items()}

    def _watch(self) -> None:
        """Be reminded of the first that should be over."""
        due = min(self._ends().values(), default=None)
        if due is None:
            self._ctx.forget(REMINDER)
        else:
            self._ctx.remind(REMINDER, SweepDue(), after=due - self._ctx.now)


def check_draft(wanted: WriteDraft, writing: int) -> None:
    """`writing` are being written already.

    Raises Reject 429 `too_many_runs`, 413 `hint_too_large`, 422 `invalid_model`.
    """
    if writing >= MOST_DRAFTS:
        detail = f"{writing} drafts are being written in this conversation, at most {MOST_DRAFTS}"
        raise Reject("too_many_runs", f"{detail}; wait for some", status=429)
    if len(wanted.hint) > MOST_HINT:
        detail = f"the hint has {len(wanted.hint)} characters, at most {MOST_HINT}"
        raise Reject("hint_too_large", detail, status=413)
    if len(wanted.model) > MOST_NAME or not wanted.model.isprintable():
        detail = (
            f"the model is called {clip(wanted.model, 40)!r}: expected up to {MOST_NAME} letters"
        )
        raise Reject("invalid_model", detail, status=422)
