"""Waiting for what is sure to come, and failing if it does not."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

PATIENCE = 10.0

Seen = TypeVar("Seen")


async def until(look: Callable[[], Seen | None], timeout: float = PATIENCE) -> Seen:
    """Look again and again until what is seen is true; raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while True:
            if seen := look():
                return seen
            await asyncio.sleep(0.005)


async def until_known(
    look: Callable[[], Awaitable[Seen | None]], timeout: float = PATIENCE
) -> Seen:
    """The same for what has to be asked for."""
    async with asyncio.timeout(timeout):
        while True:
            if seen := await look():
                return seen
            await asyncio.sleep(0.005)
