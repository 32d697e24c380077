"""Requests of OpenAI's as prompts, and what is said of those that are none."""

import base64
from typing import Any

import msgspec
import pytest

from edge.body import decode
from edge.openai_shapes import ChatRequest
from edge.problem import Refusal
from edge.prompting import Carried, Draft, Named, draft, read_settings
from schemas.model import Image, Text, ToolCall

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()


def asked(*messages: Any, **more: Any) -> ChatRequest:
    raw = msgspec.json.encode({"model": "m", "messages": messages, **more})
    found: ChatRequest = decode(raw, ChatRequest)
    return found


def drafts(*messages: Any) -> list[Draft]:
    return draft(asked(*messages))


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def refusal(*messages: Any, **more: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        draft(asked(*messages, **more))
    return refused.value


def test_every_role_is_read_with_text_or_with_parts() -> None:
    found = drafts(
        {"role": "developer", "content": "be brief"},
        {"role": "system", "content": [{"type": "text", "text": "be kind"}]},
        {"role": "user", "content": "hi", "name": "Ada"},
        {"role": "assistant", "content": None, "refusal": "no"},
    )

    assert [each.role for each in found] == ["developer", "system", "user", "assistant"]
    assert [each.pieces for each in found] == [
        (Text("be brief"),),
        (Text("be kind"),),
        (Text("hi"),),
        (Text("no"),),
    ]
    assert found[2].name == "Ada"


def test_calls_and_their_results_keep_their_ids() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    found = drafts(
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    )

    assert found[0].calls == (ToolCall(id="call_1", name="f", arguments='{"a":1}'),)
    assert found[0].pieces == ()
    assert found[1].call == "call_1"


def test_functions_of_old_clients_are_tools() -> None:
    request = asked(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "2"},
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
    )
    found = draft(request)

    assert found[0].calls[0].id == found[1].call
    assert found[1].role == "tool"
    assert read_settings(request) == {
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    }


@pytest.mark.promise("AC-17")
def test_an_image_is_an_address_or_comes_along() -> None:
    (found,) = drafts(
        user(
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": DATA, "detail": "high"}},
            {"type": "image_url", "image_url": DATA},
        )
    )

    assert found.pieces == (
        Image(url="https://x.test/a.png", detail="low"),
        Carried(PNG, "image/png", "", "high"),
        Carried(PNG, "image/png", ""),
    )


def test_files_come_along_or_are_named_and_recordings_come_along() -> None:
    pdf = base64.b64encode(b"%PDF-1.7 ...").decode()
    wav = base64.b64encode(b"RIFF\x00\x00\x00\x00WAVEfmt ").decode()
    (found,) = drafts(
        user(
            {"type": "file", "file": {"file_id": "f1"}},
            {
                "type": "file",
                "file": {"file_data": f"data:application/pdf;base64,{pdf}", "filename": "../a.pdf"},
            },
            {"type": "file", "file": {"file_data": base64.b64encode(b"hello").decode()}},
            {"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}},
        )
    )

    assert found.pieces == (
        Named("f1", "messages[0].content[0].file.file_id"),
        Carried(b"%PDF-1.7 ...", "application/pdf", "a.pdf"),
        Carried(b"hello", "text/plain", ""),
        Carried(base64.b64decode(wav), "audio/wav", "audio.wav"),
    )


@pytest.mark.parametrize(
    ("message", "param", "reason"),
    [
        ({"role": "user"}, "messages[0].content", "required for a message of role 'user'"),
        ({"role": "user", "content": []}, "messages[0].content", "required"),
        ({"role": "tool", "content": "2"}, "messages[0].tool_call_id", "required"),
        (
            {"role": "function", "name": "f", "content": "2"},
            "messages[0].name",
            "expected the name of a function called before",
        ),
        (
            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": DATA}}]},
            "messages[0].content[0].type",
            "takes text only",
        ),
    ],
)
def test_a_message_that_lacks_something_is_refused_with_its_place(
    message: Any, param: str, reason: str
) -> None:
    refused = refusal(message)

    assert (refused.status, refused.code, refused.members["param"]) == (400, "invalid_field", param)
    assert reason in refused.detail


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "expected an https: or a data: URL"),
        ("/a.png", "expected an https: or a data: URL"),
        ("https://x.test/" + "a" * 9000, "longer than 8192"),
        ("data:image/png,abc", "expected data:<type>;base64,<content>"),
        ("data:image/png;base64,@@@@", "is not base64"),
        ("data:image/png;base64,", "is empty"),
        (DATA.replace("png", "jpeg"), ""),
        ("data:image/png;base64," + base64.b64encode(b"%PDF-1.7").decode(), "application/pdf"),
        ("data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(), "text/plain"),
        ("data:image/png;base64," + base64.b64encode(b"\0\1\2").decode(), "no type that is taken"),
    ],
)
def test_an_image_that_is_none_is_refused_whatever_it_is_called(url: str, reason: str) -> None:
    message = user({"type": "image_url", "image_url": {"url": url}})
    if not reason:
        assert drafts(message)[0].pieces == (Carried(PNG, "image/png", ""),)
        return
    refused = refusal(message)

    assert refused.members["param"] == "messages[0].content[0].image_url.url"
    assert reason in refused.detail
    assert len(refused.detail) < 200


def test_there_may_be_many_files_but_not_any_number() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a"}}

    assert len(drafts(user(*[image] * 64))[0].pieces) == 64
    assert "at most 64" in refusal(user(*[image] * 65)).detail


def test_settings_are_what_the_client_said_and_nothing_else() -> None:
    request = asked(
        {"role": "user", "content": "hi"},
        temperature=0,
        stop=["a", "b"],
        seed=7,
        max_completion_tokens=5,
        response_format={"type": "json_schema", "json_schema": {"name": "x"}},
        tools=[{"type": "function", "function": {"name": "f", "strict": True}}],
        tool_choice="auto",
        top_p=None,
        stream=True,
        n=2,
        store=True,
        service_tier="auto",
        some_new_field={"a": 1},
    )

    assert read_settings(request) == {
        "temperature": 0,
        "stop": ["a", "b"],
        "seed": 7,
        "max_completion_tokens": 5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x"}},
        "tools": [{"type": "function", "function": {"name": "f", "strict": True}}],
        "tool_choice": "auto",
    }


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "robot", "content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "video", "video": ""}]}]},
        {"temperature": 3},
        {"temperature": "warm"},
        {"n": 0},
        {"n": 17},
        {"tools": [{"type": "magic", "function": {"name": "f"}}]},
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        {"stop": [1]},
        {"stream": "yes"},
        {"model": ""},
    ],
)
def test_a_field_that_is_not_as_it_should_be_is_refused_with_its_place(body: Any) -> None:
    with pytest.raises(Refusal) as refused:
        asked({"role": "user", "content": "hi"}, **body)
    (fault,) = refused.value.members["errors"]

    assert fault["pointer"].startswith(f"/{next(iter(body))}")
