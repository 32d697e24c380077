"""A call as Ollama's own /api/chat wants it.

Source: ollama/ollama, api/types.go and docs/api.md.
"""

from typing import Any

from actors.models.events import Call
from actors.models.faults import UpstreamFault
from actors.models.merging import merge
from actors.models.openai_request import read_arguments
from actors.models.parts import Blob, Load, as_text, load_pieces, refuse
from schemas.model import Utterance

OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
}
"""Settings, and what they are called among Ollama's options; the rest it has no words for."""
EFFORTS: dict[str, str | bool] = {"none": False, "minimal": "low", "xhigh": "max"}


async def build(call: Call) -> dict[str, Any]:
    """The request's body. Raises UpstreamFault for what Ollama does not take."""
    settings = {name: value for name, value in call.settings.items() if value is not None}
    body: dict[str, Any] = {
        "model": call.model,
        "messages": [await _write(one, call.messages, call.load) for one in call.messages],
        "stream": True,
        **_translate(settings),
    }
    return merge(body, call.extra)


def _translate(settings: dict[str, Any]) -> dict[str, Any]:
    options = {OPTIONS[name]: value for name, value in settings.items() if name in OPTIONS}
    translated: dict[str, Any] = {"options": options} if options else {}
    if settings.get("tools") and settings.get("tool_choice") != "none":
        translated["tools"] = settings["tools"]
    if (form := _read_format(settings.get("response_format"))) is not None:
        translated["format"] = form
    if isinstance(effort := settings.get("reasoning_effort"), str):
        translated["think"] = EFFORTS.get(effort, effort)
    return translated


def _read_format(wanted: Any) -> Any:
    """Ollama's word for a response format, None for plain text."""
    if not isinstance(wanted, dict):
        return None
    if wanted.get("type") == "json_object":
        return "json"
    if wanted.get("type") == "json_schema":
        schema = wanted.get("json_schema")
        found = schema.get("schema") if isinstance(schema, dict) else None
        if not isinstance(found, dict):
            raise UpstreamFault("bad_request", "response_format: json_schema.schema is missing")
        return found
    return None


async def _write(said: Utterance, all_said: tuple[Utterance, ...], load: Load) -> dict[str, Any]:
    if said.role == "tool":
        name = said.name or name_of_call(said.call, all_said)
        answer = {"role": "tool", "content": as_text(said.content), "tool_call_id": said.call}
        return answer | ({"tool_name": name} if name else {})
    role = "system" if said.role == "developer" else said.role
    written: dict[str, Any] = {"role": role, **await _write_content(said, load)}
    if said.calls:
        written["tool_calls"] = [
            {
                "id": one.id,
                "function": {"name": one.name, "arguments": read_arguments(one.arguments)},
            }
            for one in said.calls
        ]
        if said.reasoning:
            written["thinking"] = said.reasoning
    return written


async def _write_content(said: Utterance, load: Load) -> dict[str, Any]:
    pieces = await load_pieces(said.content, load)
    images = []
    for piece in pieces:
        if isinstance(piece, Blob) and piece.is_image:
            images.append(piece.base64)
        elif not isinstance(piece, str):
            raise refuse(piece, "Ollama")
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    return {"content": text} | ({"images": images} if images else {})


def name_of_call(call: str, all_said: tuple[Utterance, ...]) -> str:
    """The name of the tool that a call was of: providers want it where OpenAI has the id."""
    made = (one for said in reversed(all_said) for one in said.calls)
    return next((one.name for one in made if one.id == call), "")
