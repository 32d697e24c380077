"""`callboard up`: one process that keeps the server, a host and the edge running.

Each is a process of its own, so that any of them may be killed and is started again. A child
notices that its parent is gone by the end of its standard input, on every platform.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger()

STEADY = 10.0
"""Seconds after which a process counts as started."""
FIRST_WAIT = 0.2
LAST_WAIT = 5.0
GRACE = 12.0

EX_CONFIG = 78
EX_TEMPFAIL = 75
HOPELESS = (EX_CONFIG, EX_TEMPFAIL)
"""Exit codes that another start would only repeat: bad configuration, address in use."""


class Child:
    """One process that is started again whenever it ends."""

    def __init__(self, name: str, *arguments: str, environment: dict[str, str]) -> None:
        self.name = name
        self._arguments = arguments
        self.environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def keep_running(self) -> int:
        """Run until cancelled; returns an exit code that another start would only repeat."""
        wait = FIRST_WAIT
        while True:
            began = time.monotonic()
            code = await self._run()
            if code in HOPELESS:
                return code
            wait = FIRST_WAIT if time.monotonic() - began > STEADY else min(wait * 2, LAST_WAIT)
            log.warning("process_ended", process=self.name, code=code, again_in=wait)
            await asyncio.sleep(wait)

    async def _run(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment, "CALLBOARD_CHILD": "1"},
        )
        try:
            return await self._process.wait()
        except asyncio.CancelledError:
            await self._end(self._process)
            raise

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Let it drain, then insist."""
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(GRACE):
                await process.wait()
        except TimeoutError:
            log.error("process_killed", process=self.name)
            with contextlib.suppress(ProcessLookupError):
                process.kill()


async def until_stopped(work: Callable[[], Awaitable[int]]) -> int:
    """Run `work` until it ends, or until SIGTERM, SIGINT or the parent's end cancels it."""
    task = asyncio.ensure_future(work())
    loop = asyncio.get_running_loop()
    told = False

    def stop() -> None:
        # Ctrl-C reaches the whole group, and the parent passes it on: once is enough, or the
        # second would cut the draining short.
        nonlocal told
        if not told:
            told = True
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        # Windows has no handlers on a loop; there Ctrl-C ends asyncio.run by itself.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop)
    if os.environ.get("CALLBOARD_CHILD"):
        watch = threading.Thread(target=_wait_for_end_of_input, args=(loop, stop), daemon=True)
        watch.start()
    try:
        return await task
    except asyncio.CancelledError:
        return 0


def _wait_for_end_of_input(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    # Not through sys.stdin: its lock would be held while the interpreter shuts down.
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    with contextlib.suppress(RuntimeError):  # the loop may be closed by now
        loop.call_soon_threadsafe(stop)
