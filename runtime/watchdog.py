"""A thread that sees to it that the event loop turns, and ends a process whose loop never will.

A blocked loop sends no pulls, so its shards go to others by themselves within two seconds; what
does not end by itself is the process.
"""

import asyncio
import contextlib
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

log = structlog.get_logger()

EX_BLOCKED = 70
"""How a process ends whose loop was blocked for too long."""
EVERY = 0.25
TELL_AFTER = 1.0
"""Seconds without a turn of the loop after which its stack is logged."""
LAST_WORDS = 1.0
"""Seconds that those may take: whoever reads our log may be what blocks."""
SILENT = 5.0
"""Seconds beyond the limit after which a thread that does not even get to run is not waited for."""


@contextmanager
def watching(limit: float) -> Iterator[None]:
    """Watch the running loop; end the process when it does not turn for `limit` seconds."""
    dog = Watchdog(asyncio.get_running_loop(), limit)
    dog.start()
    try:
        yield
    finally:
        dog.stop()


class Watchdog:
    """Counts the turns of a loop, from the loop and from beside it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        self._loop = loop
        self._limit = limit
        self._turns = 0
        self._watched = threading.get_ident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._blocked = 0.0
        self._told = False

    def start(self) -> None:
        """Begin, in the loop's own thread."""
        self._turn()
        self._arm()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _turn(self) -> None:
        self._turns += 1
        if not self._ended.is_set():
            self._loop.call_later(EVERY, self._turn)

    def _watch(self) -> None:
        turns, before = -1, time.monotonic()
        while not self._ended.wait(EVERY):
            now = time.monotonic()
            if turns != self._turns:
                turns = self._turns
                self._go_on()
            else:
                # Whoever was frozen as a whole wakes up late, and its loop has blocked nothing.
                self._blocked += min(now - before, 2 * EVERY)
                self._judge()
            before = now

    def _go_on(self) -> None:
        if self._told:
            log.warning("loop_goes_on", blocked=round(self._blocked, 1))
        self._blocked, self._told = 0.0, False
        self._arm()

    def _arm(self) -> None:
        # A handler that never lets go of the interpreter's lock keeps this thread from running;
        # this one needs no lock. It also ends who was frozen for so long, whom others replaced.
        with contextlib.suppress(RuntimeError, ValueError, OSError):  # no standard error
            faulthandler.dump_traceback_later(self._limit + SILENT, exit=True)

    def _judge(self) -> None:
        if self._blocked >= TELL_AFTER and not self._told:
            self._told = True
            log.error("loop_blocked", seconds=round(self._blocked, 1), exception=self._stack())
        if self._blocked >= self._limit:
            self._end()

    def _end(self) -> None:
        """Say where everybody stands, and end at once: nothing here can be ended in order."""
        words = threading.Thread(target=self._say_last_words, daemon=True)
        words.start()
        words.join(LAST_WORDS)
        os._exit(EX_BLOCKED)

    def _say_last_words(self) -> None:
        log.critical("loop_blocked_for_good", seconds=round(self._blocked), limit=self._limit)
        with contextlib.suppress(RuntimeError, ValueError, OSError):
            faulthandler.dump_traceback(sys.stderr, all_threads=True)

    def _stack(self) -> str:
        frame: FrameType | None = sys._current_frames().get(self._watched)
        return "".join(traceback.format_stack(frame)) if frame else ""
