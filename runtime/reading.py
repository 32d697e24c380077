"""Reading a log to its end, whatever becomes of the connection meanwhile."""

import asyncio
from collections.abc import AsyncGenerator

import structlog

from runtime.bus import Bus, Stored
from runtime.errors import BusFault, Denied

log = structlog.get_logger()

AGAIN_AFTER = 0.1
FOR_EVER = float("inf")


async def read_on(
    bus: Bus, subject: str, *, after: int = 0, stream: str = "", patience: float = FOR_EVER
) -> AsyncGenerator[Stored, None]:
    """Every message on a subject past a sequence, oldest first, as `Bus.read_all` has it.

    Read a page at a time, of at most a megabyte. While the server is away it is waited for;
    raises Denied if it says no, BusFault if it gives nothing for `patience` seconds.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while True:
        try:
            async for page in bus.pages(subject, after=after, stream=stream):
                for stored in page:
                    after = stored.seq
                    yield stored
                until = loop.time() + patience
            return
        except Denied:
            raise
        except BusFault as fault:
            if loop.time() >= until:
                raise
            log.debug("read_again", subject=subject, error=str(fault))
        await wait_for_bus(bus, until)


async def wait_for_bus(bus: Bus, until: float = FOR_EVER) -> None:
    """Wait a moment, and then until there is a connection, or a moment of the loop's clock."""
    await asyncio.sleep(AGAIN_AFTER)
    try:
        async with asyncio.timeout_at(None if until == FOR_EVER else until):
            await bus.link.connected.wait()
    except TimeoutError:
        return
