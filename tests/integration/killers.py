"""Actors and workers some of whose messages end the process that handles them.

Run as a module, this is `callboard` with pins and ack waits short enough for tests.
"""

import asyncio
import ctypes
import os
import resource
import signal
import sys
import time
from typing import Literal

import msgspec

import runtime.pinned
import runtime.pull
import runtime.run
import runtime.worker
from runtime import Actor, Turn, Work, Worker, handler
from schemas.base import Address, Job, Message
from schemas.record import RunFailed

BEGUN = "KILLERS_BEGUN"
"""The variable that names the file to which every handler adds a line when it begins."""

How = Literal["exit", "fault", "kill", "block", "sleep", "leave"]


class Note(Message, tag="killer.note"):
    n: int


class End(Message, tag="killer.end"):
    how: How
    seconds: float = 0.0


class Ended(Message, tag="killer.ended"):
    n: int


class Do(Job[Ended], tag="killer.do"):
    n: int
    how: Literal["work", "exit", "leave"] = "work"


class Start(Message, tag="killer.start"):
    jobs: list[Do]


class KeeperState(msgspec.Struct):
    notes: list[int] = []
    done: list[int] = []
    failed: list[str] = []


class Keeper(Actor):
    """Keeps the numbers it is told, in order, unless it is told to end."""

    state: KeeperState

    @handler
    def note(self, message: Note, ctx: Turn) -> None:
        begin(f"note {ctx.key} {message.n}")
        self.state.notes.append(message.n)

    @handler
    def end(self, message: End, ctx: Turn) -> None:
        begin(f"{message.how} {ctx.key} 0")
        end(message.how, message.seconds)
        self.state.notes.append(-1)

    @handler
    def start(self, message: Start, ctx: Turn) -> None:
        for job in message.jobs:
            ctx.start(Address("hand", f"{ctx.key}-{job.n}"), job)

    @handler
    def hear(self, message: Ended, ctx: Turn) -> None:
        self.state.done.append(message.n)

    @handler
    def hear_failure(self, message: RunFailed, ctx: Turn) -> None:
        self.state.failed.append(message.reason)


class Hand(Worker):
    """Does jobs, some of which end its process."""

    @handler
    async def do(self, job: Do, ctx: Work) -> Ended:
        begin(f"job {ctx.key} {job.n}")
        await asyncio.sleep(0.2)  # so that others are at it, too, when the process ends
        if job.how != "work":
            end(job.how, 0)
        return Ended(n=job.n)


def begin(what: str) -> None:
    """Let the test know, whatever becomes of this process."""
    with open(os.environ[BEGUN], "ab", buffering=0) as file:
        file.write(f"{what} {os.getpid()}\n".encode())


def end(how: How, seconds: float) -> None:
    """End this process, or its loop, in one of the ways that there are."""
    if how == "exit":
        os._exit(1)
    elif how == "fault":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)
    elif how == "kill":  # as the system does when memory runs out
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "block":
        time.sleep(10**6)
    elif how == "leave":
        sys.exit("bye")
    elif how == "sleep":
        time.sleep(seconds)


if __name__ == "__main__":
    runtime.pinned.PIN_TIMEOUT = 0.5
    runtime.pinned.PULL_EVERY = 0.15
    runtime.pinned.PULL_EXPIRES = 0.3
    runtime.pull.ACK_WAIT = runtime.run.OVERDUE = 1.0
    runtime.worker.HEARTBEAT = 0.3
    from runtime.cli import main

    main()
