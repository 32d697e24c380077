"""Tells everybody what this host sees of a deployment's upstreams, and hears of nodes that offer
themselves as further ones. Both are values of the bucket `nodes` (schemas/upstream.py).
"""

import asyncio
import contextlib
import ipaddress
from datetime import UTC, datetime

import msgspec
import structlog

from actors.models.breaker import Breaker
from actors.models.events import Upstream
from actors.models.options import Network, Terms
from actors.models.upstreams import Fleet, Place
from actors.outside import check_url, port_of, resolve
from runtime.errors import BusFault
from runtime.workplace import Workplace
from schemas.envelope import UNREADABLE
from schemas.upstream import (
    NODE,
    REPORT_EVERY,
    TTL,
    RegisteredNode,
    UpstreamReport,
    UpstreamStatus,
    seen_key,
)

log = structlog.get_logger()

LOOK_EVERY = 5.0
SOONEST = 1.0
"""Seconds between two reports, however often something changes."""
MOST_NODES = 64

_decode = msgspec.json.Decoder(RegisteredNode).decode


def build_fleet(terms: Terms) -> Fleet:
    """The upstreams that a deployment names."""
    return Fleet(
        Place(upstream, _breaker(terms), weight=one.weight, paths=one.paths)
        for upstream, one in terms.upstreams
    )


class Watch:
    """Keeps the fleet and the bucket in step, from `start` to `stop`."""

    def __init__(self, fleet: Fleet, terms: Terms, workplace: Workplace) -> None:
        self._fleet = fleet
        self._terms = terms
        self._workplace = workplace
        self._stirred = asyncio.Event()
        self._offers: dict[str, RegisteredNode] = {}
        self._refused: dict[str, str] = {}
        self._sid = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin; nodes that are there by now are upstreams when it returns."""
        self._tasks = [asyncio.create_task(self._report())]
        if self._terms.networks:
            # Listen before reading, or what is said in between is missed.
            self._sid = self._workplace.nodes.follow(self._hear)
            await self._read()
            self._tasks.append(asyncio.create_task(self._look()))

    async def stop(self) -> None:
        """Tell and hear nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._sid:
            self._workplace.bus.unsubscribe(self._sid)

    # -- telling ---------------------------------------------------------------------------

    async def _report(self) -> None:
        """Tell every REPORT_EVERY, and at once when the state of one is another."""
        while True:
            self._fleet.changed.clear()
            told = self._states()
            await self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_EVERY.total_seconds()):
                    await asyncio.sleep(SOONEST)
                    while self._states() == told:
                        await self._fleet.changed.wait()
                        self._fleet.changed.clear()

    def _states(self) -> dict[str, UpstreamStatus]:
        return {one.name: one.status for one in self._fleet.seen()}

    async def _tell(self) -> None:
        place = self._workplace
        report = UpstreamReport(
            actor=place.deployment.name,
            host=place.host,
            at=datetime.now(UTC),
            upstreams=self._fleet.seen(),
        )
        key = seen_key(report.actor, report.host)
        try:
            await place.nodes.put(key, msgspec.json.encode(report), ttl=TTL)
        except BusFault as fault:
            log.debug("upstreams_not_told", actor=report.actor, error=str(fault))

    # -- hearing ---------------------------------------------------------------------------

    def _hear(self, key: str, value: bytes | None) -> None:
        if key.startswith(NODE):
            self._stirred.set()

    async def _look(self) -> None:
        """What somebody says is a hint; who is silent is heard of by reading only."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._stirred.wait()
                    await asyncio.sleep(SOONEST / 10)  # it is said before it is stored
            self._stirred.clear()
            await self._read()

    async def _read(self) -> None:
        try:
            found = await self._workplace.nodes.all(NODE)
        except BusFault as fault:
            log.debug("nodes_not_read", error=str(fault))
            return
        offers: dict[str, RegisteredNode] = {}
        for key, stored in sorted(found.items()):
            try:
                node = _decode(stored.data)
            except UNREADABLE as error:
                self._refuse(key, f"unreadable: {error}")
                continue
            if self._is_for_us(node) and len(offers) < MOST_NODES:
                offers[node.name] = node
        await self._take(offers)

    def _is_for_us(self, node: RegisteredNode) -> bool:
        options = self._terms.options
        names = {self._workplace.deployment.name, options.model, options.id, *options.aliases}
        return bool(names & set(node.serves))

    async def _take(self, offers: dict[str, RegisteredNode]) -> None:
        """Make the fleet what is offered now; one that offers the same again stays as it is."""
        places = self._fleet.places
        for name in self._offers.keys() - offers.keys():
            del self._offers[name]
            if places[name].registered:
                log.info("node_left", actor=self._workplace.deployment.name, node=name)
                del places[name]
        for name, node in offers.items():
            before = self._offers.get(name)
            if before is not None and _same(before, node):
                continue
            if (name in places and not places[name].registered) or not await self._admit(node):
                continue
            self._offers[name] = node
        self._fleet.stir()

    async def _admit(self, node: RegisteredNode) -> bool:
        """Take a node in if it may be called; it gets none of our keys."""
        try:
            url = await locate(node.url, self._terms.networks)
        except (ValueError, OSError) as error:
            self._refuse(node.name, str(error))
            return False
        self._refused.pop(node.name, None)
        log.info("node_joined", actor=self._workplace.deployment.name, node=node.name, url=url)
        self._fleet.places[node.name] = Place(
            Upstream(url=url, name=node.name),
            _breaker(self._terms),
            weight=node.weight,
            paths=node.paths,
            registered=True,
        )
        return True

    def _refuse(self, name: str, reason: str) -> None:
        """The same reason is logged once."""
        if self._refused.get(name) != reason:
            self._refused[name] = reason
            actor = self._workplace.deployment.name
            log.warning("node_refused", actor=actor, node=name, reason=reason)


async def locate(url: str, networks: tuple[Network, ...]) -> str:
    """A URL that leads into one of these networks, whatever its name may resolve to later.

    Over HTTP the name is replaced by its address; over HTTPS the certificate stands for it.
    Raises ValueError, or OSError if the name has no address.
    """
    parsed = check_url(url, allow_private=True)
    if parsed.query:
        raise ValueError("url: leave out what follows the ?")
    addresses = await resolve(parsed.host, port_of(parsed), allow_private=True)
    for address in addresses:
        parts = ipaddress.ip_address(address.partition("%")[0])
        if not any(parts in network for network in networks):
            listed = ", ".join(map(str, networks))
            raise ValueError(f"url: {parsed.host} is {address}, expected one in {listed}")
    if parsed.scheme == "http":
        parsed = parsed.copy_with(host=addresses[0])
    return str(parsed).rstrip("/")


def _same(one: RegisteredNode, other: RegisteredNode) -> bool:
    return msgspec.structs.replace(one, at=other.at) == other


def _breaker(terms: Terms) -> Breaker:
    return Breaker(terms.options.breaker.faults, terms.rest)
