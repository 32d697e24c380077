"""What a fake upstream was asked, and when it sent what: the other side of every measurement.

Times are those of `time.monotonic`, which all processes of a machine share.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Outcome: TypeAlias = Literal["", "whole", "broken", "left"]
"""Of an answer: under way, sent to its end, broken off by a fault, left by the client."""


@dataclass(slots=True, eq=False)
class Asked:
    """One request. `headers` and `query` are without secrets; `body` is decoded if it is JSON.

    `generates` tells a question to a model from lists of models and the like. `tokens` are the
    pieces of text sent so far. `note` is what a provider adds, such as the name of a session.
    """

    number: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    secret: str = field(default="", repr=False)
    model: str = ""
    switches: dict[str, str] = field(default_factory=dict)
    generates: bool = False
    at: float = field(default_factory=time.monotonic)
    first_byte_at: float | None = None
    first_token_at: float | None = None
    ended_at: float | None = None
    tokens: int = 0
    status: int = 0
    outcome: Outcome = ""
    note: str = ""


class Ledger:
    """Every request, in the order of arrival."""

    def __init__(self) -> None:
        self.calls: list[Asked] = []
        self._changed: asyncio.Event | None = None

    def change(self) -> None:
        """Let those who wait for something look again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def until(self, true: Callable[[], bool], within: float) -> None:
        """Return as soon as something is so. Raises TimeoutError if it does not become so."""
        async with asyncio.timeout(within):
            while not true():
                self._changed = self._changed or asyncio.Event()
                await self._changed.wait()


class Gate:
    """Where answers wait until a test lets them on. `waiting` is how many stand there."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._permits = asyncio.Semaphore(0)
        self._open = False
        self.waiting = 0

    async def passed(self) -> None:
        """Wait for a permit, unless the gate stands open."""
        if self._open:
            return
        self.waiting += 1
        self._ledger.change()
        try:
            await self._permits.acquire()
        finally:
            self.waiting -= 1
        if self._open:
            self._permits.release()

    def release(self, count: int = 1) -> None:
        """Let so many on, now or when they come."""
        for _ in range(count):
            self._permits.release()

    def open(self) -> None:
        """Let everything on from now on."""
        self._open = True
        self._permits.release()
