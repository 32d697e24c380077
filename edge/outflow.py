"""Answers that are sent piece by piece, to a peer that may leave or stop reading at any time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import structlog
from starlette.types import Message, Receive, Scope, Send

from edge.problem import quote

log = structlog.get_logger("edge")

WRITE_WITHIN = 10.0
"""Seconds in which a peer must take what is sent. Then it is closed."""

Write: TypeAlias = Callable[[bytes], Awaitable[None]]
Produce: TypeAlias = Callable[[Write], Awaitable[None]]


class PeerStalled(Exception):
    """The peer has not read for too long."""


async def pour(
    scope: Scope,
    receive: Receive,
    send: Send,
    headers: Mapping[str, str],
    produce: Produce,
    *,
    within: float = WRITE_WITHIN,
) -> None:
    """Send a 200 whose body `produce` writes, until it is done or its peer is.

    `produce` is cancelled when the peer leaves. What it raises is raised here: the answer is
    then cut off, never completed.
    """

    async def write(body: bytes) -> None:
        await _send(send, {"type": "http.response.body", "body": body, "more_body": True}, within)

    async def answer() -> None:
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await _send(send, {"type": "http.response.start", "status": 200, "headers": raw}, within)
        await produce(write)
        await _send(send, {"type": "http.response.body", "body": b""}, within)

    tasks = [asyncio.create_task(answer()), asyncio.create_task(until_left(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if tasks[0].cancelled():
        return
    try:
        tasks[0].result()
    except PeerStalled:
        log.info("peer_stalled", path=quote(scope["path"]), seconds=within)


async def until_left(receive: Receive) -> None:
    """Return when the peer has closed the connection; its request has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, message: Message, within: float) -> None:
    try:
        async with asyncio.timeout(within):
            await send(message)
    except TimeoutError:
        raise PeerStalled from None
