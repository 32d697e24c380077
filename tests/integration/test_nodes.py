"""Nodes over HTTP: they offer themselves, are seen, and are forgotten when they fall silent."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from runtime.kv import Bucket
from runtime.testing import Kit, running
from schemas.envelope import encode
from schemas.upstream import UpstreamReport, UpstreamSeen, seen_key
from tests.integration.asking import models
from tests.integration.edges import Edge, serving
from tests.integration.waiting import until_known

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE = {"name": "gpu-1", "url": "http://127.0.0.1:9/v1", "serves": ["gemini-2.5-flash"], "paths": 2}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit() -> AsyncIterator[Kit]:
    async with running(**models()) as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(kit: Kit) -> AsyncIterator[Edge]:
    async with serving(kit.server.url) as edge:
        yield edge


async def registered(edge: Edge) -> list[Any]:
    found: list[Any] = (await edge.get("/v1/nodes")).json()["registered"]
    return found


@pytest.mark.promise("AC-13", "AC-52")
async def test_a_node_offers_itself_and_is_forgotten_when_it_takes_that_back(
    kit: Kit, edge: Edge
) -> None:
    offered = await edge.client.post("/v1/nodes", json=NODE)
    [seen] = await registered(edge)
    stored = await kit.bus.last("$KV.nodes.node.gpu-1", stream="KV_nodes")
    gone = await edge.client.delete("/v1/nodes/gpu-1")
    again = await edge.client.delete("/v1/nodes/gpu-1")

    assert offered.json() == {"name": "gpu-1", "again_within": 30.0}
    assert {key: seen[key] for key in NODE} == NODE
    assert stored is not None
    assert stored.headers["Nats-TTL"] == "30s"
    assert (gone.status_code, again.status_code) == (204, 204)
    assert await registered(edge) == []


@pytest.mark.promise("AC-13", "AC-52")
async def test_what_hosts_see_of_their_upstreams_can_be_seen(kit: Kit, edge: Edge) -> None:
    one = UpstreamSeen(name="a", url="http://127.0.0.1:9", status="429_LIMIT", reason="too many")
    report = UpstreamReport(actor="gemini", host="h", at=datetime.now(UTC), upstreams=(one,))
    await Bucket(kit.bus, "nodes").put(seen_key("gemini", "h"), encode(report))

    async def is_there() -> Any:
        return (await edge.get("/v1/nodes")).json()["upstreams"]

    [seen] = await until_known(is_there)

    assert (seen["actor"], seen["host"], seen["status"]) == ("gemini", "h", "429_LIMIT")
    assert seen["reason"] == "too many"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a b"),
        ("name", "x" * 65),
        ("url", "ftp://x"),
        ("url", "127.0.0.1:9"),
        ("url", "http://"),
        ("url", "http://me:secret@127.0.0.1/"),
        ("url", "http://127.0.0.1/?key=secret"),
        ("url", "http://127.0.0.1:99999/"),
        ("serves", []),
        ("weight", 0),
        ("paths", -1),
    ],
)
async def test_an_offer_that_is_not_as_expected_is_refused_and_tells_no_secret(
    edge: Edge, field: str, value: Any
) -> None:
    refused = await edge.client.post("/v1/nodes", json=NODE | {field: value})

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_field")
    assert refused.json()["errors"][0]["pointer"] == f"/{field}"
    assert "secret" not in refused.text


async def test_only_a_key_offers_a_node(edge: Edge) -> None:
    client = edge.client
    request = client.build_request("POST", "/v1/nodes", json=NODE)
    del request.headers["X-Relay-API-Key"]
    refused = await client.send(request)
    read = await edge.get_nameless("/v1/nodes")

    assert refused.status_code == 401
    assert read.status_code == 200
