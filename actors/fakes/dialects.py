"""In what those who speak OpenAI's wire differ from each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.fakes.frames import Frame, frame
from actors.fakes.script import CREATED

MESSAGE = "The server had an error while processing your request"


@dataclass(frozen=True)
class Dialect:
    """One provider's way. `reasoning` is the field of thoughts, `nulls` whether the other field
    is null meanwhile; `fragments` whether tool calls come in pieces, `many` whether `n` counts."""

    base: str
    reasoning: str
    mishap: Callable[[str], tuple[Frame, ...]]
    fingerprint: str = "fp_fake"
    nulls: bool = False
    fragments: bool = True
    many: bool = True
    collides: bool = False
    cached: bool = False
    balance: str = ""
    error: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda status, said: said


def _openai_mishap(name: str) -> tuple[Frame, ...]:
    said = {"message": MESSAGE, "type": "server_error", "param": None, "code": None}
    return (frame({"error": said}, "end"),)


def _vllm_mishap(name: str) -> tuple[Frame, ...]:
    said = {"message": MESSAGE, "type": "InternalServerError", "param": None, "code": 500}
    return frame({"error": said}, "end"), Frame(b"[DONE]", phase="end")


def _ollama_mishap(name: str) -> tuple[Frame, ...]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    said = {
        "id": name,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "",
        "system_fingerprint": "fp_ollama",
        "choices": [choice],
    }
    return (frame(said, "end"),)


def _ollama_error(status: int, said: dict[str, Any]) -> dict[str, Any]:
    kinds = {404: "not_found_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "api_error")
    return said | {"type": kind, "code": None}


def _vllm_error(status: int, said: dict[str, Any]) -> dict[str, Any]:
    kinds = {400: "BadRequestError", 404: "NotFoundError", 401: "AuthenticationError"}
    return said | {"type": kinds.get(status, "InternalServerError"), "code": status}


OPENAI = Dialect("/v1", "reasoning_content", _openai_mishap)
DEEPSEEK = Dialect(
    "",
    "reasoning_content",
    _openai_mishap,
    nulls=True,
    cached=True,
    balance="Insufficient Balance",
)
QWEN = Dialect("/compatible-mode/v1", "reasoning_content", _openai_mishap, nulls=True)
VLLM = Dialect("/v1", "reasoning", _vllm_mishap, error=_vllm_error)
OLLAMA = Dialect(
    "/v1",
    "reasoning",
    _ollama_mishap,
    fingerprint="fp_ollama",
    fragments=False,
    many=False,
    collides=True,
    error=_ollama_error,
)
