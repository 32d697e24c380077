"""How servers that all speak OpenAI's chat completions differ, as data.

Which one a server speaks is seen by its host or the model's name; a deployment may say it, or
single traits of it (`Call.dialect`).
"""

from typing import Any, Literal

import httpx
import msgspec

from actors.models.faults import UpstreamFault
from actors.models.think import Thinks


class Dialect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The traits of one server.

    `reasoning_back`: whether what a model thought earlier is sent back to it, always or only
    once tools were called. `thinks`: what to expect of a text if reasoning has no field
    of its own (think.py). `efforts` renames values of `reasoning_effort`; `unthinking` is sent
    instead of the effort `none`. `length` is the name of the limit of an answer's tokens.
    `remote_images` and `documents`: whether URLs of images, and files such as PDFs, are taken.
    """

    developer: Literal["developer", "system"] = "system"
    reasoning_back: Literal["never", "with_calls", "always"] = "never"
    thinks: Thinks = "tags"
    length: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    efforts: dict[str, str] = {}
    unthinking: dict[str, Any] = {}
    remote_images: bool = True
    documents: bool = True


_DEEPSEEK = Dialect(
    reasoning_back="with_calls",
    efforts={"minimal": "low", "medium": "high", "xhigh": "high", "ultra": "max"},
    unthinking={"thinking": {"type": "disabled"}},
    documents=False,
)
DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(developer="developer", length="max_completion_tokens", thinks="never"),
    "deepseek": _DEEPSEEK,
    # Models until 2025 answered 400 to any reasoning that came back.
    "deepseek-reasoner": msgspec.structs.replace(_DEEPSEEK, reasoning_back="never"),
    "qwen": Dialect(unthinking={"enable_thinking": False}, documents=False),
    "vllm": Dialect(
        unthinking={"chat_template_kwargs": {"enable_thinking": False}}, documents=False
    ),
    "ollama": Dialect(
        efforts={"minimal": "low", "xhigh": "max"}, remote_images=False, documents=False
    ),
    "compatible": Dialect(),
}
_HOSTS = {
    "api.openai.com": "openai",
    "api.deepseek.com": "deepseek",
    "dashscope.aliyuncs.com": "qwen",
    "dashscope-intl.aliyuncs.com": "qwen",
    "ollama.com": "ollama",
}
_OLLAMA = 11434
_MODELS = (("deepseek-reasoner", "deepseek-reasoner"), ("deepseek", "deepseek"))


def dialect_of(url: httpx.URL, model: str, said: dict[str, Any]) -> Dialect:
    """The dialect of a server. Raises UpstreamFault for one that does not exist."""
    try:
        return read_dialect({"name": _guess(url, model), **said})
    except ValueError as error:
        raise UpstreamFault("bad_request", str(error)) from None


def read_dialect(said: dict[str, Any]) -> Dialect:
    """The dialect of a `name` ("compatible" without one), with single traits of its own.

    Raises ValueError for a name or a trait that does not exist.
    """
    traits = {name: value for name, value in said.items() if name != "name"}
    name = said.get("name", "compatible")
    known = DIALECTS.get(name) if isinstance(name, str) else None
    if known is None:
        raise ValueError(f"dialect {name!r}, expected one of {', '.join(DIALECTS)}")
    try:
        return msgspec.convert(msgspec.to_builtins(known) | traits, Dialect) if traits else known
    except msgspec.ValidationError as error:
        raise ValueError(f"dialect: {error}") from None


def _guess(url: httpx.URL, model: str) -> str:
    if url.host in _HOSTS:
        return _HOSTS[url.host]
    if url.port == _OLLAMA:
        return "ollama"
    return next((name for start, name in _MODELS if model.lower().startswith(start)), "compatible")
