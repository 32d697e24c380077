"""The configuration: one TOML file, read once, checked whole before anything starts.

Every error is one line: where, what, what was expected, how to mend it. Who may do what at
the edge is read by runtime/keys.py.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from runtime.errors import ConfigError
from schemas.subjects import ACTOR_NAME

MOST_BYTES = 1024 * 1024
MOST_CONNECTIONS = 100_000

UNUSED = ("DB_HOST", "POSTGRES_PASSWORD", "REDIS_HOST", "ENABLE_DB_LOG")
"""Variables of the systems that Callboard replaces, which it has no use for."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

RELAY_SCOPES = ("relay:send", "relay:read", "relay:callback")

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class _Table(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One table of the file."""


class NatsTable(_Table):
    """Where NATS is. Without a `url` an embedded server keeps its store in `data`."""

    url: str = ""
    data: str = "data"
    port: Port = 4222
    replicas: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    sync: str = "always"
    user: str = ""
    password_env: str = ""
    creds: str = ""


class KeyTable(_Table):
    """A key for the edge: whose it is, which variable holds it, and what it opens."""

    id: str
    secret_env: str
    scopes: list[str] = msgspec.field(default_factory=lambda: list(RELAY_SCOPES))
    children: list[str] = []
    tier: Literal["user", "vip", "agent"] = "user"


class EdgeTable(_Table):
    """Where HTTP is served, to whom, and how much."""

    listen: Annotated[list[str], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["127.0.0.1:8000"]
    )
    hosts: list[str] = []
    open_reads: bool = False
    docs: bool = True
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=MOST_CONNECTIONS)] = 2000
    key: list[KeyTable] = []


class HostTable(_Table):
    """What this process runs (`run`, all by default), and where its own modules are."""

    name: str = ""
    run: list[str] = []
    modules: str = ""


class LogTable(_Table):
    """How to log."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ActorTable(_Table):
    """One `[[actor]]`: deploys one type under one name."""

    name: str
    type: str
    concurrency: Count = 16
    options: dict[str, Any] = {}
    mail_ttl: timedelta = timedelta(hours=24)
    lifetime: timedelta = timedelta(days=30)
    deadline: timedelta = timedelta(minutes=10)
    attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5


class Config(_Table):
    """The whole file."""

    nats: NatsTable = msgspec.field(default_factory=NatsTable)
    edge: EdgeTable = msgspec.field(default_factory=EdgeTable)
    host: HostTable = msgspec.field(default_factory=HostTable)
    log: LogTable = msgspec.field(default_factory=LogTable)
    actor: list[ActorTable] = []


DURATIONS = ("mail_ttl", "lifetime", "deadline")


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read a file and what the environment overrides; raises ConfigError with the first fault."""
    environ = os.environ if environ is None else environ
    text = _read(path)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    if not raw:
        raise ConfigError(f"{path}: the file is empty; see config/local.toml for an example")
    source = _Source(path, text)
    _read_durations(raw, source)
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise source.explain(error) from None
    _override(config, environ)
    _check(config, source)
    return config


def unused_environment(environ: Mapping[str, str]) -> list[str]:
    """Names of variables that are set and mean nothing here."""
    return [name for name in UNUSED if name in environ]


def duration(text: object) -> timedelta:
    """Read `300s`, `5m`, `24h`, `30d` or `250ms`; raises ValueError with what was expected."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None or not float(found[1]):
        raise ValueError(f'{text!r} is not a duration; expected "300s", "5m", "24h" or "30d"')
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


class _Source:
    """The file a configuration came from, to say where in it something is wrong."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def fault(self, key: str, reason: str) -> ConfigError:
        """An error at the first line that sets `key`."""
        last = key.rpartition(".")[2]
        pattern = re.compile(rf"\s*(?:\[+.*\b)?[\"']?{re.escape(last)}[\"']?\s*(?:=|\])")
        for number, line in enumerate(self._lines, 1):
            if pattern.match(line) or re.search(rf"[{{,]\s*{re.escape(last)}\s*=", line):
                return ConfigError(f"{self._path}:{number}: {key}: {reason}")
        return ConfigError(f"{self._path}: {key}: {reason}")

    def explain(self, error: msgspec.ValidationError) -> ConfigError:
        """Say in our words what msgspec found."""
        reason, _, where = str(error).partition(" - at `$")
        where = where.rstrip("`").lstrip(".")
        if found := re.search(r"unknown field `(.*)`", reason):
            name = found[1]
            near = difflib.get_close_matches(name, _keys_of(where), 1, 0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            key = f"{where}.{name}" if where else name
            return self.fault(key, f"unknown key{hint}")
        return self.fault(re.sub(r"\[\d*\.*\]", "", where), reason[:1].lower() + reason[1:])


def _keys_of(where: str) -> list[str]:
    tables: dict[str, type[msgspec.Struct]] = {
        "nats": NatsTable,
        "edge": EdgeTable,
        "host": HostTable,
        "log": LogTable,
        "actor": ActorTable,
        "edge.key": KeyTable,
    }
    table = tables.get(re.sub(r"\[.*?\]", "", where), Config)
    return list(table.__struct_fields__)


def _read(path: Path) -> str:
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder, expected a TOML file")
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path}: larger than {MOST_BYTES} bytes, hardly a configuration")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    if data[:3] == b"\xef\xbb\xbf" or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{path}: begins with a byte order mark; save it as plain UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None


def _read_durations(raw: dict[str, Any], source: _Source) -> None:
    actors = raw.get("actor")
    for table in actors if isinstance(actors, list) else []:
        for key in DURATIONS:
            if isinstance(table, dict) and key in table:
                try:
                    table[key] = duration(table[key])
                except ValueError as error:
                    raise source.fault(f"actor.{key}", str(error)) from None


def _override(config: Config, environ: Mapping[str, str]) -> None:
    if url := environ.get("CALLBOARD_NATS_URL"):
        config.nats.url = url
    if listen := environ.get("CALLBOARD_LISTEN"):
        config.edge.listen = [part.strip() for part in listen.split(",") if part.strip()]
    if level := environ.get("LOG_LEVEL"):
        levels = ("debug", "info", "warning", "error")
        if level.lower() not in levels:
            raise ConfigError(f"LOG_LEVEL: {level!r}, expected one of {', '.join(levels)}")
        config.log.level = level.lower()  # type: ignore[assignment]  # checked right above


def _check(config: Config, source: _Source) -> None:
    for address in config.edge.listen:
        try:
            split_address(address)
        except ValueError as error:
            raise source.fault("edge.listen", str(error)) from None
    if config.nats.sync != "always":
        try:
            duration(config.nats.sync)
        except ValueError as error:
            raise source.fault("nats.sync", f'{error}, or "always"') from None
    seen: set[str] = set()
    for table in config.actor:
        if not ACTOR_NAME.fullmatch(table.name):
            wanted = "a lower-case letter, then up to 31 letters, digits, _ or -"
            raise source.fault("actor.name", f"{table.name!r}: expected {wanted}")
        if table.name in seen:
            raise source.fault("actor.name", f"{table.name!r} is deployed twice")
        seen.add(table.name)


def split_address(address: str) -> tuple[str, int]:
    """Read `host:port`; raises ValueError with what was expected."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f'{address!r}: expected "host:port" with a port up to 65535')
    return host, int(port)
