"""What is heard of a batch, as the chunks of a completion: in order, once, and never glued."""

import re
from typing import Any

import msgspec
import pytest

from edge.chunks import Chunks
from edge.failures import meaning_of
from edge.openai_shapes import ChatChunk
from edge.telling import Broken, Telling
from schemas.base import Message
from schemas.conversation import (
    BatchFinished,
    BatchOpened,
    OpenTask,
    RunFinished,
    TaskFinished,
    TaskMoved,
)
from schemas.envelope import encode, seal
from schemas.model import Usage
from schemas.record import Delta, RunStarted, RunSuperseded

B = "0123456789abcdef0123456789abcdef"


class Heard:
    """A telling, and all that it has written."""

    def __init__(self, tasks: int = 1) -> None:
        opened = BatchOpened(
            batch=B,
            conversation="c",
            tasks=tuple(
                OpenTask(task=f"{B}-{n}", model="m", run=f"r{n}") for n in range(1, tasks + 1)
            ),
        )
        self.telling = Telling(opened, Chunks("chatcmpl-1", 1, "m"))
        self.written = b""

    def hear(self, *messages: Message) -> "Heard":
        for message in messages:
            sealed = seal(message, id="1", source="test", subject="c")
            self.written += self.telling.hear(sealed.type, encode(sealed))
        return self

    @property
    def choices(self) -> list[Any]:
        found = re.findall(rb"data: (.*)\n\n", self.written)
        return [msgspec.json.decode(each, type=ChatChunk).choices[0] for each in found]

    def text(self, index: int = 0, field: str = "content") -> str:
        deltas = (each.delta for each in self.choices if each.index == index)
        return "".join(getattr(delta, field) or "" for delta in deltas)

    def broken(self, *messages: Message) -> Any:
        with pytest.raises(Broken) as broken:
            self.hear(*messages)
        return broken.value.refusal


def says(text: str, n: int, *, run: str = "r1", attempt: int = 1, **more: Any) -> Delta:
    return Delta(text=text, run=run, attempt=attempt, n=n, **more)


def ends(number: int = 1, status: Any = "SUCCESS", **more: Any) -> TaskFinished:
    task = f"{B}-{number}"
    return TaskFinished(batch=B, task=task, run="r1", model="m", status=status, **more)


def test_an_answer_is_its_role_its_pieces_and_one_end() -> None:
    heard = Heard().hear(
        RunStarted(run="r1", attempt=1),
        says("hm", 1, kind="reasoning"),
        says("Hel", 2),
        says("lo", 3),
        ends(finish="length", usage=Usage(prompt=2, completion=1)),
        BatchFinished(batch=B, status="SUCCESS"),
    )

    assert [c.delta.role for c in heard.choices] == ["assistant", None, None, None, None]
    assert heard.text() == "Hello"
    assert heard.text(field="reasoning_content") == "hm"
    assert [c.finish_reason for c in heard.choices] == [None, None, None, None, "length"]
    assert heard.telling.done
    assert heard.telling.choices[0].usage == Usage(prompt=2, completion=1)


def test_an_answer_without_a_word_has_a_role_all_the_same() -> None:
    heard = Heard().hear(ends())

    assert [(c.delta.role, c.finish_reason) for c in heard.choices] == [
        ("assistant", None),
        (None, "stop"),
    ]


@pytest.mark.promise("AC-07")
def test_a_piece_that_comes_again_is_heard_once() -> None:
    heard = Heard().hear(says("a", 1), says("a", 1), says("b", 2), says("a", 1), says("b", 2))

    assert heard.text() == "ab"


def test_what_others_say_in_the_conversation_is_passed_over() -> None:
    heard = Heard().hear(
        says("x", 1, run="other"),
        TaskFinished(batch="other", task="other-1", run="other", model="m", status="FAILED"),
        BatchFinished(batch="other", status="FAILED"),
        says("a", 1),
    )

    assert heard.text() == "a"
    assert not heard.telling.done


@pytest.mark.promise("AC-07")
@pytest.mark.parametrize(
    "news",
    [
        RunSuperseded(run="r1", attempt=2),
        RunStarted(run="r1", attempt=2),
        TaskMoved(batch=B, task=f"{B}-1", run="r9", model="n"),
    ],
)
def test_what_begins_anew_before_a_word_was_sent_goes_on_silently(news: Message) -> None:
    run, attempt = ("r9", 1) if isinstance(news, TaskMoved) else ("r1", 2)
    heard = Heard().hear(RunStarted(run="r1", attempt=1), news)
    heard.hear(says("old", 1), says("new", 1, run=run, attempt=attempt), says("old", 2), ends())

    assert heard.text() == "new"
    assert heard.telling.done


@pytest.mark.promise("AC-07")
@pytest.mark.parametrize(
    "news",
    [
        RunSuperseded(run="r1", attempt=2),
        RunStarted(run="r1", attempt=2),
        says("new", 1, attempt=2),
        TaskMoved(batch=B, task=f"{B}-1", run="r9", model="n"),
    ],
)
def test_what_begins_anew_after_a_word_was_sent_breaks_the_stream_and_is_not_glued(
    news: Message,
) -> None:
    heard = Heard().hear(RunStarted(run="r1", attempt=1), says("old", 1))
    refusal = heard.broken(news)

    assert refusal.code == "superseded"
    assert heard.text() == "old"


def test_choices_come_interleaved_and_end_each_for_itself() -> None:
    heard = Heard(tasks=2).hear(
        says("a", 1, run="r2"), says("b", 1), ends(2), says("c", 2), ends(1, finish="length")
    )

    assert heard.text(0) == "bc"
    assert heard.text(1) == "a"
    assert [(c.index, c.finish_reason) for c in heard.choices if c.finish_reason] == [
        (1, "stop"),
        (0, "length"),
    ]
    assert heard.telling.done


def test_calls_are_told_by_their_index_with_their_names_once() -> None:
    heard = Heard().hear(
        says("", 1, kind="tool", index=0, call="call_1", name="f"),
        says('{"a":', 2, kind="tool", index=0, call="call_1", name="f"),
        says("{}", 3, kind="tool", index=1, call="call_2", name="g"),
        says("1}", 4, kind="tool", index=0),
        ends(finish="tool_calls"),
    )
    calls = [c.delta.tool_calls[0] for c in heard.choices if c.delta.tool_calls]

    assert [(c.index, c.id, c.function.name, c.function.arguments) for c in calls] == [
        (0, "call_1", "f", ""),
        (0, None, None, '{"a":'),
        (1, "call_2", "g", "{}"),
        (0, None, None, "1}"),
    ]


def refuses(reason: str = "not that") -> RunFinished:
    return RunFinished(
        run="r1", attempt=1, task=f"{B}-1", batch=B, model="m", outcome="refused", reason=reason
    )


@pytest.mark.promise("AC-15")
def test_a_refusal_ends_an_answer_as_filtered_and_says_why_where_nothing_was_said() -> None:
    silent = Heard().hear(refuses(), ends(status="FAILED", code="refused", reason="not that"))
    spoken = Heard().hear(says("I cannot", 1), refuses(), ends(status="FAILED", code="refused"))

    assert silent.text(field="refusal") == "not that"
    assert spoken.text(field="refusal") == ""
    assert spoken.text() == "I cannot"
    assert silent.choices[-1].finish_reason == "content_filter"
    assert spoken.choices[-1].finish_reason == "content_filter"


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("truncated", 0, (502, "truncated")),
        ("rate_limited", 429, (429, "rate_limited")),
        ("quota_exhausted", 402, (429, "insufficient_quota")),
        ("context_too_long", 400, (400, "context_length_exceeded")),
        ("unauthorized", 401, (502, "upstream_unauthorized")),
        ("deadline", 504, (504, "timeout")),
        ("MANUAL_IN_PROGRESS", 409, (409, "MANUAL_IN_PROGRESS")),
        ("", 401, (502, "failed")),
        ("new", 418, (418, "new")),
    ],
)
def test_a_failure_breaks_the_stream_with_what_it_means(
    code: str, status: int, expected: tuple[int, str]
) -> None:
    failed = ends(status="FAILED", code=code, http_status=status, reason="why")
    refusal = Heard().broken(failed)

    assert (refusal.status, refusal.code) == expected
    assert refusal.detail == "why"


def test_a_client_is_told_whether_and_when_to_come_again() -> None:
    busy = meaning_of("rate_limited", 429, "busy", 6.2).headers
    quota = meaning_of("quota_exhausted", 429, "empty", 6.2).headers
    late = meaning_of("deadline", 504, "late").headers
    broken = meaning_of("truncated", 502, "broken").headers

    assert (busy["retry-after"], busy["x-should-retry"]) == ("7", "true")
    assert (quota["retry-after"], quota["x-should-retry"]) == ("3600", "false")
    assert late["x-should-retry"] == "false"
    assert "x-should-retry" not in broken


def test_a_batch_that_ends_without_its_tasks_breaks_the_stream() -> None:
    refusal = Heard().broken(BatchFinished(batch=B, status="FAILED", reason="stopped"))

    assert (refusal.status, refusal.detail) == (502, "stopped")


def test_what_cannot_be_read_is_passed_over() -> None:
    heard = Heard()

    assert heard.telling.hear("run.delta", b"{") == b""
    assert heard.telling.hear("run.delta", b'{"data": {"text": 7}}') == b""
    assert heard.telling.hear("unreadable", b"\xff") == b""
