"""The configuration: one TOML file, read once, checked whole before anything starts.

Every error is one line: where, what, what was expected, how to mend it. The secrets of the
edge's keys are read by runtime/keys.py.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from runtime.actor_table import DURATIONS, check_actor_name, find_faults
from runtime.errors import ConfigError
from runtime.lines import Place
from runtime.source import Source, one_line, quote
from runtime.tables import SCOPES, Config, EdgeTable, KeyTable, NatsTable
from schemas.model import KINDS

LONGEST_NAME = 64

UNUSED = ("DB_HOST", "POSTGRES_PASSWORD", "REDIS_HOST", "ENABLE_DB_LOG")
"""Variables of the systems that Callboard replaces, which it has no use for."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = timedelta(days=3650)
SHORTEST_BLOCK = timedelta(seconds=2)

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})")
_NUMERIC = re.compile(r"[0-9.]+")
_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# Capitals only: a secret that was put where its variable's name belongs is seldom all of them.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

_DURATIONS = (
    ("host", "block_limit"),
    ("edge", "files", "keep"),
    ("edge", "support", "idle"),
    ("edge", "support", "heartbeat"),
    ("edge", "support", "answer_within"),
)
LEVELS = ("debug", "info", "warning", "error")


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read a file and what the environment overrides; raises ConfigError with the first fault."""
    environ = os.environ if environ is None else environ
    source = Source(path)
    _read_durations(source)
    config = source.convert(Config)
    _check(config, source)
    if config.host.modules:
        folder = source.at(("host", "modules"), find_modules, path, config.host.modules)
        config.host.modules = str(folder)
    _override(config, environ)
    return config


def unused_environment(environ: Mapping[str, str]) -> list[str]:
    """Names of variables that are set and mean nothing here."""
    return [name for name in UNUSED if name in environ]


def duration(text: object) -> timedelta:
    """Read `300s`, `5m`, `24h`, `30d` or `250ms`; raises ValueError with what was expected."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"{quote(text)} is too long; expected at most {LONGEST.days}d")
    if not (read := timedelta(seconds=seconds)):
        raise ValueError(f'{quote(text)} is not a duration; expected "300s", "5m", "24h" or "30d"')
    return read


def split_address(address: str) -> tuple[str, int]:
    """Read `host:port` or `[address]:port`; raises ValueError with what was expected."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'{address!r}: expected "[address]:port" with brackets')
    if not (_is_host(host) and re.fullmatch("[0-9]{1,5}", port) and int(port) <= 65535):
        raise ValueError(f'{quote(address)}: expected "host:port" with a port up to 65535')
    return host, int(port)


def check_listen(addresses: list[str]) -> None:
    """Raise ValueError unless these are addresses to listen on, each once."""
    if not addresses:
        raise ValueError('no address; expected at least one "host:port"')
    for address in addresses:
        if split_address(address)[1] == 0:
            raise ValueError(f"{address!r}: expected a port from 1 to 65535")
        if addresses.count(address) > 1:
            raise ValueError(f"{address!r} is there twice")


def check_urls(text: str) -> None:
    """Raise ValueError unless these are servers of NATS; a password in them is never shown."""
    for url in text.split(","):
        if "@" in url:
            raise ValueError(
                "a login has no place in an address, where logs and process lists show it;"
                " use nats.user with nats.password_env, or nats.creds"
            )
        try:
            parts = urlsplit(url.strip())
            good = parts.scheme in ("nats", "tls") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not (good and not parts.path.strip("/") and _is_host(parts.hostname or "")):
            raise ValueError(f'{quote(url)}: expected "nats://host:4222" or "tls://host:4222"')


def _is_host(host: str) -> bool:
    if _HOST.fullmatch(host) and not _NUMERIC.fullmatch(host):
        return True
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def _read_durations(source: Source) -> None:
    actors = source.raw.get("actor")
    for index, table in enumerate(actors if isinstance(actors, list) else []):
        for key in DURATIONS:
            if isinstance(table, dict) and key in table:
                table[key] = source.at(("actor", index, key), duration, table[key])
    for place in _DURATIONS:
        within: Any = source.raw
        for key in place[:-1]:
            within = within.get(key) if isinstance(within, dict) else None
        if isinstance(within, dict) and place[-1] in within:
            within[place[-1]] = source.at(place, duration, within[place[-1]])


# -- checking what types cannot say ------------------------------------------------------------


def _check(config: Config, source: Source) -> None:
    _check_nats(config.nats, source)
    source.at(("edge", "listen"), check_listen, config.edge.listen)
    _check_certificate(config.edge, source)
    for name in config.edge.hosts:
        source.at(("edge", "hosts"), _check_served, name)
    for kind in config.edge.files.kinds:
        source.at(("edge", "files", "kinds"), _check_kind, kind)
    for name in config.host.run:
        source.at(("host", "run"), check_actor_name, name)
    source.at(("host", "name"), check_host_name, config.host.name)
    if config.host.block_limit < SHORTEST_BLOCK:
        raise source.fault(("host", "block_limit"), "is shorter than expected: 2s or more")
    for index, key in enumerate(config.edge.key):
        _check_key(key, ("edge", "key", index), source)
    _check_once("edge", "key", attribute="id", tables=config.edge.key, source=source)
    for index, actor in enumerate(config.actor):
        for place, reason in find_faults(actor):
            raise source.fault(("actor", index, *place), reason)
    _check_once("actor", attribute="name", tables=config.actor, source=source)


def _check_once(
    *table: str, attribute: str, tables: Iterable[msgspec.Struct], source: Source
) -> None:
    seen: set[str] = set()
    for index, one in enumerate(tables):
        name = getattr(one, attribute)
        if name in seen:
            raise source.fault((*table, index, attribute), f"{name!r} is given twice")
        seen.add(name)


def _check_nats(nats: NatsTable, source: Source) -> None:
    if nats.url:
        source.at(("nats", "url"), check_urls, nats.url)
    if not nats.data.strip() or not nats.data.isprintable():
        raise source.fault(("nats", "data"), f"{nats.data!r}: expected the name of a folder")
    if nats.sync != "always":
        source.at(("nats", "sync"), _check_sync, nats.sync)
    if nats.creds and nats.user:
        raise source.fault(("nats", "creds"), "there is nats.user too; remove one of the two")
    if nats.creds and not Path(nats.creds).is_file():
        raise source.fault(("nats", "creds"), "is not a file; expected NATS credentials")
    if nats.user and not nats.password_env:
        raise source.fault(("nats", "user"), "nats.password_env is missing, the variable to read")
    if nats.password_env:
        source.at(("nats", "password_env"), _check_variable, nats.password_env)


def _check_certificate(edge: EdgeTable, source: Source) -> None:
    for key in ("certificate", "certificate_key"):
        path, other = getattr(edge, key), edge.certificate or edge.certificate_key
        if other and not Path(path).is_file():
            wanted = "is not a file; HTTPS needs a certificate and its certificate_key, both PEM"
            raise source.fault(("edge", key), f"{path!r} {wanted}")


def _check_sync(text: str) -> None:
    try:
        duration(text)
    except ValueError as error:
        raise ValueError(f'{error}, or "always"') from None
    if text.endswith("d"):
        raise ValueError(f'{text!r}: nats-server knows no days; expected "always" or hours')


def _check_served(name: str) -> None:
    if name != "*" and not _is_host(name):
        raise ValueError(f"{name!r}: expected a host name, without scheme and port")


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"{quote(kind)}: expected some of {', '.join(KINDS)}")


def _check_variable(name: str) -> None:
    """The value is not shown: it may be the secret itself."""
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            "expected the name of a variable in capitals, such as RELAY_API_KEY;"
            " a secret itself belongs in no file"
        )


def _check_key(key: KeyTable, place: Place, source: Source) -> None:
    if not _KEY_ID.fullmatch(key.id):
        wanted = "expected 1 to 64 letters, digits, . _ @ or -"
        raise source.fault((*place, "id"), f"{quote(key.id)}: {wanted}")
    source.at((*place, "secret_env"), _check_variable, key.secret_env)
    for scope in key.scopes:
        if scope not in SCOPES:
            wanted = f"expected some of {', '.join(SCOPES)}"
            raise source.fault((*place, "scopes"), f"{quote(scope)}: {wanted}")
    if not key.scopes:
        raise source.fault((*place, "scopes"), "is empty: the key would open nothing")
    if not all(child.strip() for child in key.children):
        raise source.fault((*place, "children"), "holds an empty name; expected a child's")


def check_host_name(name: str) -> None:
    """Raise ValueError unless it can be shown; an empty one is made up."""
    if len(name) > LONGEST_NAME or not name.isprintable():
        wanted = f"expected at most {LONGEST_NAME} characters that can be shown"
        raise ValueError(f"{quote(name)}: {wanted}")


def find_modules(file: Path, folder: str) -> Path:
    """The folder of modules that a file names, as seen from the file; raises ValueError."""
    found = (file.resolve().parent / Path(folder).expanduser()).resolve()
    if not found.is_dir():
        raise ValueError(f"{folder!r}: there is no folder {str(found)!r}")
    return found


# -- what the environment overrides ------------------------------------------------------------


def _override(config: Config, environ: Mapping[str, str]) -> None:
    """An empty variable overrides nothing."""
    if url := environ.get("CALLBOARD_NATS_URL"):
        _in_environment("CALLBOARD_NATS_URL", check_urls, url)
        config.nats.url = url
    if listen := environ.get("CALLBOARD_LISTEN"):
        addresses = [part.strip() for part in listen.split(",") if part.strip()]
        _in_environment("CALLBOARD_LISTEN", check_listen, addresses)
        config.edge.listen = addresses
    if name := environ.get("CALLBOARD_HOST_NAME"):
        _in_environment("CALLBOARD_HOST_NAME", check_host_name, name)
        config.host.name = name
    if level := environ.get("LOG_LEVEL"):
        if level.lower() not in LEVELS:
            raise ConfigError(f"LOG_LEVEL: {quote(level)}, expected one of {', '.join(LEVELS)}")
        config.log.level = level.lower()  # type: ignore[assignment]  # checked right above


def _in_environment(name: str, check: Callable[..., None], value: Any) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ConfigError(one_line(f"{name}: {error}")) from None
