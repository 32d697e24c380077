"""Which class speaks which provider's wire, and what each provider's upstreams are by default.

An adapter is imported when a deployment asks for it.
"""

import importlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

from actors.models.events import Adapter, Timeouts
from runtime.errors import ConfigError

Name: TypeAlias = Literal["echo", "openai", "ollama", "gemini", "coze"]


_PATIENT = Timeouts()


@dataclass(frozen=True)
class Provider:
    """One provider: its adapter as `module:Class` (made without arguments), where it is by
    default, and how long it is waited for."""

    adapter: str
    url: str = ""
    timeouts: Timeouts = _PATIENT


PROVIDERS: dict[Name, Provider] = {
    "echo": Provider("actors.models.echo:Echo"),
    "openai": Provider("actors.models.openai:OpenAI", "https://api.openai.com/v1"),
    "ollama": Provider("actors.models.ollama:Ollama", "http://127.0.0.1:11434"),
    "gemini": Provider(
        "actors.models.gemini:Gemini", "https://generativelanguage.googleapis.com/v1beta"
    ),
    "coze": Provider(
        "actors.models.coze:Coze",
        "https://api.coze.com",
        Timeouts(connect=5, first=30, idle=30, write=10, pool=10),
    ),
}


def make_adapter(name: Name) -> Adapter:
    """The adapter of a provider; raises ConfigError if this installation has none."""
    module, _, cls = PROVIDERS[name].adapter.partition(":")
    try:
        made: Adapter = getattr(importlib.import_module(module), cls)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"provider = {name!r}: its adapter cannot be loaded: {error}") from None
    return made
