"""Models that nobody has configured: an Ollama on this machine, and services the environment names.

Each becomes a deployment as if the configuration had named it; what is configured goes before.
"""

import asyncio
import hashlib
import ipaddress
import os
import re
from collections.abc import Collection, Iterable, Mapping

import httpx
import msgspec
import structlog

from runtime.actor_table import ActorTable
from runtime.errors import ConfigError
from runtime.system import load_class
from runtime.terminal import workflow_offer as workflow
from runtime.terminal.manifest import deployment_of
from schemas.deployment import Deployment

log = structlog.get_logger()

DISCOVER = "CALLBOARD_DISCOVER"
"""Set for the first host that `callboard up` starts: it looks for an Ollama."""
OLLAMA_HOST = "OLLAMA_HOST"
OLLAMA_PORT = 11434
WITHIN = 1.0
MOST_MODELS = 64
MOST_BYTES = 1024 * 1024
LONGEST = 31
MODEL = "actors.model:Model"
ENDPOINT = "/chat/completions"

SERVICES = {
    "deepseek": ("DEEPSEEK", "deepseek-r1:1.5b", ("*deepseek*",)),
    "qwen": ("LLM", "qwen2.5:1.5b", ("*qwen*", "*千问*")),
}
"""By name: how its variables begin, the model by default, and what else it answers to.

`…_SERVICE_URL` is where it is, `…_MODEL` its model there, `…_API_KEY` its key if it needs one.
"""


class _Details(msgspec.Struct):
    family: str = ""


class _Found(msgspec.Struct):
    name: str
    details: _Details = msgspec.field(default_factory=_Details)


class _Tags(msgspec.Struct):
    """What Ollama answers to GET /api/tags."""

    models: list[_Found] = []


def named_services(environ: Mapping[str, str], configured: Collection[str]) -> list[Deployment]:
    """The services that the environment names, unless an actor of that name is configured.

    Raises ConfigError for an address that cannot be one, and for half a workflow at Coze.
    """
    found = []
    for name, (prefix, model, aliases) in SERVICES.items():
        variable = f"{prefix}_SERVICE_URL"
        url = environ.get(variable, "").strip().rstrip("/").removesuffix(ENDPOINT)
        if not url or name in configured:
            continue
        upstream = {"url": url}
        if environ.get(f"{prefix}_API_KEY"):
            upstream["key_env"] = f"{prefix}_API_KEY"
        options = {
            "provider": "openai",
            "model": environ.get(f"{prefix}_MODEL") or model,
            "aliases": list(aliases),
            "upstreams": [upstream],
        }
        try:
            found.append(_deploy(name, options))
        except ConfigError as error:
            raise ConfigError(f"{variable}: {error}") from None
    return [*found, *_named_workflow(environ, configured)]


def _named_workflow(environ: Mapping[str, str], configured: Collection[str]) -> list[Deployment]:
    if workflow.NAME in configured:
        return []
    options = workflow.workflow_options(environ)
    if options is None:
        return []
    try:
        return [_deploy(workflow.NAME, options, concurrency=workflow.CONCURRENCY)]
    except ConfigError as error:
        raise ConfigError(f"{workflow.WORKFLOW} and its companions: {error}") from None


async def discover(
    environ: Mapping[str, str], deployed: Mapping[str, Deployment]
) -> list[Deployment]:
    """What an Ollama on this machine has, as far as it is not deployed already; says so once."""
    url = ollama_url(environ)
    if not url:
        return []
    names = _by_name(await _ask(url))
    known = {str(one.options.get("model")) for name, one in deployed.items() if name not in names}
    offers = {name: model for name, model in names.items() if model not in known}
    if offers:
        log.info(
            "ollama_found",
            url=url,
            models=sorted(offers.values()),
            switch_off="[models] discover = false",
        )
    options = {"provider": "ollama", "upstreams": [{"url": url}], "owned_by": "ollama"}
    return [_deploy(name, {**options, "model": model}) for name, model in offers.items()]


def ollama_url(environ: Mapping[str, str]) -> str:
    """Where Ollama listens by its own variable; empty unless that is this machine's loopback.

    It may say `host`, `host:port`, `:port`, or a URL; a wildcard means loopback as well.
    """
    text = environ.get(OLLAMA_HOST, "").strip() or "127.0.0.1"
    try:
        parsed = httpx.URL(text if "://" in text else f"http://{text}")
        port = parsed.port or ({"http": 80, "https": 443}[parsed.scheme] if "://" in text else 0)
    except (httpx.InvalidURL, KeyError):
        log.warning("ollama_host_unreadable", expected="host:port or a URL")
        return ""
    host = parsed.host or "127.0.0.1"
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    if parsed.userinfo or not _is_loopback(host):
        log.info("ollama_not_looked_for", why=f"{OLLAMA_HOST} is not on loopback")
        return ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parsed.scheme}://{shown}:{port or OLLAMA_PORT}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _ask(url: str) -> Iterable[str]:
    """The chat models that an Ollama has; none if there is no Ollama."""
    try:
        async with asyncio.timeout(WITHIN):
            found = await _read_tags(url)
    except (httpx.HTTPError, OSError, ValueError) as error:
        log.debug("no_ollama", url=url, error=type(error).__name__)
        return []
    # What only turns text into numbers cannot answer.
    chats = [one.name for one in found if "bert" not in one.details.family]
    return sorted(name for name in chats if name and "embed" not in name)[:MOST_MODELS]


async def _read_tags(url: str) -> list[_Found]:
    body = b""
    # The environment's proxies have no business between a machine and itself.
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("GET", f"{url}/api/tags") as response,
    ):
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
    return msgspec.json.decode(body, type=_Tags).models if response.is_success else []


def _by_name(models: Iterable[str]) -> dict[str, str]:
    """Models by the names that their actors get."""
    names: dict[str, str] = {}
    for model in models:
        plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
        name = f"ollama-{plain}"
        if len(name) > LONGEST or name in names:
            name = f"{name[: LONGEST - 7]}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"
        names[name] = model
    return names


def _deploy(name: str, options: Mapping[str, object], *, concurrency: int = 16) -> Deployment:
    table = ActorTable(name=name, type=MODEL, options=dict(options), concurrency=concurrency)
    return deployment_of(table, load_class(name, MODEL))


def is_asked_for() -> bool:
    """Whether this process is the one that looks."""
    return bool(os.environ.get(DISCOVER))
