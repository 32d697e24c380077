"""Nodes: places where models run, which offer themselves here, and what hosts see of them.

An offer is a heartbeat: it is over 30 s after it was last made.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge.asking import answer, wait_for_bus
from edge.auth import NODES_READ, NODES_WRITE
from edge.body import read_json
from edge.operation import Operation, Parameter
from edge.problem import Refusal, quote
from edge.shared import Shared
from edge.storegate import unless_in_trouble
from runtime.bus import Stored
from runtime.kv import Bucket
from schemas.envelope import UNREADABLE, encode
from schemas.upstream import (
    NODE,
    SEEN,
    TTL,
    RegisteredNode,
    UpstreamReport,
    UpstreamSeen,
    node_key,
)

TAG = "nodes"
NAME = Parameter("name", str, "The name of the node.")
BUCKET = "nodes"
MOST_SERVED = 32
FORGET_AFTER = TTL
Told = TypeVar("Told")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[!-~]+$(?!\n)")]


class Offering(msgspec.Struct, kw_only=True):
    """A node offers itself for some models; again every 10 seconds, for it is forgotten after 30.

    `serves` are ids of models or names of deployments; one takes the offer only if its options
    say `registry = true`. `paths` is how many requests it takes at once (0: any number).
    """

    name: Name
    url: Annotated[str, msgspec.Meta(max_length=500)]
    serves: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=MOST_SERVED)]
    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    paths: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0


class Offered(msgspec.Struct):
    """It is stored. Unless it is said again within `again_within` seconds, it is forgotten."""

    name: str
    again_within: float


class SeenUpstream(UpstreamSeen, frozen=True, kw_only=True, omit_defaults=False):
    """An upstream of a deployment (`actor`) as one host saw it at a time."""

    actor: str
    host: str
    at: datetime


class OfferedNode(RegisteredNode, frozen=True, kw_only=True, omit_defaults=False):
    """A node as it offered itself at a time."""


class NodesView(msgspec.Struct):
    """What hosts see of their upstreams, and who has offered itself as one."""

    upstreams: list[SeenUpstream]
    registered: list[OfferedNode]


class Nodes:
    """The operations on nodes."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._bucket = Bucket(shared.bus, BUCKET)

    def operations(self) -> Sequence[Operation]:
        """The table of them."""
        return (
            Operation(
                "GET",
                "/v1/nodes",
                self.view,
                "See the nodes that models run on",
                name="nodes",
                scope=NODES_READ,
                answers={200: NodesView},
                tag=TAG,
            ),
            Operation(
                "POST",
                "/v1/nodes",
                self.offer,
                "Offer a node, and say again that it is there",
                name="offer_node",
                scope=NODES_WRITE,
                body=Offering,
                answers={200: Offered},
                repeatable=False,
                tag=TAG,
            ),
            Operation(
                "DELETE",
                "/v1/nodes/{name}",
                self.withdraw,
                "Take back what a node offered",
                name="withdraw_node",
                scope=NODES_WRITE,
                answers={204: "It offers nothing any more"},
                repeatable=False,
                variables=(NAME,),
                tag=TAG,
            ),
        )

    async def view(self, request: Request) -> Response:
        """Answer who is there, and how they do."""
        await wait_for_bus(self._shared.bus)
        found = await self._bucket.all()
        reports = _read(found, SEEN, UpstreamReport)
        view = NodesView(
            upstreams=[_seen(report, each) for report in reports for each in report.upstreams],
            registered=_read(found, NODE, OfferedNode),
        )
        return answer(view)

    async def offer(self, request: Request) -> Response:
        """Store an offer."""
        body: Offering = await read_json(request, Offering)
        check_url(body.url)
        await wait_for_bus(self._shared.bus)
        node = RegisteredNode(
            name=body.name,
            url=body.url,
            serves=tuple(body.serves),
            weight=body.weight,
            paths=body.paths,
            at=datetime.now(UTC),
        )
        putting = self._bucket.put(node_key(body.name), encode(node), ttl=TTL)
        await unless_in_trouble(self._shared.store, putting)
        return answer(Offered(body.name, TTL.total_seconds()))

    async def withdraw(self, request: Request) -> Response:
        """Forget an offer, if there is one."""
        await wait_for_bus(self._shared.bus)
        key = node_key(str(request.path_params["name"]))
        if await self._bucket.get(key) is not None:
            deleting = self._bucket.delete(key, forget=FORGET_AFTER)
            await unless_in_trouble(self._shared.store, deleting)
        return Response(status_code=204)


def check_url(url: str) -> None:
    """Raise Refusal 422 unless a URL is one of HTTP, without a login, a query or a fragment."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        good = good and url.isascii() and url.isprintable() and " " not in url
        bare = not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        good = bare = False
    if good and bare:
        return
    # What is refused may hold a password, so it is not repeated.
    reason = "expected http://host:port/path without a login, a query or a fragment"
    shown = quote(url) if good is False and "@" not in url else "this URL"
    faults = [{"detail": reason, "pointer": "/url"}]
    raise Refusal(422, "invalid_field", f"/url: {shown}, {reason}", errors=faults)


def _seen(report: UpstreamReport, one: UpstreamSeen) -> SeenUpstream:
    facts = msgspec.structs.asdict(one)
    return SeenUpstream(actor=report.actor, host=report.host, at=report.at, **facts)


def _read(found: dict[str, Stored], prefix: str, kind: type[Told]) -> list[Told]:
    """What stands under a prefix, in the order of the keys; what cannot be read is left out."""
    read: list[Told] = []
    for key in sorted(found):
        if key.startswith(prefix):
            try:
                read.append(msgspec.json.decode(found[key].data, type=kind))
            except UNREADABLE:
                continue
    return read
