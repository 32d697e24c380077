"""How uvicorn is set up for the edge: our protocol, and nothing that a stranger can switch."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from uvicorn import Config
from uvicorn.config import WSProtocolType

from edge.hosts import Hosts
from edge.limits import Limits
from edge.protocol import guarded

if sys.platform != "win32":
    import resource

# What the process needs besides clients: the bus, logs, listeners, the loop.
OTHER_FILES = 128


def serve_config(
    app: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    hosts: Iterable[str] = (),
    limits: Limits | None = None,
    certificate: tuple[str | None, str | None] = (None, None),
    ws: WSProtocolType = "none",
    timeout_graceful_shutdown: int = 8,
) -> Config:
    """Return the configuration to serve `app` with, as `uvicorn.Server(serve_config(app)).run()`.

    `hosts` are the names in Host headers that are served besides loopback and the address of
    the connection itself; `*` is every one. After SIGTERM, answers have
    `timeout_graceful_shutdown` seconds to end. `certificate` names a PEM file and
    its key's, to speak HTTPS. Fewer connections than `limits` says are accepted
    if the process may not open as many files. Raises ValueError for a name that cannot be one.
    """
    names = [*hosts] if host in {"", "0.0.0.0", "::"} else [*hosts, host]
    return Config(
        app,
        host=host,
        port=port,
        loop="uvloop" if find_spec("uvloop") else "asyncio",
        http=guarded(_affordable(limits or Limits()), Hosts(names)),
        ws=ws,
        ws_max_size=256 * 1024,
        ws_per_message_deflate=False,
        ssl_certfile=certificate[0],
        ssl_keyfile=certificate[1],
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        workers=1,  # or WEB_CONCURRENCY would decide
        timeout_graceful_shutdown=timeout_graceful_shutdown,
    )


def _affordable(limits: Limits) -> Limits:
    # Without descriptors left, nothing else in this process can connect or open a file either.
    if sys.platform == "win32":
        return limits
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return limits
    return replace(limits, connections=min(limits.connections, max(files - OTHER_FILES, 1)))
