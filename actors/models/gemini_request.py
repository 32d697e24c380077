"""A call as Gemini's generateContent wants it.

Source: ai.google.dev, GenerateContentRequest. Its servers read proto3 JSON: camelCase.
"""

from collections.abc import Callable
from typing import Any

from actors.models.events import Call
from actors.models.merging import merge
from actors.models.objects import decode
from actors.models.ollama_request import name_of_call
from actors.models.openai_request import read_arguments
from actors.models.parts import Link, Load, Piece, as_text, load_pieces
from schemas.model import ToolCall, Utterance

CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
}
"""Settings, and what they are called in generationConfig."""
BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576}
MOST_BUDGET = 24576
"""Tokens of thinking for each effort, as Google's own endpoint for OpenAI's clients has them."""
MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
RULES = ("system", "developer")

Sign = Callable[[str], str]
"""Gives the signature that came with a tool call, by the call's id; empty if it is not known."""


async def build(call: Call, sign: Sign) -> dict[str, Any]:
    """The request's body. Raises UpstreamFault for what Gemini does not take."""
    contents: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    for said in call.messages:
        parts = await _write(said, call, sign)
        if said.role in RULES:
            rules += parts
        elif parts:
            _append(contents, "model" if said.role == "assistant" else "user", parts)
    if not contents:
        # There must be something to answer.
        contents, rules = [{"role": "user", "parts": rules}], []
    settings = {name: value for name, value in call.settings.items() if value is not None}
    body: dict[str, Any] = {"contents": contents, **_translate(settings)}
    if rules:
        body["systemInstruction"] = {"parts": rules}
    return merge(body, call.extra)


def _append(contents: list[dict[str, Any]], role: str, parts: list[dict[str, Any]]) -> None:
    """Put parts behind others of the same role: answers to calls made together belong together."""
    if contents and contents[-1]["role"] == role:
        contents[-1]["parts"] += parts
    else:
        contents.append({"role": role, "parts": parts})


async def _write(said: Utterance, call: Call, sign: Sign) -> list[dict[str, Any]]:
    if said.role == "tool":
        name = said.name or name_of_call(said.call, call.messages) or "tool"
        response = _read_result(as_text(said.content))
        return [{"functionResponse": {"name": name, "response": response}}]
    parts = await _write_content(said, call.load)
    return [*parts, *(_write_call(one, sign) for one in said.calls)]


async def _write_content(said: Utterance, load: Load) -> list[dict[str, Any]]:
    pieces = await load_pieces(said.content, load)
    # A part without text is an error to Gemini.
    return [_write_piece(piece) for piece in pieces if piece != ""]


def _write_piece(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"text": piece}
    if isinstance(piece, Link):
        return {"fileData": {"fileUri": piece.url}}
    return {"inlineData": {"mimeType": piece.media, "data": piece.base64}}


def _write_call(call: ToolCall, sign: Sign) -> dict[str, Any]:
    part = {"functionCall": {"name": call.name, "args": read_arguments(call.arguments)}}
    signature = sign(call.id)
    return {**part, "thoughtSignature": signature} if signature else part


def _read_result(text: str) -> dict[str, Any]:
    """A tool's answer as an object, which Gemini insists on."""
    try:
        found = decode(text)
    except ValueError:
        found = text
    return found if isinstance(found, dict) else {"result": found}


def _translate(settings: dict[str, Any]) -> dict[str, Any]:
    config = {CONFIG[name]: value for name, value in settings.items() if name in CONFIG}
    if stop := settings.get("stop"):
        config["stopSequences"] = [stop] if isinstance(stop, str) else stop
    if isinstance(effort := settings.get("reasoning_effort"), str):
        budget = BUDGETS.get(effort, MOST_BUDGET)
        config["thinkingConfig"] = {"includeThoughts": budget > 0, "thinkingBudget": budget}
    config |= _read_format(settings.get("response_format"))
    translated: dict[str, Any] = {"generationConfig": config} if config else {}
    if declared := _declare(settings.get("tools")):
        translated["tools"] = [{"functionDeclarations": declared}]
        translated |= _choose(settings.get("tool_choice"))
    return translated


def _read_format(wanted: Any) -> dict[str, Any]:
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return {}
    found = wanted.get("json_schema")
    schema = found.get("schema") if isinstance(found, dict) else None
    typed = {"responseMimeType": "application/json"}
    return typed | ({"responseJsonSchema": schema} if schema else {})


def _declare(tools: Any) -> list[dict[str, Any]]:
    """Functions as Gemini declares them; their parameters stay JSON schemas."""
    declared = []
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and function.get("name"):
            one = {"name": function["name"], "description": function.get("description") or ""}
            if schema := function.get("parameters"):
                one["parametersJsonSchema"] = schema
            declared.append(one)
    return declared


def _choose(choice: Any) -> dict[str, Any]:
    """Which of the functions may, or must, be called."""
    if isinstance(choice, dict):
        function = choice.get("function")
        named = function.get("name") if isinstance(function, dict) else None
        config: dict[str, Any] = {"mode": "ANY"}
        if named:
            config["allowedFunctionNames"] = [named]
    elif isinstance(choice, str) and choice in MODES:
        config = {"mode": MODES[choice]}
    else:
        return {}
    return {"toolConfig": {"functionCallingConfig": config}}
