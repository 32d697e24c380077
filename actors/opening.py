"""What a request must be like to become a batch; each refusal says what to send instead."""

from datetime import timedelta

from actors.limits import clip
from runtime.errors import Reject
from schemas.conversation import (
    MOST_ACTORS,
    MOST_NAME,
    MOST_TASKS,
    OpenBatch,
    Policy,
    Wanted,
)
from schemas.envelope import encode
from schemas.model import MOST_INLINE, Prompt, Text, Utterance

MOST_TITLE = 80


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
        raise _invalid(f"deadline {message.deadline!r}: expected at most {seconds:g} seconds")
    _check_prompt(message.prompt)
    if message.said is not None:
        _check_size("said", message.said)


def _check_wanted(number: int, wanted: Wanted) -> None:
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


def title_of(said: Utterance) -> str:
    """The beginning of what was said first, on one line."""
    texts = [part.text for part in said.content if isinstance(part, Text)]
    return clip(" ".join(" ".join(texts).split()), MOST_TITLE)


def _invalid(detail: str) -> Reject:
    return Reject("invalid_batch", detail, status=422)
