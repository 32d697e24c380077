"""A chat completion as one answer: from the whole messages of the log, not from their pieces."""

import asyncio
import time

from starlette.requests import ClientDisconnect, Request

from edge.chunks import count
from edge.exchange import Exchange, Outcome
from edge.failures import failure_of
from edge.following import Event
from edge.openai_shapes import AnsweredMessage, Call, CalledFunction, ChatCompletion, Choice
from edge.outflow import until_left
from edge.problem import Refusal
from schemas.base import tag_of
from schemas.conversation import BatchFinished, MessageAnswered, TaskState

ENDS = tag_of(BatchFinished)


def completion_id(batch: str) -> str:
    """What a batch is called as a chat completion."""
    return f"chatcmpl-{batch}"


def processing(began: float) -> dict[str, str]:
    """The header that tells for how long we were at it; `began` is of `time.perf_counter`."""
    return {"openai-processing-ms": str(round((time.perf_counter() - began) * 1000))}


async def wait_for_end(exchange: Exchange) -> Outcome:
    """Return what became of a batch, once it has ended. Raises Broken."""
    outcome = await exchange.outcome() if exchange.may_repeat else None
    while outcome is None:
        item = await exchange.next()
        if not isinstance(item, Event) or item.name == ENDS:
            outcome = await exchange.outcome()
    exchange.finished = True
    return outcome


async def until_answered(request: Request, exchange: Exchange) -> Outcome:
    """The same for a client that waits. Raises ClientDisconnect once it does so no more."""
    waiting = asyncio.ensure_future(wait_for_end(exchange))
    left = asyncio.ensure_future(until_left(request.receive))
    try:
        await asyncio.wait((waiting, left), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        raise ClientDisconnect
    finally:
        for task in (waiting, left):
            task.cancel()
        await asyncio.wait((waiting, left))


def complete(exchange: Exchange, outcome: Outcome, model: str) -> ChatCompletion:
    """Return the answer that an outcome is. Raises Refusal if it is none."""
    tasks = [outcome.state.tasks[each.task] for each in exchange.opened.tasks]
    for task in tasks:
        if task.status == "FAILED" and task.outcome != "refused":
            raise failure_of(task)
    said = [outcome.answers.get(each.task) for each in exchange.opened.tasks]
    both = zip(tasks, said, strict=True)
    return ChatCompletion(
        id=completion_id(exchange.opened.batch),
        created=int(time.time()),
        model=model,
        choices=[_choice(number, task, each) for number, (task, each) in enumerate(both)],
        usage=count([task.usage for task in tasks]),
    )


def _choice(index: int, task: TaskState, said: MessageAnswered | None) -> Choice:
    refused = task.outcome == "refused"
    if said is None and not refused:
        raise Refusal(502, "answer_forgotten", "the answer is no longer kept")
    said = said or MessageAnswered(batch="", task="", run="", attempt=0, model="")
    refusal = (task.reason or "the model refused to answer") if refused and not said.text else None
    calls = [Call(c.id, CalledFunction(c.name, c.arguments)) for c in said.calls]
    message = AnsweredMessage(
        role="assistant",
        content=None if (calls or refusal) and not said.text else said.text,
        refusal=refusal,
        annotations=[],
        reasoning_content=said.reasoning or None,
        tool_calls=calls or None,
    )
    return Choice(
        index=index,
        message=message,
        finish_reason="content_filter" if refused else task.finish,
    )
