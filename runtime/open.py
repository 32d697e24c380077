"""Opens the bus as a process is configured to: where the server is, who we are there."""

import asyncio
import contextlib
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from runtime.bus import Bus
from runtime.connection import Connection
from runtime.errors import (
    BusFault,
    ConfigError,
    DataMissing,
    Denied,
    Unavailable,
)
from runtime.quorum import leaving_minorities
from runtime.store.inspection import check_store
from runtime.store.marks import MarkFile
from runtime.streams import ensure_streams, learn_incarnation
from runtime.tables import Config, NatsTable

log = structlog.get_logger()

LOOK_AGAIN = 0.5
SHORT = 3.0
"""Seconds for which a command waits for streams; a process that is to run waits for ever."""
LONG = float("inf")


def server_urls(table: NatsTable) -> list[str]:
    """The servers to connect to: the configured ones, or the embedded one.

    Raises Unavailable if that one chooses its port itself and has not told which.
    """
    if table.url:
        return [url.strip() for url in table.url.split(",") if url.strip()]
    return [f"nats://127.0.0.1:{table.port or _port_it_took(Path(table.data))}"]


def _port_it_took(data: Path) -> int:
    """The port as the embedded server has written it, runtime/store/server.py has it do so."""
    for found in (data / "ports").glob("*.ports"):
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):  # half written
            return int(json.loads(found.read_text())["nats"][0].rpartition(":")[2])
    raise Unavailable(f"nats.port is 0, and no server has told its port below {str(data)!r}")


def credentials(table: NatsTable) -> dict[str, str]:
    """How to log in; raises ConfigError if the password's variable is not set."""
    if table.creds:
        if importlib.util.find_spec("nkeys") is None:
            raise ConfigError("nats.creds needs a package: pip install 'nats-py[nkeys]'")
        return {"user_credentials": table.creds}
    if not table.user:
        return {}
    password = os.environ.get(table.password_env, "")
    if not password:
        raise ConfigError(
            f"nats.user is {table.user!r}, but the variable {table.password_env!r}"
            " (nats.password_env) is empty; set it"
        )
    return {"user": table.user, "password": password}


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Bus]:
    """The bus for the length of one command, from a server that is there."""
    bus = await open_bus(config.nats, patient=False)
    try:
        yield bus
    finally:
        await bus.link.close()


async def open_bus(
    table: NatsTable,
    *,
    patient: bool = True,
    check: bool = True,
    marks: MarkFile | None = None,
    thorough: bool = False,
) -> Bus:
    """Connect, and create or check the streams; waits for a server that is not there yet.

    `marks` are high-water marks beside those that the server keeps. Raises DataMissing where
    acknowledged data is missing (one who is not patient only looks, and is told by the log),
    StreamMismatch, Denied, or Unavailable if not patient. `thorough` reads every message.
    """
    # Each user may only hear answers of its own: nats/accounts.conf.
    inbox = f"_INBOX_{table.user}" if table.user else "_INBOX"
    link = Connection(server_urls(table), inbox=inbox, **credentials(table))
    bus = Bus(link)
    try:
        await link.open(patient=patient)
        if check:
            bus.replicas = table.replicas
            look = partial(_look, bus, marks, serves=patient, thorough=thorough)
            async with leaving_minorities(bus):
                await _wait_for_streams(bus, look, LONG if patient else SHORT)
    except BaseException:
        await link.close()
        raise
    return bus


async def _wait_for_streams(bus: Bus, look: Callable[[], Awaitable[None]], patience: float) -> None:
    """A server that has just started may not have its store or its leader yet."""
    loop, told = asyncio.get_running_loop(), ""
    give_up = loop.time() + patience
    while True:
        try:
            await look()
            return
        except Denied:
            raise
        except BusFault as fault:
            if loop.time() > give_up:
                where = f" at {bus.link.server}" if bus.link.server else ""
                raise Unavailable(f"the streams{where} cannot be looked at: {fault}") from None
            if str(fault) != told:
                told = str(fault)
                log.warning("streams_not_ready", error=told)
        await asyncio.sleep(LOOK_AGAIN)


async def _look(bus: Bus, marks: MarkFile | None, *, serves: bool, thorough: bool) -> None:
    try:
        await check_store(bus, marks, thorough=thorough)
    except DataMissing as missing:
        if serves:
            raise
        # Creating what is missing would hide that it is, or destroy what is left of it.
        # As an error, so that commands show it too: runtime/cli.py.
        log.error("data_missing", found=str(missing))
        await learn_incarnation(bus)
        return
    await ensure_streams(bus, replicas=bus.replicas)
