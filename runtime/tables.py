"""The tables of the configuration file: their keys, types and defaults.

What types cannot say is checked by runtime/config.py.
"""

from datetime import timedelta
from typing import Annotated, Literal

import msgspec

from runtime.actor_table import ActorTable
from schemas.model import KINDS
from schemas.ownership import SUPPORT

MOST_CONNECTIONS = 100_000
MOST_HOSTS = 64
MOST_FILE_BYTES = 1024 * 1024 * 1024

SCOPES = (
    "relay:send",
    "relay:read",
    "relay:callback",
    "chat:send",
    "chat:read",
    "chat:all",
    "nodes:read",
    "nodes:write",
    "desk:read",
    "desk:act",
    "desk:lead",
    "desk:admin",
)

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


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
    scopes: list[str] = msgspec.field(default_factory=lambda: list(SCOPES))
    children: list[str] = []
    tier: Literal["user", "vip", "agent"] = "user"


class FilesTable(_Table):
    """Which files may be uploaded, how large and how many with one request, and for how long."""

    most_bytes: Annotated[int, msgspec.Meta(ge=1, le=MOST_FILE_BYTES)] = 20 * 1024 * 1024
    most_together: Annotated[int, msgspec.Meta(ge=1, le=MOST_FILE_BYTES)] = 64 * 1024 * 1024
    most: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    keep: timedelta = timedelta(days=30)
    kinds: list[str] = msgspec.field(default_factory=lambda: list(KINDS))


class SupportTable(_Table):
    """Who answers customers at `/api/chat`, which `team` takes over, and how much is allowed.

    `models` are names as clients use them, the preferred one first; without any it is a model of
    the provider `coze`, else whatever is deployed. With `open` customers need no key. What counts
    for a user holds over all edges together; rates are requests in a minute.
    """

    models: list[str] = []
    team: str = SUPPORT
    open: bool = False
    user_rate: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 20
    vip_rate: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100
    address_rate: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    streams_per_user: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3
    streams: Annotated[int, msgspec.Meta(ge=1, le=MOST_CONNECTIONS)] = 1000
    idle: timedelta = timedelta(minutes=5)
    heartbeat: timedelta = timedelta(seconds=30)
    answer_within: timedelta = timedelta(seconds=120)


class EdgeTable(_Table):
    """Where HTTP is served, to whom, and how much."""

    listen: Annotated[list[str], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["127.0.0.1:8000"]
    )
    hosts: list[str] = []
    open_reads: bool = False
    docs: bool = True
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=MOST_CONNECTIONS)] = 2000
    certificate: str = ""
    certificate_key: str = ""
    key: list[KeyTable] = []
    files: FilesTable = msgspec.field(default_factory=FilesTable)
    support: SupportTable = msgspec.field(default_factory=SupportTable)


class HostTable(_Table):
    """What this process runs (`run`, all by default), and where its own modules are.

    `count` is how many such processes `callboard up` starts.
    `marks` is a file for high-water marks beside those that the cluster keeps.
    """

    name: str = ""
    run: list[str] = []
    modules: str = ""
    count: Annotated[int, msgspec.Meta(ge=1, le=MOST_HOSTS)] = 1
    block_limit: timedelta = timedelta(seconds=30)
    marks: str = ""


class ModelsTable(_Table):
    """Whether `callboard up` looks for an Ollama on this machine, and deploys what it has."""

    discover: bool = True


class LogTable(_Table):
    """How to log."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(_Table):
    """The whole file."""

    nats: NatsTable = msgspec.field(default_factory=NatsTable)
    edge: EdgeTable = msgspec.field(default_factory=EdgeTable)
    host: HostTable = msgspec.field(default_factory=HostTable)
    models: ModelsTable = msgspec.field(default_factory=ModelsTable)
    log: LogTable = msgspec.field(default_factory=LogTable)
    actor: list[ActorTable] = []
