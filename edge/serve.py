"""Serves the edge on every address it is to listen on, until it is told to stop."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator

import structlog
import uvicorn
from starlette.applications import Starlette

from edge.app import build_app
from edge.limits import Limits
from edge.server import serve_config
from runtime.bus import Bus
from runtime.config import split_address
from runtime.tables import Config

log = structlog.get_logger("edge")

ADDRESS_UNAVAILABLE = 75
"""The exit code of an edge whose address is taken: starting it again does not help."""


class _Untold(logging.Filter):
    """Leaves out what is told already, by whoever cut an answer off."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log a record."""
        return record.msg != "ASGI callable returned without completing response."


_UNTOLD = _Untold()


class Server(uvicorn.Server):
    """uvicorn's server, but signals are for whoever runs us, and its start can be waited for."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.ready.set()


async def serve(config: Config, bus: Bus, stop: asyncio.Event | None = None) -> int:
    """Serve the edge until `stop` is set, or until cancelled; returns an exit code.

    Raises ConfigError for a key that may not be used.
    """
    return await serve_app(build_app(config, bus), config, stop or asyncio.Event())


async def serve_app(
    app: Starlette,
    config: Config,
    stop: asyncio.Event,
    ready: Callable[[list[str]], None] = lambda addresses: None,
) -> int:
    """Serve an application of `build_app`, as `serve` does.

    `ready` is told the addresses, with the real ports, once all of them are served. In the end
    streams are told goodbye, and what is being answered has 8 seconds to end.
    """
    logging.getLogger("uvicorn.error").addFilter(_UNTOLD)
    try:
        listeners = _listen_on(config.edge.listen)
    except OSError as error:
        log.error("address_unavailable", listen=config.edge.listen, error=str(error))
        return ADDRESS_UNAVAILABLE
    servers = [_server(config, app, each) for each in listeners]
    running = [
        asyncio.create_task(server.serve(sockets=[listener]), name="http")
        for server, listener in zip(servers, listeners, strict=True)
    ]
    try:
        if await _until(asyncio.gather(*(server.ready.wait() for server in servers)), running):
            scheme = "https" if config.edge.certificate else "http"
            addresses = [_shown(each, scheme) for each in listeners]
            log.info("edge_ready", addresses=addresses)
            ready(addresses)
            await _until(stop.wait(), running)
    finally:
        app.state.shared.end()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running)
        log.info("edge_stopped")
    return 0


async def _until(done: Awaitable[object], running: Iterable[asyncio.Task[None]]) -> bool:
    """Wait; returns False if one of the servers ended before."""
    waiting = asyncio.ensure_future(done)
    try:
        await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
        return waiting.done()
    finally:
        waiting.cancel()


def _server(config: Config, app: Starlette, listener: socket.socket) -> Server:
    host, port = listener.getsockname()[:2]
    limits = Limits(connections=config.edge.max_connections)
    return Server(
        serve_config(
            app,
            host=host,
            port=port,
            hosts=config.edge.hosts,
            limits=limits,
            certificate=(config.edge.certificate or None, config.edge.certificate_key or None),
        )
    )


def _listen_on(addresses: Iterable[str]) -> list[socket.socket]:
    """Open every address or none. Raises OSError."""
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            opened.extend(_listen(address))
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened


def _listen(address: str) -> Iterator[socket.socket]:
    """Open a socket on every address that a name stands for, all on one port."""
    host, port = split_address(address)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, where in dict.fromkeys(found):
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((where[0], port, *where[2:]))
        except OSError:
            listener.close()
            raise
        port = listener.getsockname()[1]
        yield listener


def _shown(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
