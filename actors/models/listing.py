"""Asks a server for its models: whether it is there, takes our key, and what it offers."""

from typing import Any

import httpx

from actors.models.events import Timeouts, Upstream
from actors.models.exchange import Exchange, Request
from actors.models.objects import decode
from actors.models.trouble import Refused, explain, is_error, read_trouble
from actors.models.wording import Discretion

MOST_NAMES = 10_000


async def fetch(
    client: httpx.AsyncClient, upstream: Upstream, request: Request, timeouts: Timeouts
) -> dict[str, Any]:
    """The object that a server answers with; raises UpstreamFault."""
    discretion = Discretion(upstream.key)
    exchange = Exchange(client, timeouts, discretion)
    try:
        await exchange.open(request)
        body = _read(await exchange.read_all(), discretion)
        if is_error(body):
            raise explain(read_trouble(body), discretion)
        return body
    except Refused as refused:
        raise discretion.fault("unauthorized", refused.reason) from None
    finally:
        await exchange.close()


def names(body: dict[str, Any], rows: str, field: str) -> list[str]:
    """The names in a list of objects; those that are none are left out."""
    found = body.get(rows)
    listed = found if isinstance(found, list) else []
    every = (row.get(field) for row in listed[:MOST_NAMES] if isinstance(row, dict))
    return [name for name in every if isinstance(name, str) and name]


def _read(text: bytes, discretion: Discretion) -> dict[str, Any]:
    try:
        body = decode(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        said = discretion.quote(text)
        raise discretion.fault("garbled", f"expected a list of models, not {said}")
    return body
