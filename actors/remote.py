"""A child in a process of its own, that reaches the relay by HTTP only.

LYNKER_API_BASE=http://127.0.0.1:8000 RELAY_API_KEY=… \
    python -m actors.remote --name child_bazi --call actors.commands:run

Next: actors/relay.py for what it says, actors/journal.py for what it remembers.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import structlog

from actors.function import Function
from actors.journal import Journal, JournalFault
from actors.limits import as_json, clip
from actors.relay import Declined, KeyRefused, Relay, Taken, Unreachable
from runtime.log import configure, mask
from schemas.subjects import ACTOR_NAME

log = structlog.get_logger()

TRIES = 3
LONGEST_PAUSE = 30.0
STATE = Path("child_worker_state.json")
LEASED_BY_ANOTHER = "leased_by_another"


class RemoteChild:
    """Takes tasks one at a time, does each once, and calls back until it is heard.

    `pause` is how many seconds it waits before it tries something again the first time.
    """

    def __init__(
        self,
        relay: Relay,
        journal: Journal,
        function: Function,
        *,
        seconds: float = 60.0,
        wait: float = 25.0,
        timeout: float = 600.0,
        pause: float = 1.0,
    ) -> None:
        self._relay = relay
        self._journal = journal
        self._function = function
        self._seconds = seconds
        self._wait = wait
        self._timeout = timeout
        self._pause = pause
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Finish what is in hand, and take nothing more."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped; raises KeyRefused."""
        log.info("child_ready", child=self._relay.child_id)
        failures = 0
        while not self._stopping.is_set():
            for task_id in self._journal.unsettled():
                await self._call_back(task_id)
            try:
                taken = await self._take()
            except (Unreachable, Declined) as fault:
                if isinstance(fault, KeyRefused):
                    raise
                await self._wait_after(fault, failures)
                failures += 1
                continue
            failures = 0
            if taken is not None:
                await self._handle(*taken)
        log.info("child_stopped", child=self._relay.child_id)

    async def _take(self) -> tuple[Taken, dict[str, Any]] | None:
        """Wait for a task, or for the word to stop."""
        take = asyncio.create_task(self._relay.take(self._seconds, self._wait))
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((take, stop), return_when=asyncio.FIRST_COMPLETED)
            return take.result() if take.done() else None
        finally:
            take.cancel()
            stop.cancel()

    async def _wait_after(self, fault: Exception, failures: int) -> None:
        pause = min(self._pause * 2**failures, LONGEST_PAUSE)
        log.warning("take_failed", error=str(fault), retry_in=pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause)

    # -- one task --------------------------------------------------------------------------

    async def _handle(self, taken: Taken, order: dict[str, Any]) -> None:
        known = self._journal.find(taken.task_id)
        log.info("task_taken", task=taken.task_id, attempt=taken.attempt, cmd=order.get("cmd"))
        if known is not None and known.status != "executed":
            await self._release(taken, known.status)
            return
        keeping = asyncio.create_task(self._keep_lease(taken))
        try:
            if known is None:
                said, result = await self._execute(taken, order)
            else:
                log.info("task_not_executed_again", task=taken.task_id)
                said, result = known.said, known.result
            self._journal.execute(taken.task_id, said, result, taken.lease)
            await self._call_back(taken.task_id)
        finally:
            keeping.cancel()

    async def _release(self, taken: Taken, status: str) -> None:
        """Give back at once what we have settled before: it is not done a second time here."""
        log.warning("task_known", task=taken.task_id, status=status)
        try:
            await self._relay.release(taken, f"its child has {status} it before")
        except (Unreachable, Declined) as fault:
            if isinstance(fault, KeyRefused):
                raise
            # Its lease ends by itself.
            log.warning("task_not_released", task=taken.task_id, error=str(fault))

    async def _execute(self, taken: Taken, order: dict[str, Any]) -> tuple[str, Any]:
        """Do it: the status and the result to call back with."""
        order = {key: value for key, value in order.items() if key not in ("lease", "until")}
        try:
            async with asyncio.timeout(self._timeout):
                result = as_json(await self._function.do(order))
        except Exception as error:  # whatever it is, the relay is to know
            log.error("task_failed", task=taken.task_id, exc_info=error)
            timed_out = isinstance(error, TimeoutError) and not str(error)
            reason = f"no result within {self._timeout:g} s" if timed_out else str(error)
            return "failed", {"error": clip(reason or type(error).__name__)}
        log.info("task_executed", task=taken.task_id)
        # The relay takes an object as a result, or nothing.
        return "done", result if result is None or isinstance(result, dict) else {"value": result}

    async def _keep_lease(self, taken: Taken) -> None:
        """Say that we are still at it, until told that the task is not ours any more."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            try:
                await self._relay.extend(taken, self._seconds)
                log.debug("lease_extended", task=taken.task_id)
            except Unreachable as fault:
                log.warning("lease_not_extended", task=taken.task_id, error=str(fault))
            except Declined as no:
                # What comes of it is still offered: the first result wins, whoever brings it.
                log.warning("lease_lost", task=taken.task_id, error=str(no))
                return

    # -- calling back ----------------------------------------------------------------------

    async def _call_back(self, task_id: str) -> None:
        """Offer a result up to TRIES times; only a success marks the task as processed.

        What fails stays, and is offered again later or after a restart.
        """
        entry = self._journal.find(task_id)
        assert entry is not None
        for number in range(1, TRIES + 1):
            try:
                await self._relay.call_back(task_id, entry.said, entry.result, entry.lease)
            except Unreachable as fault:
                pause = self._pause * 2 ** (number - 1) if number < TRIES else None
                log.warning(
                    "callback_failed", task=task_id, number=number, retry_in=pause, error=str(fault)
                )
                if pause is not None:
                    await asyncio.sleep(pause)
            except Declined as no:
                self._heed(task_id, no)
                return
            else:
                self._journal.settle(task_id, "processed")
                log.info("task_processed", task=task_id, status=entry.said)
                return

    def _heed(self, task_id: str, no: Declined) -> None:
        if isinstance(no, KeyRefused):
            raise no
        if no.code == LEASED_BY_ANOTHER:
            # Whoever holds it now may still fail, and then ours is wanted.
            log.warning("callback_not_ours", task=task_id, error=str(no))
            return
        self._journal.settle(task_id, "refused")
        log.error("callback_refused", task=task_id, error=str(no))


# -- the program ------------------------------------------------------------------------------


def read_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with a sentence for what is wrong with it."""
    parser = argparse.ArgumentParser(prog="python -m actors.remote", description=__doc__)
    parser.add_argument("--name", required=True, help="the child's name, as tasks are sent to it")
    parser.add_argument("--call", required=True, help="package.module:function")
    parser.add_argument(
        "--child-id", default="", help="who we say we are; made up from the name unless given"
    )
    parser.add_argument("--state", type=Path, default=STATE, help="what was worked on, as JSON")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a lease, 1 to 3600")
    parser.add_argument("--wait", type=float, default=25.0, help="seconds per look for a task")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one task")
    given = parser.parse_args(argv)
    if not ACTOR_NAME.fullmatch(given.name):
        parser.error(f"--name {given.name!r}: expected {ACTOR_NAME.pattern}")
    if not 1 <= given.seconds <= 3600:
        parser.error(f"--seconds {given.seconds:g}: expected 1 to 3600")
    if not 0 <= given.wait <= 30:
        parser.error(f"--wait {given.wait:g}: expected 0 to 30")
    if not given.timeout > 0:
        parser.error(f"--timeout {given.timeout:g}: expected more than 0")
    return given


def read_environment() -> tuple[str, str]:
    """Where the relay is, and our key for it; exits with a sentence if either is missing."""
    base, key = os.environ.get("LYNKER_API_BASE", ""), os.environ.get("RELAY_API_KEY", "")
    url = httpx.URL(base) if base.isascii() else httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise SystemExit(f"LYNKER_API_BASE is {base!r}, expected the relay, like http://host:8008")
    if not (key and key.isascii() and key.isprintable()):
        raise SystemExit("RELAY_API_KEY is missing or not plain text; set it to the relay's key")
    mask(key)
    return base, key


async def main(argv: Sequence[str] | None = None) -> None:
    """Run the child until SIGTERM or SIGINT; exits with a sentence if it cannot go on."""
    given, (base, key) = read_arguments(argv), read_environment()
    try:
        function, journal = Function(given.call), Journal(given.state)
    except (ValueError, JournalFault) as error:
        raise SystemExit(str(error)) from None
    configure("console" if sys.stderr.isatty() else "json")
    child_id = given.child_id or journal.identify(given.name)
    relay = Relay(base, key, name=given.name, child_id=child_id)
    child = RemoteChild(
        relay,
        journal,
        function,
        seconds=given.seconds,
        wait=given.wait,
        timeout=given.timeout,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows raises KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, child.stop)
    try:
        await child.run()
    except KeyRefused as no:
        raise SystemExit(f"the relay does not take RELAY_API_KEY: {no}") from None
    finally:
        journal.close()
        await relay.close()


if __name__ == "__main__":
    asyncio.run(main())
