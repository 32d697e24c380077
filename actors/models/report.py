"""How one attempt ends: what is stored of the answer, and what is said of how it went."""

import time
from datetime import timedelta
from typing import Any

from actors.models.answer import Answer
from actors.models.faults import Code, UpstreamFault
from actors.models.prompts import read_choice
from actors.models.refusals import Refusals
from runtime.answers import clip
from runtime.work import Work
from schemas.assist import DraftWritten
from schemas.conversation import MessageAnswered, RunFinished
from schemas.model import (
    Generate,
    Generated,
    Outcome,
    conversation_topic,
    history_topic,
)
from schemas.ownership import internal_topic

EXCERPT = 500
REASON = 500
EMPTY = "the answer is empty"
FILTERED = "the provider's filter stopped the answer"
STATUSES: dict[Code, int] = {
    "unreachable": 502,
    "timeout": 504,
    "rate_limited": 429,
    "quota_exhausted": 429,
    "overloaded": 503,
    "server_error": 502,
    "unauthorized": 502,
    "model_not_found": 404,
    "bad_request": 400,
    "context_too_long": 400,
    "truncated": 502,
    "garbled": 502,
    "too_long": 413,
}
"""What a client is answered: a wrong key of ours, for one, is not the client's affair."""


class Report:
    """The last words of one attempt at a job; `upstream` is whoever was asked last."""

    def __init__(self, job: Generate, ctx: Work) -> None:
        self.upstream = ""
        self._job = job
        self._ctx = ctx
        self._began = time.monotonic()

    def fail(self, fault: UpstreamFault) -> Generated:
        """No answer: the run is over, and its batch may ask another model."""
        return self._tell(
            outcome="failed",
            code=fault.code,
            status=STATUSES[fault.code],
            reason=clip(fault.reason, REASON),
            retry_after=max(fault.retry_after or 0, 0),
        )

    def end(self, answer: Answer, refusals: Refusals) -> Generated:
        """An answer, or a refusal: both are kept, the latter is not remembered."""
        code, reason = _refused(answer, refusals)
        if not code and self._job.candidates:
            return self._judge(answer)
        outcome: Outcome = "refused" if code else "answered"
        self._keep(answer, outcome, reason)
        excerpt = answer.text[:EXCERPT]
        return self._tell(answer, outcome=outcome, code=code, reason=reason, excerpt=excerpt)

    def _judge(self, answer: Answer) -> Generated:
        """The number that a judge named; its words are kept, and never remembered."""
        count = len(self._job.candidates)
        choice = read_choice(answer.text, count)
        if choice is None:
            reason = f"expected a number from 1 to {count}: {clip(answer.text, 100)!r}"
            return self._tell(answer, outcome="failed", code="no_choice", status=502, reason=reason)
        self._keep(answer, "answered", "")
        return self._tell(answer, excerpt=str(choice))

    def _keep(self, answer: Answer, outcome: Outcome, reason: str) -> None:
        """Store the whole answer, in one commit with the end of its run; of a draft nothing."""
        job = self._job
        if job.aside:
            return
        event = MessageAnswered(
            batch=job.batch,
            task=job.task,
            run=self._ctx.run,
            attempt=self._ctx.attempt,
            model=job.model,
            text=answer.text,
            reasoning=answer.reasoning,
            calls=answer.calls,
            outcome=outcome,
            finish=answer.finish,
            usage=answer.usage,
            upstream=self.upstream,
            reason=reason,
            seconds=round(time.monotonic() - self._began, 3),
            thread=answer.thread,
            slot=job.slot,
            remembered=job.remember and outcome == "answered" and not job.candidates,
        )
        ttl = timedelta(seconds=job.keep) if job.keep else None
        self._ctx.emit(history_topic(job.conversation), event, ttl=ttl)

    def _tell(self, answer: Answer | None = None, **facts: Any) -> Generated:
        """Tell followers that the run is over; returns the same, with `facts`, for the batch."""
        job, shown = self._job, answer or Answer()
        thread = self._other_thread(shown)
        result = Generated(
            task=job.task,
            batch=job.batch,
            model=job.model,
            finish=shown.finish,
            usage=shown.usage,
            upstream=self.upstream,
            thread=thread,
            left=job.thread if thread else "",
            **facts,
        )
        if job.aside:
            self._tell_colleagues(shown, result)
            return result
        finished = RunFinished(
            run=self._ctx.run,
            attempt=self._ctx.attempt,
            task=job.task,
            batch=job.batch,
            model=job.model,
            outcome=result.outcome,
            finish=result.finish,
            usage=result.usage,
            upstream=self.upstream,
            code=result.code,
            status=result.status,
            reason=result.reason,
        )
        ttl = timedelta(seconds=job.keep) if job.keep else None
        self._ctx.emit(conversation_topic(job.conversation), finished, ttl=ttl)
        return result

    def _tell_colleagues(self, answer: Answer, result: Generated) -> None:
        """What was said aside is for them alone: no word of it reaches the conversation."""
        draft = DraftWritten(run=self._ctx.run, text=answer.text, reason=result.reason)
        ttl = timedelta(seconds=self._job.keep) if self._job.keep else None
        self._ctx.emit(internal_topic(self._job.conversation), draft, ttl=ttl)

    def _other_thread(self, answer: Answer) -> str:
        """Where the conversation is kept now, if that is elsewhere than the job said."""
        job = self._job
        if not job.remember or job.slot or job.candidates or job.aside:
            return ""
        return answer.thread if answer.thread != job.thread else ""


def _refused(answer: Answer, refusals: Refusals) -> tuple[str, str]:
    """Why an answer counts as a refusal, as code and reason; empty if it does not."""
    if answer.finish == "content_filter":
        return "refused_by_provider", clip(answer.refusal or FILTERED, REASON)
    if answer.calls:
        return "", ""
    text = answer.text
    if not text.strip():
        # One that ran out of tokens while it was thinking has said so by its finish.
        return ("", "") if answer.finish == "length" else ("empty_answer", EMPTY)
    found = refusals.find(text)
    return ("refusal_rule", str(found)) if found else ("", "")
