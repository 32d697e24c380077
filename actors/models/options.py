"""What a deployment of a model may say in its `options`, and what is wrong with it."""

import ipaddress
import os
import re
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, TypeAlias, dataclass_transform

import msgspec

from actors.models.coze_access import check_coze
from actors.models.dialects import read_dialect
from actors.models.echo import check_extra
from actors.models.events import Timeouts, Upstream
from actors.models.providers import PROVIDERS, Name
from actors.models.refusals import RefusalOptions
from actors.outside import check_url
from runtime.config import duration
from runtime.errors import ConfigError
from runtime.log import mask
from schemas.subjects import ACTOR_NAME

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL = ("127.0.0.0/8", "::1/128")
MARGIN = 10
"""Seconds of a deployment's `deadline` for what is done before and after asking a model."""
_NAME = re.compile(r"[!-~]{1,64}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

Weight = Annotated[float, msgspec.Meta(gt=0, le=1000)]
Paths = Annotated[int, msgspec.Meta(ge=0, le=1000)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the options."""


class UpstreamOptions(_Table):
    """A place to ask. `paths` is how many calls each host may have under way there, 0 for any
    number; `key_env` names the variable with the key."""

    url: str = ""
    key_env: str = ""
    name: str = ""
    weight: Weight = 1.0
    paths: Paths = 0


class BreakerOptions(_Table):
    """After how many faults in a row an upstream is left alone, and for how long."""

    faults: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    rest: str = "10s"


class ContextOptions(_Table):
    """How much of what was said before a model is given: turns, and tokens of them at most."""

    turns: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    tokens: Annotated[int, msgspec.Meta(ge=0)] = 32_000


class RegistryOptions(_Table):
    """In which networks nodes must be that offer themselves."""

    networks: tuple[str, ...] = LOCAL


class ModelOptions(_Table):
    """How a model is deployed; docs/models.md explains every field."""

    provider: Name
    model: str = ""
    id: str = ""
    aliases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    owned_by: str = "callboard"
    upstreams: tuple[UpstreamOptions, ...] = ()
    registry: bool | RegistryOptions = False
    timeout: str = "300s"
    connect: str = ""
    first: str = ""
    idle: str = ""
    tries: Annotated[int, msgspec.Meta(ge=1, le=10)] = 2
    breaker: BreakerOptions = BreakerOptions()
    context: ContextOptions = ContextOptions()
    system: str = ""
    settings: dict[str, Any] = {}
    limits: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    extra: dict[str, Any] = {}
    dialect: dict[str, Any] = {}
    refusals: bool | RefusalOptions = True

    def __post_init__(self) -> None:
        for name in ("timeout", "connect", "first", "idle"):
            if text := getattr(self, name):
                _at(name, duration, text)
        _at("breaker.rest", duration, self.breaker.rest)
        for name in self.fallbacks:
            if not ACTOR_NAME.fullmatch(name):
                raise ValueError(f"fallbacks: {name!r}: expected the name of a deployment")
        _check_upstreams(self)
        _check_provider(self)
        if isinstance(self.registry, RegistryOptions):
            for network in self.registry.networks:
                _at("registry.networks", ipaddress.ip_network, network)


class Terms:
    """ModelOptions as they are used: seconds, networks, keys."""

    def __init__(self, options: ModelOptions) -> None:
        """Reads the keys; raises ConfigError for a variable that is not set."""
        self.options = options
        self.provider = PROVIDERS[options.provider]
        self.total = duration(options.timeout).total_seconds()
        self.rest = duration(options.breaker.rest).total_seconds()
        self.upstreams = tuple(
            (self._upstream(one, n), one) for n, one in enumerate(_all_upstreams(options))
        )

    @cached_property
    def timeouts(self) -> Timeouts:
        """The provider's, as far as the options say nothing else; the first piece of an answer
        may take as long as the whole."""
        given = {
            name: duration(text).total_seconds()
            for name in ("connect", "first", "idle")
            if (text := getattr(self.options, name))
        }
        default = self.provider.timeouts
        if default.first == Timeouts.first:
            default = replace(default, first=self.total)
        return replace(default, **given)

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """Where nodes may be that offer themselves; none if no offer is taken."""
        registry = self.options.registry
        if registry is False:
            return ()
        named = registry.networks if isinstance(registry, RegistryOptions) else LOCAL
        return tuple(ipaddress.ip_network(one) for one in named)

    def _upstream(self, one: UpstreamOptions, number: int) -> Upstream:
        key = ""
        if one.key_env:
            key = os.environ.get(one.key_env, "").strip()
            if not key:
                raise ConfigError(
                    f"upstreams[{number}].key_env: the environment variable {one.key_env} is"
                    " missing or empty; set it where this host runs"
                )
            mask(key)
        url = one.url or self.provider.url
        return Upstream(url=url.rstrip("/"), key=key, name=one.name or name_of(url))


def name_of(url: str) -> str:
    """What an upstream is called that was given no name: its host and port."""
    return check_url(url, allow_private=True).netloc.decode("ascii") if url else "built-in"


def check_deadline(options: ModelOptions, deadline: float) -> None:
    """Raise ValueError unless an answer has its time within an attempt's."""
    needed = duration(options.timeout).total_seconds() + MARGIN
    if deadline < needed:
        raise ValueError(
            f"timeout = {options.timeout!r} does not fit into the deployment's deadline of"
            f' {deadline:g}s; set deadline = "{needed:g}s" or more, or a shorter timeout'
        )


def _all_upstreams(options: ModelOptions) -> tuple[UpstreamOptions, ...]:
    """Those named; else the provider's own, unless others are to offer themselves."""
    return options.upstreams or (() if options.registry else (UpstreamOptions(),))


def _check_upstreams(options: ModelOptions) -> None:
    seen: set[str] = set()
    for number, one in enumerate(options.upstreams):
        where = f"upstreams[{number}]"
        if one.key_env and not _VARIABLE.fullmatch(one.key_env):
            raise ValueError(
                f"{where}.key_env: expected the name of a variable in capitals, such as"
                " OPENAI_API_KEY; a key itself belongs in no file"
            )
        url = one.url or PROVIDERS[options.provider].url
        if url:
            parsed = _at(f"{where}.url", lambda text: check_url(text, allow_private=True), url)
            if parsed.query:
                raise ValueError(f"{where}.url: leave out what follows the ?; keys go to key_env")
        name = one.name or name_of(url)
        if not _NAME.fullmatch(name):
            raise ValueError(f"{where}.name: {name!r}: expected up to 64 letters, without spaces")
        if name in seen:
            raise ValueError(f"{where}: {name!r} is there twice; give each a name of its own")
        seen.add(name)


def _check_provider(options: ModelOptions) -> None:
    if options.provider == "echo":
        if options.upstreams or options.registry:
            raise ValueError("upstreams: echo is built in, and asks nobody; leave them out")
        check_extra(options.extra)
    elif options.provider != "ollama" and not options.upstreams and not options.registry:
        raise ValueError('upstreams: expected at least one, such as [{ key_env = "…" }]')
    if options.provider == "coze":
        check_coze(options.model, options.extra, options.dialect)
    elif options.provider == "openai":
        read_dialect(options.dialect)
    elif options.dialect:
        raise ValueError(f"dialect: {options.provider} has only one; leave it out")
    if options.provider != "echo" and not options.model:
        raise ValueError("model: expected its name as the provider knows it")


def _at(name: str, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
