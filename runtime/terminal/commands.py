"""What each command of `callboard` does."""

import argparse
import asyncio
import gc
import importlib
import os
import secrets
import socket
from pathlib import Path

import msgspec
import structlog

from runtime.bus import Bus
from runtime.clock import ServerClock
from runtime.config import check_urls, split_address
from runtime.deployments import read_deployments, seed_deployments
from runtime.errors import ConfigError
from runtime.host import Host, patiently
from runtime.keys import resolve_keys
from runtime.modules import add_modules
from runtime.open import open_bus, opened
from runtime.quorum import leaving_minorities
from runtime.store.caretaker import Caretaker
from runtime.store.marks import file_at
from runtime.store.repair import accept_loss
from runtime.store.server import EmbeddedServer, PortTaken
from runtime.system import load_class
from runtime.tables import Config
from runtime.terminal.closeup import describe, look_closely
from runtime.terminal.desk_environment import named_mailer, with_hours
from runtime.terminal.doctor import examine
from runtime.terminal.follow import archive, print_events
from runtime.terminal.manifest import deployment_of
from runtime.terminal.offers import DISCOVER, discover, is_asked_for, named_services
from runtime.terminal.overview import look
from runtime.terminal.rules_environment import with_rules
from runtime.terminal.supervisor import Child, until_stopped
from runtime.watchdog import watching
from schemas.base import Address, Topic
from schemas.deployment import Deployment

log = structlog.get_logger()

LABELS = {True: "ok   ", False: "WRONG", None: "note "}
"""How a finding of the doctor begins."""


def with_url(config: Config, url: str) -> Config:
    """The configuration, but on the servers of `url` instead of the embedded one."""
    try:
        check_urls(url)
    except ValueError as error:
        raise ConfigError(f"--nats: {error}") from None
    return msgspec.structs.replace(config, nats=msgspec.structs.replace(config.nats, url=url))


async def up(config: Config, given: argparse.Namespace) -> int:
    """Run the server (unless one is named), the hosts and the edge until stopped."""
    resolve_keys(config, os.environ)
    check_deployments(config)
    check_addresses(config)
    caretaker = None
    if not config.nats.url:
        server = EmbeddedServer(
            Path(config.nats.data), port=config.nats.port, sync=config.nats.sync
        )
        caretaker = Caretaker(server)
        await caretaker.start(config.nats, accept=given.accept_data_loss)
        config = with_url(config, server.url)
    elif given.accept_data_loss:
        await accept_data_loss(config)
    return await until_stopped(lambda: _keep_all_running(config, given, caretaker))


async def _keep_all_running(
    config: Config, given: argparse.Namespace, caretaker: Caretaker | None
) -> int:
    children = _children(config, given)
    tasks = [asyncio.create_task(child.keep_running()) for child in children]
    watch = asyncio.create_task(caretaker.run()) if caretaker else None
    try:
        ends = [*tasks, watch] if watch else tasks
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return next((int(task.result() or 0) for task in done), 1)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Last, so that what drains can still store.
        if watch:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        if caretaker:
            await caretaker.server.stop()


def _children(config: Config, given: argparse.Namespace) -> list[Child]:
    """The edge and the hosts; each of these has a name of its own, which outlives its process."""
    arguments = ("--config", str(given.config), "--nats", config.nats.url)
    count = given.hosts or config.host.count
    base = config.host.name[:60] or f"host-{secrets.token_hex(4)}"
    names = [base] if count == 1 else [f"{base}-{number}" for number in range(1, count + 1)]
    hosts = [
        Child(one, "-m", "runtime", "host", *arguments, environment={"CALLBOARD_HOST_NAME": one})
        for one in names
    ]
    if config.models.discover:
        hosts[0].environment[DISCOVER] = "1"
    return [*hosts, Child("edge", "-m", "runtime", "edge", *arguments, environment={})]


async def host(config: Config, given: argparse.Namespace) -> int:
    """Run deployed actors until stopped, or until a part of the host cannot go on."""
    deployments = check_deployments(config)
    return await until_stopped(lambda: _watch_host(config, deployments))


async def _watch_host(config: Config, deployments: list[Deployment]) -> int:
    with watching(config.host.block_limit.total_seconds()):
        return await _run_host(config, deployments)


async def _run_host(config: Config, deployments: list[Deployment]) -> int:
    clock, marks = ServerClock(), file_at(config.host.marks)
    bus = await open_bus(config.nats, marks=marks)
    running = Host(bus, name=config.host.name, clock=clock, marks=marks)
    keeping = asyncio.create_task(clock.keep(bus), name="clock")
    try:
        async with leaving_minorities(bus):
            await patiently(bus, lambda: clock.learn(bus))
            await patiently(bus, lambda: seed_deployments(bus, deployments))
            if is_asked_for():
                await patiently(bus, lambda: _offer_found(bus))
            await running.start(_names_to_run(config, deployments))
            # What is loaded by now stays; what comes and goes is counted, not searched for.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 50, 1000)
            await asyncio.wait([running.failed])
        return 1  # what failed was said when it did
    finally:
        await running.stop()
        keeping.cancel()
        await bus.link.close()


def _names_to_run(config: Config, deployments: list[Deployment]) -> list[str]:
    """What this host runs, none for all: also the services that its own environment names."""
    configured = {table.name for table in config.actor}
    services = [one.name for one in deployments if one.name not in configured]
    return [*config.host.run, *services] if config.host.run else []


async def _offer_found(bus: Bus) -> None:
    """Deploy what an Ollama on this machine has."""
    await seed_deployments(bus, await discover(os.environ, await read_deployments(bus)))


async def edge(config: Config, given: argparse.Namespace) -> int:
    """Serve HTTP until stopped."""
    resolve_keys(config, os.environ)
    # By name: the edge builds on the runtime, so the runtime cannot import it.
    serve = importlib.import_module("edge.serve").serve
    return await until_stopped(lambda: _run_edge(config, serve))


async def _run_edge(config: Config, serve: object) -> int:
    bus = await open_bus(config.nats)
    try:
        async with leaving_minorities(bus):
            return int(await serve(config, bus) or 0)  # type: ignore[operator]  # edge.serve.serve
    finally:
        await bus.link.close()


async def actors(config: Config, given: argparse.Namespace) -> int:
    """Print what is deployed, what waits, and which hosts are alive; or one key from close by."""
    async with opened(config) as bus:
        if given.address:
            actor, _, key = given.address.partition("/")
            facts = await look_closely(bus, Address(actor, key or "_"))
            lines = describe(facts)
        else:
            overview = await look(bus)
            facts, lines = overview.facts(), overview.lines()
    if given.json:
        lines = [msgspec.json.format(msgspec.json.encode(facts)).decode()]
    for line in lines:
        print(line)
    return 0


async def tail(config: Config, given: argparse.Namespace) -> int:
    """Print events as they happen, or the log so far."""
    topic = read_topic(given.topic) if given.topic else None
    bus = await open_bus(config.nats, patient=False)
    try:
        await print_events(bus, topic, after=given.after, jsonl=given.jsonl, once=given.once)
    finally:
        await bus.link.close()
    return 0


async def export(config: Config, given: argparse.Namespace) -> int:
    """Append what is new on a topic to the daily files of an archive."""
    bus = await open_bus(config.nats, patient=False)
    try:
        written = await archive(bus, read_topic(given.topic), given.to)
    finally:
        await bus.link.close()
    print(f"{written} events appended below {given.to}")
    return 0


async def doctor(config: Config, given: argparse.Namespace) -> int:
    """Say what works and what survives what; 1 if something is wrong."""
    if given.accept_data_loss:
        await accept_data_loss(config)
    findings = await examine(config)
    for finding in findings:
        print(f"{LABELS[finding.good]} {finding.text}")
    return 1 if any(finding.good is False for finding in findings) else 0


async def accept_data_loss(config: Config) -> None:
    """Give up what the store lacks; raises DataMissing for what cannot be mended."""
    bus = await open_bus(config.nats, patient=False, check=False)
    try:
        count = await accept_loss(bus, file_at(config.host.marks), replicas=config.nats.replicas)
    finally:
        await bus.link.close()
    print(f"{count} damage(s) accepted" if count else "nothing is missing; nothing was changed")


def read_topic(text: str) -> Topic:
    """Read `kind/id`; raises ConfigError."""
    kind, slash, name = text.partition("/")
    if not (slash and kind and name):
        raise ConfigError(f"topic {text!r}: expected kind/id, for example task/t_1")
    return Topic(kind, name)


def check_addresses(config: Config) -> None:
    """Raise PortTaken for the first address of the edge that cannot be listened on now."""
    for address in config.edge.listen:
        host, port = split_address(address)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, where = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                probe.listen(1)
        except OSError as error:
            raise PortTaken(
                f"edge.listen: {address!r} cannot be listened on: {error.strerror};"
                " stop what listens there, or choose another address"
            ) from None


def check_deployments(config: Config) -> list[Deployment]:
    """Load every type that the configuration names, and the services that the environment does.

    Raises ConfigError for the first bad one.
    """
    add_modules(config.host.modules)
    configured = {table.name for table in config.actor}
    services = [
        *named_services(os.environ, configured),
        *named_mailer(os.environ, configured),
    ]
    actors = with_rules(with_hours(config.actor, os.environ), os.environ)
    tables = [deployment_of(table, load_class(table.name, table.type)) for table in actors]
    return [*tables, *services]
