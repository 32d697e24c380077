"""What a request must be like to become a batch; each refusal says what to send instead."""

from datetime import timedelta

import msgspec

from actors.limits import clip
from runtime.errors import Reject
from runtime.turn import Turn
from schemas.conversation import (
    MOST_ACTORS,
    MOST_NAME,
    MOST_TASKS,
    OpenBatch,
    Policy,
    Wanted,
    is_open_to,
)
from schemas.envelope import encode
from schemas.model import MOST_INLINE, Generate, Prompt, Text, Utterance

MOST_TITLE = 80
MOST_LIVE = 128
"""Runs at once in a conversation: stopping all of them must fit into one turn."""


def check_opening(message: OpenBatch, *, longest: timedelta) -> None:
    """Raises Reject 422 `invalid_batch` or 413 `prompt_too_large` with what is wrong.

    `longest` is how long a batch may take.
    """
    count = len(message.tasks)
    if not 1 <= count <= MOST_TASKS:
        raise _invalid(f"{count} tasks; name 1 to {MOST_TASKS} models")
    for number, wanted in enumerate(message.tasks, start=1):
        _check_wanted(number, wanted)
    _check_policy(message.policy, count)
    seconds = longest.total_seconds()
    if not 0 <= message.deadline <= seconds:
        raise _invalid(f"deadline {message.deadline:g}: expected at most {seconds:g} seconds")
    _check_prompt(message.prompt)
    if message.said is not None:
        _check_size("said", message.said)


def _check_wanted(number: int, wanted: Wanted) -> None:
    if not 0 <= wanted.slot < MOST_TASKS:
        raise _invalid(f"task {number} has slot {wanted.slot}; expected 0 to {MOST_TASKS - 1}")
    if not 1 <= len(wanted.actors) <= MOST_ACTORS:
        raise _invalid(
            f"task {number} names {len(wanted.actors)} actors; name 1 to {MOST_ACTORS},"
            " the preferred one first"
        )
    if len(wanted.model) > MOST_NAME:
        raise _invalid(
            f"the model of task {number} has {len(wanted.model)} characters, at most"
            f" {MOST_NAME}: {clip(wanted.model, 40)!r}"
        )
    if not wanted.model.isprintable():
        raise _invalid(f"the model of task {number} is no name: {clip(wanted.model, 40)!r}")


def _check_policy(policy: Policy, count: int) -> None:
    if policy.kind == "quorum" and not 1 <= policy.n <= count:
        raise _invalid(f"a quorum of {policy.n!r} out of {count} tasks; expected 1 to {count}")
    if policy.kind == "judge" and not policy.judge:
        raise _invalid("a judge is to choose and none is named; name an actor as `judge`")


def _check_prompt(prompt: Prompt) -> None:
    if not prompt.messages and prompt.body is None:
        raise _invalid("the prompt is empty; send at least one message")
    _check_size("prompt", prompt)


def _check_size(what: str, value: Prompt | Utterance) -> None:
    if (size := len(encode(value))) > MOST_INLINE:
        raise Reject(
            "prompt_too_large",
            f"{what} takes {size} bytes, at most {MOST_INLINE} in a message; put it into a file"
            " and send a reference to that",
            status=413,
        )


def check_owner(owner: str, ctx: Turn) -> None:
    """Raises Reject 404: somebody else's conversation is answered as one that does not exist."""
    if not is_open_to(owner, ctx.envelope.principal):
        raise unknown(ctx)


def unknown(ctx: Turn) -> Reject:
    """404 `conversation_not_found`."""
    detail = f"there is no conversation {clip(ctx.key, 80)!r}"
    return Reject("conversation_not_found", detail, status=404)


def check_room(live: int, message: OpenBatch) -> None:
    """Raises Reject 429 `too_many_runs`; `live` are going already."""
    if live + len(message.tasks) > MOST_LIVE:
        detail = f"{live} runs are going in this conversation, at most {MOST_LIVE}"
        raise Reject("too_many_runs", f"{detail}; wait for some, or abort them", status=429)


def choose_actors(message: OpenBatch, ctx: Turn) -> tuple[Wanted, ...]:
    """The tasks with those of their actors that are deployed.

    Raises Reject 404 `model_not_found` for a task, or a judge, of which none is.
    """
    if message.policy.kind == "judge" and not serves(message.policy.judge, ctx):
        raise no_model("the judge", message.policy.judge)
    return tuple(_choose(wanted, ctx) for wanted in message.tasks)


def serves(actor: str, ctx: Turn) -> bool:
    """Whether an actor is a model that is deployed."""
    return ctx.deployed(actor, "worker", handling=Generate)


def _choose(wanted: Wanted, ctx: Turn) -> Wanted:
    actors = tuple(actor for actor in wanted.actors if serves(actor, ctx))
    if not actors:
        raise no_model(f"model {clip(wanted.model, 80)!r}", " or ".join(wanted.actors))
    return msgspec.structs.replace(wanted, actors=actors)


def no_model(what: str, actors: str) -> Reject:
    """404 `model_not_found`: none of these is deployed."""
    detail = f"{what}: no model is deployed as {clip(actors, 200)!r}; deploy it, or name another"
    return Reject("model_not_found", detail, status=404)


def text_of(said: Utterance) -> str:
    """The words of what was said."""
    return " ".join(part.text for part in said.content if isinstance(part, Text))


def title_of(said: Utterance) -> str:
    """The beginning of what was said first, on one line."""
    return clip(" ".join(text_of(said).split()), MOST_TITLE)


def _invalid(detail: str) -> Reject:
    return Reject("invalid_batch", detail, status=422)
