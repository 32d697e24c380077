"""The wire of OpenAI's chat completions, in the dialects of five providers.

Sources: openai-python 3.52.0, Ollama fb3076099 (/v1), the documents of DeepSeek, Qwen and vLLM.
"""

from typing import Any

from actors.fakes.completion import Completion
from actors.fakes.dialects import DEEPSEEK, OLLAMA, OPENAI, QWEN, VLLM, Dialect
from actors.fakes.frames import Answer, EventStream, Frame, Streamed, Whole, encode
from actors.fakes.ledger import Asked
from actors.fakes.retry import hints
from actors.fakes.script import CREATED, Script

MENU = {
    "usage": "usage at the end though nobody asked",
    "no-usage": "no usage though asked",
    "tools": "so many (1) tool calls, in fragments",
    "obfuscation": "a random field in each chunk",
    "reasoning": "thoughts first: in the dialect's field, or the one named, or think, lone",
    "split-think": "thoughts in tags that are split between chunks",
    "refusal": "a refusal instead of text",
    "finish": "the finish_reason named (length)",
    "no-finish": "[DONE] without a finish_reason",
    "no-done": "no [DONE]",
    "quota": "no money left",
    "context": "the question is too long",
    "key": "the key is wrong",
    "no-model": "there is no such model",
    "wait": "so many (60) blank lines, or comments, before the answer",
    "models": "a fault for the list of models: models=500, or models=hold&500",
    "reasoning-missing": "400: reasoning was not passed back",
}

CODES = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist"),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached"),
    503: ("server_error", "server_is_overloaded", "The engine is currently overloaded"),
}
NAMED = {
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota"),
    "context": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens",
    ),
    "key": (401, *CODES[401]),
    "no-model": (404, *CODES[404]),
    "reasoning-missing": (
        400,
        "invalid_request_error",
        "invalid_request_error",
        "The reasoning_content in the thinking mode must be passed back to the API.",
    ),
}


class OpenAI:
    """OpenAI itself."""

    dialect: Dialect = OPENAI
    menu = MENU

    def __init__(self, script: Script) -> None:
        self._script = script

    @property
    def base(self) -> str:
        return self.dialect.base

    def model_of(self, asked: Asked) -> str | None:
        if asked.method != "POST" or not asked.path.endswith("/chat/completions"):
            return None
        return str(asked.body.get("model", "")) if isinstance(asked.body, dict) else ""

    def part_of(self, asked: Asked) -> str:
        return "models"

    def answer(self, asked: Asked) -> Answer:
        if self._script.key and asked.secret != self._script.key:
            return self._named("key")
        if asked.generates:
            return self._refused(asked) or self._completion(asked)
        _, found, name = asked.path.rpartition("/models")
        if asked.method == "GET" and found:
            return self._models(name.removeprefix("/"))
        return self.failure(asked, 404, message=f"Invalid URL ({asked.method} {asked.path})")

    def failure(self, asked: Asked, status: int, hint: str = "", message: str = "") -> Whole:
        known = CODES.get(status, ("invalid_request_error" if status < 500 else "server_error",))
        kind, code, text = (*known, None, f"The fake says {status}")[:3]
        return self._error(status, kind, code, message or text, hints(hint))

    def _error(
        self,
        status: int,
        kind: str,
        code: str | None,
        message: str | None,
        headers: dict[str, str] | None = None,
    ) -> Whole:
        said = {"message": message, "type": kind, "param": None, "code": code}
        body = encode({"error": self.dialect.error(status, said)})
        return Whole(status, body, {"x-request-id": "req_fake"} | (headers or {}))

    def _named(self, name: str) -> Whole:
        status, kind, code, message = NAMED[name]
        if name == "quota" and self.dialect.balance:
            return self._error(402, "unknown_error", "invalid_request_error", self.dialect.balance)
        return self._error(status, kind, code, message)

    def _refused(self, asked: Asked) -> Whole | None:
        """What is wrong with a question, or said to be."""
        if named := next((name for name in NAMED if name in asked.switches), ""):
            return self._named(named)
        if not isinstance(asked.body, dict):
            return self.failure(asked, 400, message="We could not parse the JSON body")
        for wanted in ("model", "messages"):
            if not asked.body.get(wanted):
                message = f"Missing required parameter: '{wanted}'."
                return self.failure(asked, 400, message=message)
        if self._script.models and asked.model not in self._script.models:
            return self._named("no-model")
        return None

    def _completion(self, asked: Asked) -> Answer:
        made = Completion(asked, self._script, self.dialect)
        headers = {"x-request-id": f"req_{asked.number}", "openai-version": "2020-10-01"}
        if asked.body.get("stream"):
            render = EventStream(asked.switches)
            return Streamed(made.frames(), render, self.dialect.mishap(made.name), headers=headers)
        body = encode(made.whole())
        if "wait" not in asked.switches:
            return Whole(200, body, headers)
        signs = [Frame(b"\n", phase="wait", raw=True)] * int(asked.switches["wait"] or 60)
        frames = [*signs, Frame(body, raw=True)]
        return Streamed(frames, lambda said: said.data, media="application/json", headers=headers)

    def _models(self, wanted: str) -> Whole:
        models = [model_object(name) for name in self._script.models or ("demo-1",)]
        if not wanted:
            return Whole(200, encode({"object": "list", "data": models}))
        found = [model for model in models if model["id"] == wanted]
        return Whole(200, encode(found[0])) if found else self._named("no-model")


class DeepSeek(OpenAI):
    """DeepSeek: thinks in reasoning_content, and says so while it waits for room."""

    dialect = DEEPSEEK


class Qwen(OpenAI):
    """Qwen by DashScope."""

    dialect = QWEN


class Vllm(OpenAI):
    """vLLM: says [DONE] after an error too."""

    dialect = VLLM


class OllamaV1(OpenAI):
    """Ollama's imitation: its ids collide, and it fails by an empty chunk."""

    dialect = OLLAMA


def model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "fake"}
