"""A fake upstream as a program of its own, for demonstrations and measurements.

`python -m actors.fakes openai --port 9100`, or `callboard fake openai --port 9100`.
"""

import argparse
import asyncio
import signal
import sys
from contextlib import suppress

from actors.fakes.upstream import fake


async def serve(given: argparse.Namespace) -> int:
    """Serve until stopped. Raises ConfigError for what cannot be, OSError for a port in use."""
    stopped = asyncio.Event()
    upstream = fake(
        given.kind,
        fault=given.fault,
        text=given.text,
        models=tuple(given.model),
        tokens=given.tokens,
        rate=given.rate,
        port=given.port,
    )
    async with upstream:
        sys.stdout.write(f"{given.kind} on {upstream.url}\n")
        sys.stdout.flush()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
    return 0
