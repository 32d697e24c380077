"""What is sent to servers of OpenAI's chat completions, in each dialect."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.models import gemini_request, ollama_request, openai_request
from actors.models.dialects import DIALECTS, Dialect, dialect_of
from actors.models.events import Call, Upstream
from actors.models.faults import UpstreamFault
from schemas.model import Attachment, FileRef, Image, Text, ToolCall, Utterance
from tests.unit.provider_double import said

DATA = {"png": b"\x89PNG", "txt": "naïve".encode(), "wav": b"RIFF", "pdf": b"%PDF"}


async def load(file: FileRef) -> bytes:
    return DATA[file.id]


def question(*messages: Utterance, **changes: Any) -> Call:
    # Nobody is asked here.
    client: Any = None
    given: dict[str, Any] = {"client": client, "upstream": Upstream("http://x"), "model": "m"}
    return Call(**given | {"messages": messages or (said("hi"),), "load": load} | changes)


async def sent(*messages: Utterance, dialect: str = "openai", **changes: Any) -> Any:
    return await openai_request.build(question(*messages, **changes), DIALECTS[dialect])


def user(*parts: Any) -> Utterance:
    return Utterance(role="user", content=parts)


async def content(*parts: Any, dialect: str = "openai") -> Any:
    return (await sent(user(*parts), dialect=dialect))["messages"][0]["content"]


PNG = FileRef(id="png", name="a.png", media="image/png")


async def test_text_alone_is_a_string() -> None:
    assert await content(Text("a"), Text("b")) == "ab"


async def test_an_image_of_ours_is_a_data_url() -> None:
    assert await content(Text("look"), Image(file=PNG, detail="low")) == [
        {"type": "text", "text": "look"},
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,iVBORw==", "detail": "low"},
        },
    ]


async def test_an_image_that_came_as_a_file_is_an_image() -> None:
    assert (await content(Attachment(file=PNG)))[0]["type"] == "image_url"


@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/gif;base64,R0lG"])
async def test_the_url_of_an_image_goes_along(url: str) -> None:
    assert await content(Image(url=url)) == [{"type": "image_url", "image_url": {"url": url}}]


async def test_a_text_file_is_text_with_its_name() -> None:
    file = FileRef(id="txt", name="notes.txt", media="text/plain; charset=utf-8")

    assert await content(Text("sum up"), Attachment(file=file)) == "sum upnotes.txt:\n\nnaïve\n"


async def test_a_recording_is_audio() -> None:
    file = FileRef(id="wav", media="audio/wav")

    assert await content(Attachment(file=file)) == [
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    ]


async def test_a_document_is_a_file() -> None:
    file = FileRef(id="pdf", name="a.pdf", media="application/pdf")

    assert await content(Attachment(file=file)) == [
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        }
    ]


async def test_a_document_is_refused_by_name_where_none_is_taken() -> None:
    file = FileRef(id="pdf", name="a.pdf", media="application/pdf")
    with pytest.raises(UpstreamFault) as caught:
        await content(Attachment(file=file), dialect="deepseek")

    assert caught.value.code == "bad_request"
    assert caught.value.reason == "this server takes no files such as 'a.pdf' (application/pdf)"


async def test_ollama_fetches_no_images() -> None:
    with pytest.raises(UpstreamFault) as caught:
        await content(Image(url="https://example.com/a.png"), dialect="ollama")

    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("url", ["data:nonsense", "data:image/png;base64,%%%"])
async def test_a_data_url_that_is_none_is_our_mistake(url: str) -> None:
    with pytest.raises(UpstreamFault) as caught:
        await content(Image(url=url))

    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_only_openai_knows_developers(dialect: str) -> None:
    role = (await sent(said("x", "developer"), dialect=dialect))["messages"][0]["role"]

    assert role == ("developer" if dialect == "openai" else "system")


CALL = ToolCall(id="call_1", name="f", arguments='{"a":1}')


async def test_calls_and_their_results_go_back() -> None:
    made = Utterance(role="assistant", calls=(CALL,))
    result = Utterance(role="tool", call="call_1", content=(Text("42"),))

    assert (await sent(made, result))["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"a":1}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]


@pytest.mark.parametrize(
    ("traits", "calls", "back"),
    [
        ({"name": "openai"}, True, False),
        ({"name": "deepseek"}, True, True),
        ({"name": "deepseek"}, False, False),
        ({"name": "deepseek-reasoner"}, True, False),
        ({"name": "deepseek", "reasoning_back": "always"}, False, True),
        ({"name": "vllm", "reasoning_back": "with_calls"}, True, True),
    ],
)
async def test_reasoning_goes_back_where_the_model_wants_it(
    traits: dict[str, Any], calls: bool, back: bool
) -> None:
    thought = Utterance(role="assistant", reasoning="hm", calls=(CALL,) if calls else ())
    dialect = dialect_of(httpx.URL("http://x"), "m", traits)

    message = (await openai_request.build(question(thought), dialect))["messages"][0]

    assert message.get("reasoning_content") == ("hm" if back else None)


async def test_once_tools_were_called_the_reasoning_of_every_answer_goes_back() -> None:
    called = Utterance(role="assistant", reasoning="which tool?", calls=(CALL,))
    result = Utterance(role="tool", call="call_1", content=(Text("42"),))
    answer = Utterance(role="assistant", reasoning="so it is 42", content=(Text("42"),))

    messages = (await sent(called, result, answer, said("why?"), dialect="deepseek"))["messages"]

    assert [each.get("reasoning_content") for each in messages] == [
        "which tool?",
        None,
        "so it is 42",
        None,
    ]


@pytest.mark.parametrize(
    ("dialect", "given", "written"),
    [
        ("openai", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("vllm", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("ollama", {"max_completion_tokens": 5, "max_tokens": 4}, {"max_tokens": 4}),
        ("openai", {"reasoning_effort": "none"}, {"reasoning_effort": "none"}),
        ("deepseek", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ("deepseek", {"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}),
        ("qwen", {"reasoning_effort": "none"}, {"enable_thinking": False}),
        (
            "vllm",
            {"reasoning_effort": "none"},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
        ("compatible", {"temperature": None, "n": 4, "stream": False, "model": "x"}, {}),
    ],
)
async def test_settings_are_translated(dialect: str, given: Any, written: Any) -> None:
    ours = {"model", "messages", "stream", "stream_options"}
    body = await sent(dialect=dialect, settings=given)

    assert {name: value for name, value in body.items() if name not in ours} == written
    assert (body["model"], body["stream"]) == ("m", True)


async def test_what_a_deployment_adds_goes_over_everything_and_into_objects() -> None:
    body = await sent(
        dialect="vllm",
        settings={"reasoning_effort": "none", "top_p": 0.5},
        extra={"chat_template_kwargs": {"x": 1}, "top_p": 0.9},
    )

    assert body["chat_template_kwargs"] == {"enable_thinking": False, "x": 1}
    assert body["top_p"] == 0.9


@pytest.mark.parametrize(
    ("url", "model", "name"),
    [
        ("https://api.openai.com/v1", "gpt", "openai"),
        ("https://api.deepseek.com", "deepseek-v4-pro", "deepseek"),
        ("https://dashscope.aliyuncs.com/compatible-mode/v1", "qwen3", "qwen"),
        ("http://127.0.0.1:11434/v1", "deepseek-r1:1.5b", "ollama"),
        ("http://10.0.0.1:8000/v1", "deepseek-v4", "deepseek"),
        ("http://10.0.0.1:8000/v1", "deepseek-reasoner", "deepseek-reasoner"),
        ("http://10.0.0.1:8000/v1", "llama", "compatible"),
    ],
)
def test_a_dialect_is_seen_by_host_or_model(url: str, model: str, name: str) -> None:
    assert dialect_of(httpx.URL(url), model, {}) == DIALECTS[name]


@pytest.mark.parametrize("traits", [{"name": "klingon"}, {"colour": 1}, {"thinks": "sometimes"}])
def test_a_dialect_that_does_not_exist_is_our_mistake(traits: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFault) as caught:
        dialect_of(httpx.URL("http://x"), "m", traits)

    assert caught.value.code == "bad_request"


WORDS = """
tools tool_choice response_format reasoning_effort stop max_tokens top_p temperature n
type function name parameters json_schema schema
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["auto", "json_schema", "none"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS.split()), inner, max_size=4)
    ),
    max_leaves=12,
)
Build = Callable[[Call], Coroutine[Any, Any, Any]]


def builds(dialect: Dialect) -> Build:
    return lambda call: openai_request.build(call, dialect)


BUILDERS: dict[str, Build] = {
    **{name: builds(dialect) for name, dialect in DIALECTS.items()},
    "ollama native": ollama_request.build,
    "gemini": lambda call: gemini_request.build(call, lambda made: ""),
}


@pytest.mark.parametrize("name", BUILDERS)
@given(
    settings=st.dictionaries(st.sampled_from(WORDS.split()), JSON), arguments=st.text(max_size=5)
)
def test_any_settings_make_a_request_or_a_fault(name: str, settings: Any, arguments: str) -> None:
    made = Utterance(role="assistant", calls=(ToolCall(id="1", name="f", arguments=arguments),))
    try:
        body = asyncio.run(BUILDERS[name](question(said("hi"), made, settings=settings)))
    except UpstreamFault:
        return

    assert msgspec.json.encode(body)


def test_every_dialect_can_be_changed_trait_by_trait() -> None:
    assert dialect_of(httpx.URL("http://x"), "m", {"developer": "developer"}) == Dialect(
        developer="developer"
    )
