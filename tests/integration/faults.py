"""What is done to a server: frozen as a machine that hangs, killed as by a power cut."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Protocol

from runtime.store.server import EmbeddedServer


class Process(Protocol):
    """Whatever runs as a process of its own."""

    @property
    def pid(self) -> int: ...


@contextlib.contextmanager
def frozen(server: Process) -> Iterator[None]:
    """Let it stand still: connections stay open, nothing is answered."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def restart(server: EmbeddedServer) -> None:
    """Kill it and start it again on the same port and store."""
    await server.kill()
    await server.start()
