"""Says in plain words what works, and what acknowledged data survives.

What is missing in the store is found by runtime/store/inspection.py; what survives what is in
runtime/durability.py.
"""

from pathlib import Path

from runtime.bus import Bus
from runtime.deployments import read_deployments
from runtime.durability import Finding, what_is_left, what_survives
from runtime.errors import BusFault, ConfigError, StreamMismatch
from runtime.modules import add_modules
from runtime.open import open_bus, server_urls
from runtime.store.inspection import CURE, MOST_READ, Found, inspect
from runtime.store.marks import Kept, MarkFile, beside, file_at
from runtime.streams import ensure_streams
from runtime.system import load_class
from runtime.tables import Config
from runtime.terminal.overview import read_nodes, read_upstreams, troubled

OLDEST = (2, 15, 1)
"""Older servers lose acknowledged writes at a power cut even when told to sync always."""


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
        store = await _store(bus, config)
        findings += store
        if all(finding.good is not False for finding in store):
            findings += await _deployed(bus, config)
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


async def _store(bus: Bus, config: Config) -> list[Finding]:
    """What is missing is never created here: that would hide it, or destroy what is left."""
    bus.replicas = config.nats.replicas
    kept = _kept(config)
    found = await inspect(bus, kept, thorough=True)
    missing = [*found.damages, *(f"nats-server said: {said}" for said in kept.complaints)]
    if missing:
        return [*(Finding(False, text) for text in missing), Finding(False, CURE)]
    try:
        await ensure_streams(bus, replicas=config.nats.replicas)
    except StreamMismatch as mismatch:
        return [Finding(False, str(mismatch))]
    if bus.stream not in found.streams:
        found = await inspect(bus, kept)
    text = f"streams are as nats/streams.json describes them, {config.nats.replicas} replica(s)"
    return [
        Finding(True, text),
        *_complete(bus, found, kept),
        *what_survives(config.nats, found, bus.stream),
        *await what_is_left(bus, config.nats, found),
    ]


def _kept(config: Config) -> Kept:
    path = beside(Path(config.nats.data)) if not config.nats.url else None
    file = MarkFile(path) if path else file_at(config.host.marks)
    return file.read() if file else Kept()


def _complete(bus: Bus, found: Found, kept: Kept) -> list[Finding]:
    state = found.streams[bus.stream]["state"]
    last, mark = int(state["last_seq"]), found.marks.get(bus.stream)
    far = f"; it had got to {mark.last_seq} when it was last noted" if mark else ""
    findings = [
        Finding(True, f"nothing is missing: {state['messages']} messages up to {last}{far}"),
        Finding(
            None if found.consumers is None else True,
            "consumers: not known, we may not see them"
            if found.consumers is None
            else f"none of {len(found.consumers)} consumers is ahead of the stream",
        ),
    ]
    if last - int(state["first_seq"]) > MOST_READ:
        findings.append(Finding(None, "the stream is long: it was read here and there only"))
    if kept.given_up:
        text = f"{len(kept.given_up)} messages that cannot be read were given up before"
        findings.append(Finding(None, text))
    return findings


async def _deployed(bus: Bus, config: Config) -> list[Finding]:
    add_modules(config.host.modules)
    deployments = await read_deployments(bus)
    nodes = await read_nodes(bus)
    findings = [Finding(bool(nodes), f"{len(nodes)} host(s) alive")]
    findings += [Finding(False, f"host {n.name}: {n.trouble}") for n in nodes if n.trouble]
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
    findings += [Finding(None, line) for line in troubled(await read_upstreams(bus))]
    return findings
