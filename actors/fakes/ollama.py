"""Ollama's own wire: a line of JSON for each piece. Its imitation of OpenAI's is beside it.

Source: ollama fb3076099 (api/types.go, server/routes.go); its Python client 0.6.3.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from actors.fakes.completion import last_said, said_by
from actors.fakes.frames import Answer, Frame, Lines, Streamed, Whole, encode, frame
from actors.fakes.ledger import Asked
from actors.fakes.openai import OllamaV1
from actors.fakes.script import CREATED, THOUGHTS, Script, pieces
from actors.fakes.switches import number

MENU = {
    "load": "no answer but done_reason load",
    "no-counts": "no prompt_eval_count, as for a prompt that is cached",
    "finish": "the done_reason named (length)",
    "reasoning": "thoughts first, asked for or not",
    "tools": "so many (1) tool calls",
    "no-thinking": "400: the model cannot think",
    "no-model": "there is no such model",
    "models": "a fault for the list of models: models=500",
}
MESSAGES = {
    400: "invalid request",
    401: "unauthorized",
    404: "model 'x' not found",
    429: "you have reached your usage limit",
    503: "server busy, please try again.  maximum pending requests exceeded",
}
VERSION = "0.12.9"


class Ollama:
    """A server of Ollama's: /api, and /v1 beside it."""

    base = ""
    menu = OllamaV1.menu | MENU

    def __init__(self, script: Script) -> None:
        self._script = script
        self._imitation = OllamaV1(script)

    def model_of(self, asked: Asked) -> str | None:
        if asked.path.startswith("/v1/"):
            return self._imitation.model_of(asked)
        if asked.method != "POST" or asked.path != "/api/chat":
            return None
        return str(asked.body.get("model", "")) if isinstance(asked.body, dict) else ""

    def part_of(self, asked: Asked) -> str:
        return "models"

    def failure(self, asked: Asked, status: int, hint: str = "", message: str = "") -> Answer:
        if asked.path.startswith("/v1/"):
            return self._imitation.failure(asked, status, hint, message)
        said = message or MESSAGES.get(status, "internal server error")
        return _error(status, said.replace("'x'", f"'{asked.model}'"))

    def answer(self, asked: Asked) -> Answer:
        if asked.path.startswith("/v1/"):
            return self._imitation.answer(asked)
        if asked.generates:
            return self._refused(asked) or self._chat(asked)
        match asked.method, asked.path:
            case "GET" | "HEAD", "/":
                return Whole(200, b"Ollama is running", media="text/plain; charset=utf-8")
            case "GET", "/api/version":
                return Whole(200, encode({"version": VERSION}))
            case "GET", "/api/tags":
                models = self._script.models or ("demo-1",)
                return Whole(200, encode({"models": [_listed(name) for name in models]}))
        return Whole(404, b"404 page not found", media="text/plain")

    def _refused(self, asked: Asked) -> Whole | None:
        """What is wrong with a question, or said to be."""
        unknown = self._script.models and asked.model not in self._script.models
        if unknown or "no-model" in asked.switches:
            return _error(404, f"model '{asked.model}' not found")
        if not isinstance(asked.body, dict) or not asked.model:
            return _error(400, "model is required")
        if asked.body.get("think") and "no-thinking" in asked.switches:
            return _error(400, f'"{asked.model}" does not support thinking')
        for message in asked.body.get("messages") or ():
            if wrong := _wrong(message):
                return _error(400, f"json: cannot unmarshal {wrong}")
        return None

    def _chat(self, asked: Asked) -> Answer:
        chat = Chat(asked, self._script)
        if asked.body.get("stream", True):
            mishap = (frame({"error": "an error was encountered while running the model"}, "end"),)
            render = Lines(asked.switches)
            return Streamed(chat.frames(), render, mishap, media="application/x-ndjson")
        return Whole(200, encode(chat.whole()), media="application/json; charset=utf-8")


class Chat:
    """What is said to one question."""

    def __init__(self, asked: Asked, script: Script) -> None:
        self._asked = asked
        self._script = script
        self._switches = asked.switches
        self._said = 0

    def frames(self) -> Iterator[Frame]:
        if self._loads():
            yield frame(self._last("load"), "end")
            return
        for message in self._messages():
            self._said += 1
            yield frame(self._line(message) | {"done": False})
        yield frame(self._last(self._reason()), "end")

    def whole(self) -> dict[str, Any]:
        """The same as one object."""
        if self._loads():
            return self._last("load")
        said: dict[str, Any] = {"role": "assistant", "content": ""}
        for message in self._messages():
            self._said += 1
            said |= {
                name: said.get(name, type(message[name])()) + message[name] for name in message
            }
        return self._last(self._reason()) | {"message": said | {"role": "assistant"}}

    def _messages(self) -> Iterator[dict[str, Any]]:
        if self._asked.body.get("think") or "reasoning" in self._switches:
            for text in THOUGHTS:
                yield {"content": "", "thinking": text}
        if "tools" in self._switches:
            for place in range(int(number(self._switches, "tools", 1))):
                yield {"content": "", "tool_calls": [self._call(place)]}
            return
        for text in pieces(self._asked, self._script, last_said(self._asked.body)):
            yield {"content": text}

    def _call(self, place: int) -> dict[str, Any]:
        tools = self._asked.body.get("tools") or [{"function": {"name": "get_weather"}}]
        name = tools[0]["function"]["name"]
        function = {"index": place, "name": name, "arguments": {"city": "Paris"}}
        return {"id": f"call_{place}", "function": function}

    def _line(self, message: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        said = {"role": "assistant", "content": ""} | message
        return {"model": self._asked.model, "created_at": now, "message": said}

    def _last(self, reason: str) -> dict[str, Any]:
        said = self._line({}) | {"done": True, "done_reason": reason}
        if reason == "load":
            return said
        messages = self._asked.body["messages"]
        counts = {
            "total_duration": 1_900_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": sum(len(said_by(each).split()) for each in messages),
            "prompt_eval_duration": 5_000_000,
            "eval_count": self._said,
            "eval_duration": 90_000_000,
        }
        if "no-counts" in self._switches:
            del counts["prompt_eval_count"]
        return said | counts

    def _loads(self) -> bool:
        return "load" in self._switches or not self._asked.body.get("messages")

    def _reason(self) -> str:
        return self._switches["finish"] or "length" if "finish" in self._switches else "stop"


def _wrong(message: dict[str, Any]) -> str:
    """What Ollama's server cannot decode of a message; empty if it can."""
    if not isinstance(message.get("content", ""), str):
        return "array into Go struct field ChatRequest.messages.content of type string"
    for call in message.get("tool_calls") or ():
        if not isinstance(call["function"].get("arguments", {}), dict):
            return "string into Go struct field .messages.tool_calls.function.arguments"
    return ""


def _listed(name: str) -> dict[str, Any]:
    when = datetime.fromtimestamp(CREATED, UTC).isoformat()
    details = {
        "parent_model": "",
        "format": "gguf",
        "family": "fake",
        "families": ["fake"],
        "parameter_size": "1B",
        "quantization_level": "Q4_K_M",
    }
    digest = "0" * 64
    known = {"modified_at": when, "size": 1, "digest": digest, "details": details}
    return {"name": name, "model": name} | known


def _error(status: int, message: str) -> Whole:
    return Whole(status, encode({"error": message}), media="application/json; charset=utf-8")
