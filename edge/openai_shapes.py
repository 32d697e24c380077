"""What clients of OpenAI's API send and get, field by field.

Source: OpenAI's API reference, as of its SDKs of 2026. Fields that are not here are ignored.
"""

from typing import Annotated, Any, Literal

import msgspec

from schemas.conversation import MOST_TASKS

MOST_MESSAGES = 4096
MOST_PARTS = 1024
MOST_TOOLS = 512

Short = Annotated[str, msgspec.Meta(max_length=512)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
FunctionName = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]

# -- asked ---------------------------------------------------------------------------------


class ImageURL(msgspec.Struct):
    """Where an image is: an address, or the image itself as a `data:` URL."""

    url: str
    detail: Word | None = None


class InputAudio(msgspec.Struct):
    """A recording in base64."""

    data: str
    format: Literal["wav", "mp3"]


class InputFile(msgspec.Struct):
    """A file: one that was uploaded before, or the file itself as a `data:` URL or base64."""

    file_id: Short | None = None
    file_data: str | None = None
    filename: Short | None = None


class TextPart(msgspec.Struct, tag="text", tag_field="type"):
    """A piece of text."""

    text: str


class RefusalPart(msgspec.Struct, tag="refusal", tag_field="type"):
    """What an assistant would not say."""

    refusal: str


class ImagePart(msgspec.Struct, tag="image_url", tag_field="type"):
    """An image."""

    image_url: ImageURL | str


class AudioPart(msgspec.Struct, tag="input_audio", tag_field="type"):
    """A recording."""

    input_audio: InputAudio


class FilePart(msgspec.Struct, tag="file", tag_field="type"):
    """Any other file."""

    file: InputFile


ContentPart = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class CalledFunction(msgspec.Struct):
    """A call as a model made it; `arguments` is JSON as text."""

    name: FunctionName
    arguments: str = "{}"


class Call(msgspec.Struct):
    """A call of a tool, which its result names by `id`."""

    id: Short
    function: CalledFunction
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, kw_only=True):
    """One message. Which fields it needs depends on its role; `function` is an old `tool`."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[ContentPart], msgspec.Meta(max_length=MOST_PARTS)] | None = None
    name: Short | None = None
    tool_calls: Annotated[list[Call], msgspec.Meta(max_length=MOST_TOOLS)] | None = None
    tool_call_id: Short | None = None
    function_call: CalledFunction | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class Function(msgspec.Struct, omit_defaults=True):
    """A function that a model may call; `parameters` is a JSON schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    """A tool that a model may call."""

    function: Function
    type: Literal["function"]


class ResponseFormat(msgspec.Struct, omit_defaults=True):
    """How the answer is to be written: as text, as JSON, or as JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class StreamOptions(msgspec.Struct):
    """What a stream has besides the answer."""

    include_usage: bool | None = None


class ChatRequest(msgspec.Struct, kw_only=True):
    """A chat completion, as it is asked for."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MOST_TASKS)] | None = None
    metadata: dict[str, Any] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=16)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], msgspec.Meta(max_length=MOST_TOOLS)] | None = None
    tool_choice: Word | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], msgspec.Meta(max_length=MOST_TOOLS)] | None = None
    function_call: Word | dict[str, Any] | None = None
    reasoning_effort: Word | None = None
    verbosity: Word | None = None
    user: Short | None = None


SETTINGS = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "user",
)
"""The fields of a request that say how to answer, as a prompt has them."""

# -- answered ------------------------------------------------------------------------------

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class PromptTokens(msgspec.Struct):
    """Of the tokens of a prompt."""

    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokens(msgspec.Struct):
    """Of the tokens of an answer."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class TokenUsage(msgspec.Struct, kw_only=True):
    """Tokens, as the provider counted them; of several choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens


class AnsweredMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a model answered. `reasoning_content` is what it thought, where it tells."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[Any]
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct, kw_only=True):
    """One of the answers."""

    index: int
    message: AnsweredMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The answer as a whole."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: TokenUsage


class FunctionDelta(msgspec.Struct, omit_defaults=True):
    """A piece of a call: its name comes with the first one."""

    name: str | None = None
    arguments: str = ""


class CallDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A piece of a call of a tool. `index` tells calls apart; `id` comes with the first one."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class MessageDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is added to a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallDelta] | None = None


class ChoiceDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is added to one of the answers; the last piece of each has its reason to end."""

    index: int
    delta: MessageDelta
    logprobs: None = None
    finish_reason: FinishReason | None


class ChatChunk(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One piece of a stream. `usage` is there only if `stream_options` asks for it."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChoiceDelta]
    usage: TokenUsage | None = None


# -- besides -------------------------------------------------------------------------------


class OpenAIFault(msgspec.Struct):
    """Why a request was not done. Programs decide by `code`; `param` is the field at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """How an error is told to clients of OpenAI's API."""

    error: OpenAIFault


class Model(msgspec.Struct, kw_only=True):
    """A model that may be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class Models(msgspec.Struct, kw_only=True):
    """All models that may be asked."""

    object: Literal["list"] = "list"
    data: list[Model]
