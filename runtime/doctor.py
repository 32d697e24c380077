"""Says in plain words what works, and what acknowledged data survives."""

import shutil
from pathlib import Path
from typing import NamedTuple

from runtime.bus import Bus
from runtime.config import Config
from runtime.deployments import read_deployments
from runtime.errors import BusFault, ConfigError, StreamMismatch
from runtime.loads import list_consumers
from runtime.modules import add_modules
from runtime.open import open_bus, server_urls
from runtime.overview import read_nodes
from runtime.streams import ensure_streams
from runtime.system import load_class

OLDEST = (2, 15, 1)
"""Older servers lose acknowledged writes at a power cut even when told to sync always."""
LOW_SPACE = 1024**3


class Finding(NamedTuple):
    """One sentence about the system, and whether it is as it should be."""

    good: bool
    text: str


async def examine(config: Config) -> list[Finding]:
    """Look at everything that can be looked at; what is wrong says how to mend it."""
    try:
        urls = server_urls(config.nats)
        bus = await open_bus(config.nats, patient=False, check=False)
    except BusFault as fault:
        return [Finding(False, f"{fault}; start one with `callboard up`, or name one by --nats")]
    shown = ", ".join(url.rpartition("@")[2] for url in urls)
    try:
        findings = [Finding(True, f"a NATS server answers at {shown}"), _version(bus)]
        findings += await _streams(bus, config)
        findings += _durability(config)
        if all(finding.good for finding in findings):
            findings += [*await _store(bus), *await _deployed(bus, config)]
        return findings
    except BusFault as fault:
        return [Finding(False, f"the server stopped answering: {fault or 'nothing came in time'}")]
    finally:
        await bus.link.close()


def _version(bus: Bus) -> Finding:
    text = bus.link.server_version
    numbers = tuple(int(part) for part in text.split("-")[0].split(".") if part.isdigit())
    if numbers < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return Finding(False, f"nats-server is {text}; {wanted} or newer is needed")
    return Finding(True, f"nats-server is {text}")


async def _streams(bus: Bus, config: Config) -> list[Finding]:
    try:
        await ensure_streams(bus, replicas=config.nats.replicas)
    except StreamMismatch as mismatch:
        return [Finding(False, str(mismatch))]
    text = f"streams are as nats/streams.json describes them, {config.nats.replicas} replica(s)"
    return [Finding(True, text)]


def _durability(config: Config) -> list[Finding]:
    if config.nats.url:
        where = "its servers' own configuration decides"
        return [
            Finding(
                True,
                "what is acknowledged survives kill -9 of any process; whether it survives a"
                f" power cut, {where}: it does with `sync_interval: always`",
            )
        ]
    free = shutil.disk_usage(_existing(Path(config.nats.data))).free
    always = config.nats.sync == "always"
    cut = "and a power cut" if always else f"but a power cut may take the last {config.nats.sync}"
    return [
        Finding(always, f"what is acknowledged survives kill -9 of any process, {cut}"),
        Finding(True, "one server, one disk: nothing survives the loss of that disk"),
        Finding(free > LOW_SPACE, f"{free // 1024**2} MiB free below {config.nats.data!r}"),
    ]


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


async def _store(bus: Bus) -> list[Finding]:
    """A consumer ahead of its stream means that acknowledged messages are missing."""
    info = await bus.api(f"STREAM.INFO.{bus.stream}")
    last = int(info["state"]["last_seq"])
    ahead = [
        str(one["name"])
        for one in await list_consumers(bus)
        if int(one["delivered"]["stream_seq"]) > last
    ]
    if ahead:
        return [
            Finding(
                False,
                f"the stream ends at {last}, but {', '.join(ahead)} had read further:"
                " acknowledged messages are missing; restore the store from a backup",
            )
        ]
    held = int(info["state"]["messages"])
    return [Finding(True, f"the stream holds {held} messages up to {last}; no consumer is ahead")]


async def _deployed(bus: Bus, config: Config) -> list[Finding]:
    add_modules(config.host.modules)
    deployments = await read_deployments(bus)
    nodes = await read_nodes(bus)
    findings = [Finding(bool(nodes), f"{len(nodes)} host(s) alive")]
    for name, one in sorted(deployments.items()):
        try:
            load_class(name, one.type)
        except ConfigError as error:
            findings.append(Finding(False, str(error)))
            continue
        served = one.kind == "remote" or any(name in node.actors for node in nodes)
        findings.append(Finding(served, f"actor {name!r} is {'served' if served else 'not run'}"))
        findings += [
            Finding(False, f"actor {name!r} is paused on {node.name}")
            for node in nodes
            if name in node.paused
        ]
    return findings
