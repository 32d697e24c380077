"""The adapter for Coze's workflows, against a fake that speaks its wire and all its faults."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from actors.fakes.upstream import Upstream as Fake
from actors.models.coze import Coze
from actors.models.events import (
    Call,
    Counted,
    Ended,
    InThread,
    ReasoningDelta,
    Started,
    TextDelta,
    Thread,
    Timeouts,
    Upstream,
)
from schemas.model import Attachment, FileRef, Image, Text, Usage, Utterance
from tests.unit.provider_double import Outcome, collect, no_file, said
from tests.unit.signing import PRIVATE_PEM, PUBLIC_PEM
from tests.unit.upstreams import faking

ACCESS = {"client": "app-1", "key_id": "k1"}
PATIENT = Timeouts(connect=10, first=10, idle=10)


class Asker:
    """Asks one fake through one adapter."""

    def __init__(self, upstream: Fake, client: httpx.AsyncClient, adapter: Coze) -> None:
        self.upstream = upstream
        self.adapter = adapter
        self._client = client

    def call(self, workflow: str = "w1", **changes: Any) -> Call:
        call = Call(
            client=self._client,
            upstream=Upstream(self.upstream.url, PRIVATE_PEM, "coze-1"),
            model=workflow,
            messages=(said("good morning"),),
            load=no_file,
            conversation="s1",
            timeouts=PATIENT,
            extra={"app_id": "a1"},
            dialect=ACCESS,
        )
        return replace(call, **changes)

    async def ask(self, workflow: str = "w1", **changes: Any) -> Outcome:
        return await collect(self.adapter, self.call(workflow, **changes))


@asynccontextmanager
async def asking(**given: Any) -> AsyncIterator[Asker]:
    """An asker, and a fake Coze that checks what it is asked."""
    adapter = Coze()
    async with faking("coze", public_key=PUBLIC_PEM, **given) as (upstream, client):
        try:
            yield Asker(upstream, client, adapter)
        finally:
            await adapter.close()


def paths(upstream: Fake) -> list[str]:
    return [call.path.rpartition("/")[2] for call in upstream.calls]


# -- what is said ----------------------------------------------------------------------------


async def test_an_answer_is_its_deltas_then_usage_then_the_end() -> None:
    async with asking() as asker:
        outcome = await asker.ask("w1+verbose+follow-up")

    assert outcome.events == [
        InThread("7543000000000000001"),
        Started("7600000000000000002"),
        TextDelta("You"),
        TextDelta(" said:"),
        TextDelta(" good"),
        TextDelta(" morning"),
        Counted(Usage(prompt=2, completion=4)),
        Ended("stop"),
    ]


@pytest.mark.promise("FD-11", "FD-12", "FD-13", "FD-14", "FD-15")
async def test_what_is_sent_names_workflow_app_session_and_conversation() -> None:
    async with asking() as asker:
        await asker.ask(extra={"app_id": "a1", "parameters": {"USER_INPUT": "x"}})
    call = asker.upstream.asked[0]

    assert paths(asker.upstream) == ["token", "create", "chat"]
    assert call.body == {
        "workflow_id": "w1",
        "app_id": "a1",
        "session_name": "s1",
        "conversation_id": "7543000000000000001",
        "additional_messages": [
            {
                "role": "user",
                "type": "question",
                "content": "good morning",
                "content_type": "text",
            }
        ],
        "parameters": {"USER_INPUT": "x"},
    }
    assert call.headers["authorization"] == "Bearer ***"


async def test_parameters_of_a_request_yield_to_the_deployments() -> None:
    async with asking() as asker:
        await asker.ask(
            settings={"parameters": {"a": 1, "b": 1}, "temperature": 1},
            extra={"bot_id": "b1", "parameters": {"b": 2}},
        )
    body = asker.upstream.asked[0].body

    assert body["parameters"] == {"a": 1, "b": 2}
    assert body["bot_id"] == "b1"
    assert "temperature" not in body


async def test_rules_go_before_the_first_user_message_and_tools_speak_as_users() -> None:
    messages = (
        said("be brief", "system"),
        said("one"),
        said("two", "assistant"),
        said("three", "tool"),
        said("", "assistant"),
        said("four"),
    )
    async with asking() as asker:
        await asker.ask(messages=messages)
    sent = asker.upstream.asked[0].body["additional_messages"]

    assert [(one["role"], one["type"], one["content"]) for one in sent][:3] == [
        ("user", "question", "be brief\n\none"),
        ("assistant", "answer", "two"),
        ("user", "question", "three"),
    ]
    assert sent[-1]["content"] == "four"


async def test_of_many_messages_the_last_fifty_are_sent() -> None:
    async with asking() as asker:
        await asker.ask(messages=tuple(said(str(n)) for n in range(80)))
    sent = asker.upstream.asked[0].body["additional_messages"]

    assert [one["content"] for one in sent] == [str(n) for n in range(30, 80)]


async def test_an_assistants_message_at_the_end_is_refused_before_anything_is_asked() -> None:
    async with asking() as asker:
        outcome = await asker.ask(messages=(said("hi"), said("there", "assistant")))

    assert outcome.code == "bad_request"
    assert asker.upstream.asked == []


async def test_files_are_uploaded_and_named_and_texts_are_put_into_the_text() -> None:
    picture = FileRef(id="f1", name='a"\r\nb.png', media="image/png", size=3)
    notes = FileRef(id="f2", name="notes.txt", media="text/plain", size=2)

    async def load(file: FileRef) -> bytes:
        return b"\x89PN" if file is picture else b"hi"

    parts = (
        Text("look"),
        Image(file=picture),
        Image(url="https://x.example/a.png"),
        Attachment(file=notes),
    )
    async with asking() as asker:
        outcome = await asker.ask(messages=(Utterance(role="user", content=parts),), load=load)
    (message,) = asker.upstream.asked[0].body["additional_messages"]
    sent = next(call for call in asker.upstream.calls if call.path == "/v1/files/upload")

    assert outcome.last == Ended("stop")
    assert message["content_type"] == "object_string"
    assert json.loads(message["content"]) == [
        {"type": "text", "text": "look"},
        {"type": "image", "file_id": "7543000000001000000"},
        {"type": "image", "file_url": "https://x.example/a.png"},
        {"type": "text", "text": "notes.txt:\n\nhi\n"},
    ]
    assert b'filename="a%22%0D%0Ab.png"\r\nContent-Type: image/png\r\n\r\n\x89PN\r\n' in sent.body


# -- how it ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("truncated", "truncated"),
        ("truncated=0", "truncated"),
        ("truncated=99", "truncated"),
        ("cut", "truncated"),
        ("dropped", "truncated"),
        ("no-end", "truncated"),
        ("empty", "truncated"),
        ("reset", "unreachable"),
        ("reset-first", "unreachable"),
        ("close-first", "unreachable"),
        ("error", "server_error"),
        ("error+number", "server_error"),
        ("failed", "server_error"),
        ("requires-action", "bad_request"),
        ("garbage", "garbled"),
        ("html", "server_error"),
        ("html=200", "garbled"),
        ("long-line=2000000", "too_long"),
        ("json=4000", "bad_request"),
        ("json=4013", "rate_limited"),
        ("json=4101", "unauthorized"),
        ("json=4200", "model_not_found"),
        ("json=6031", "bad_request"),
        ("json=5000", "server_error"),
        ("400", "bad_request"),
        ("403", "unauthorized"),
        ("404", "model_not_found"),
        ("429", "rate_limited"),
        ("500", "server_error"),
        ("503", "overloaded"),
    ],
)
async def test_whatever_is_no_whole_answer_is_a_fault(fault: str, code: str) -> None:
    async with asking() as asker:
        outcome = await asker.ask(f"w1+{fault}")

    assert outcome.code == code
    assert len(asker.upstream.asked) == 1
    assert not [one for one in outcome.events if isinstance(one, Ended)]


@pytest.mark.parametrize(
    "form",
    [
        *("bytes", "utf8", "together", "gzip", "close", "crlf", "cr", "no-space", "multi-line"),
        *("comments", "ids", "bom", "ping", "no-done", "done-text", "verbose", "follow-up"),
    ],
)
async def test_whatever_is_a_whole_answer_is_the_same_one(form: str) -> None:
    async with asking(text="Grüße, 你好 🙂") as asker:
        outcome = await asker.ask(f"w1+{form}")

    assert outcome.text == "Grüße, 你好 🙂"
    assert outcome.last == Ended("stop")


async def test_a_completed_message_counts_only_where_no_piece_came() -> None:
    async with asking() as asker:
        once = await asker.ask("w1+no-delta")

    assert once.text == "You said: good morning"
    assert once.last == Ended("stop")


async def test_thoughts_are_told_apart() -> None:
    async with asking() as asker:
        outcome = await asker.ask("w1+reasoning")

    assert outcome.reasoning == "The user wants an answer."
    assert outcome.text == "You said: good morning"
    assert isinstance(outcome.events[2], ReasoningDelta)


async def test_an_error_says_where_coze_has_logged_it() -> None:
    async with asking() as asker:
        outcome = await asker.ask("w1+json=6031")

    assert outcome.fault is not None
    assert outcome.fault.reason.startswith("failed (logid 20261120")


async def test_whoever_leaves_ends_the_request() -> None:
    async with asking() as asker:
        stream = asker.adapter.stream(asker.call("w1+hold-middle"))
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator
        call = await asker.upstream.ended(asker.upstream.asked[0])

    assert call.outcome == "left"


@pytest.mark.parametrize("fault", ["hold", "hold-first", "hold-middle"])
async def test_silence_ends_an_answer(fault: str) -> None:
    async with asking() as asker:
        outcome = await asker.ask(f"w1+{fault}", timeouts=Timeouts(first=0.3, idle=0.3))

    assert outcome.code == "timeout"


# -- conversations of Coze's -----------------------------------------------------------------


async def test_a_thread_goes_on_with_what_is_new_only() -> None:
    before = (said("be brief", "system"), said("one"), said("two", "assistant"))
    async with asking() as asker:
        first = await asker.ask()
        assert isinstance(first.events[0], InThread)
        name = first.events[0].id
        thread = Thread(name, "coze-1", news=1)
        outcome = await asker.ask(messages=(*before, said("three")), thread=thread)
    body = asker.upstream.asked[1].body

    assert body["conversation_id"] == name
    assert [one["content"] for one in body["additional_messages"]] == ["three"]
    assert outcome.events[0] == InThread(name)
    assert paths(asker.upstream) == ["token", "create", "chat", "chat"]


async def test_a_thread_at_another_upstream_is_begun_anew_with_all_that_was_said() -> None:
    messages = (said("one"), said("two", "assistant"), said("three"))
    async with asking() as asker:
        await asker.ask(messages=messages, thread=Thread("1", "elsewhere", news=1))
    body = asker.upstream.asked[0].body

    assert body["conversation_id"] == "7543000000000000001"
    assert [one["content"] for one in body["additional_messages"]] == ["one", "two", "three"]


async def test_a_thread_that_coze_has_lost_is_begun_anew_once() -> None:
    messages = (said("one"), said("two", "assistant"), said("three"))
    async with asking() as asker:
        outcome = await asker.ask(messages=messages, thread=Thread("99", "coze-1", news=1))
        gone = await asker.ask("w1+404", messages=messages, thread=Thread("99", "coze-1", news=1))

    assert outcome.last == Ended("stop")
    assert [one.body["conversation_id"][-1] for one in asker.upstream.asked] == list("9192")
    assert len(asker.upstream.asked[1].body["additional_messages"]) == 3
    assert gone.code == "model_not_found"


@pytest.mark.parametrize(
    ("fault", "code"), [("500", "server_error"), ("json", "unauthorized"), ("hold", "timeout")]
)
async def test_without_a_conversation_of_cozes_nothing_is_asked(fault: str, code: str) -> None:
    async with asking(fault=f"create={fault}") as asker:
        outcome = await asker.ask(timeouts=Timeouts(first=0.3))

    assert outcome.code == code
    assert asker.upstream.asked == []


@pytest.mark.promise("FD-19", "FD-23", "FD-24")
async def test_two_sessions_share_neither_token_nor_conversation() -> None:
    async with asking() as asker:
        await asyncio.gather(*[asker.ask(conversation=f"s{n}") for n in range(5)])
    asked = asker.upstream.asked

    assert {one.note for one in asked} == {f"s{n}" for n in range(5)}
    assert all(one.note == one.body["session_name"] for one in asked)
    assert len({one.body["conversation_id"] for one in asked}) == 5
    assert len({one.secret for one in asked}) == 5
