"""Whether a connection works again, within the five seconds that are promised."""

import asyncio
import contextlib
import os
from collections.abc import Iterator

from runtime.bus import new_id
from runtime.connection import Connection
from runtime.errors import Unavailable

HEALED_WITHIN = 5.0


async def healed(link: Connection, timeout: float = HEALED_WITHIN) -> None:
    """Wait until the connection hears itself again; raises TimeoutError."""
    heard = asyncio.Event()
    subject = f"healed.{new_id()}"
    handle = link.subscribe(subject, lambda _: heard.set())
    try:
        async with asyncio.timeout(timeout):
            while not heard.is_set():
                with contextlib.suppress(Unavailable):
                    link.publish(subject, b"")
                await asyncio.sleep(0.02)
    finally:
        link.unsubscribe(handle)


@contextlib.contextmanager
def leaving_nothing(link: Connection) -> Iterator[None]:
    """What waits, listens, runs and is open afterwards is what was before."""
    tasks, listening = len(asyncio.all_tasks()), len(link._subscriptions)
    files = len(os.listdir("/proc/self/fd"))
    yield
    assert set(link._inbox.asked) <= {f"{link._inbox.name}.probe"}
    assert len(link._subscriptions) == listening
    assert len(asyncio.all_tasks()) <= tasks
    assert len(os.listdir("/proc/self/fd")) <= files
