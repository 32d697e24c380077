"""Runs a program with an order: JSON on its standard input, JSON on its standard output."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from asyncio.subprocess import Process as Running
from collections.abc import Mapping
from typing import Any

import msgspec

from actors.limits import RESULT_LIMIT, clip
from runtime.config import duration
from runtime.errors import ConfigError, Reject

TAIL = 4096
REAP = 5.0

_NAMED = re.compile(
    r"(?i)([\w.-]*(?:key|token|secret|passwo?r?d|authorization|cookie)[\w.-]*[\"']?\s*[=:]\s*)"
    r"((?:bearer|basic)\s+)?\S+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+\S+")
_USERINFO = re.compile(r"://[^/@\s]+@")
HIDDEN = "***"


class ProcessOptions(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="subprocess",
):
    """`argv` is the program and its arguments, no shell; `timeout` is for one attempt.

    `env` names the variables of this host's environment that it gets; it gets no other.
    """

    argv: tuple[str, ...]
    timeout: str = "60s"
    env: tuple[str, ...] = ("PATH", "LANG")

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0] or any("\0" in word for word in self.argv):
            raise ValueError(f"argv = {list(self.argv)!r}: expected a program and its arguments")
        duration(self.timeout)


class ProgramFailed(Exception):
    """The program did not end as it should."""


class Process:
    """A program that does orders, started anew for each."""

    def __init__(self, options: ProcessOptions) -> None:
        self._options = options
        self._name = options.argv[0]
        self._timeout = duration(options.timeout).total_seconds()
        self._environment = {name: os.environ[name] for name in options.env if name in os.environ}
        if shutil.which(self._name, path=self._environment.get("PATH")) is None:
            raise ConfigError(f"argv: there is no program {self._name!r}; install it or correct it")

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """Nothing to end: each attempt ends its own."""

    async def do(self, order: dict[str, Any]) -> Any:
        """Run it; raises Reject for an answer that is not JSON, ProgramFailed, TimeoutError."""
        running = await asyncio.create_subprocess_exec(
            *self._options.argv,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._environment,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._timeout):
                _, output, last_words = await asyncio.gather(
                    _write(running, msgspec.json.encode(order)), _read(running), _tail(running)
                )
                code = await running.wait()
        except BaseException as error:
            await _end(running)
            if isinstance(error, TimeoutError):
                limit = self._options.timeout
                raise TimeoutError(f"{self._name} gave no result within {limit}") from None
            raise
        if len(output) > RESULT_LIMIT:
            detail = f"{self._name} said more than {RESULT_LIMIT} bytes"
            raise Reject("result_too_large", detail, status=413)
        if code != 0:
            raise ProgramFailed(self._how_it_ended(code, last_words))
        return self._understand(output)

    def _how_it_ended(self, code: int, last_words: bytes) -> str:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        lines = last_words.decode("utf-8", "replace").strip().splitlines()
        if not lines:
            return f"{self._name} {how}"
        return f"{self._name} {how}: {clip(hide_secrets(lines[-1], self._environment), 300)}"

    def _understand(self, output: bytes) -> Any:
        if not output.strip():
            return None
        try:
            return msgspec.json.decode(output)
        except (ValueError, RecursionError) as error:
            raise Reject("output_not_json", f"{self._name}: {error}") from None


def hide_secrets(text: str, environment: Mapping[str, str]) -> str:
    """A line without what looks like a secret, or is the value of a variable named like one."""
    for name, value in environment.items():
        if len(value) >= 6 and _NAMED.match(f"{name}=x"):
            text = text.replace(value, HIDDEN)
    text = _NAMED.sub(rf"\1{HIDDEN}", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return _USERINFO.sub(f"://{HIDDEN}@", text)


async def _write(running: Running, data: bytes) -> None:
    assert running.stdin is not None
    # A program need not read its order to do it.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        running.stdin.write(data)
        await running.stdin.drain()
    running.stdin.close()


async def _read(running: Running) -> bytes:
    """What it says, up to a little more than a result may be; saying more ends it."""
    assert running.stdout is not None
    output = bytearray()
    while chunk := await running.stdout.read(8192):
        if len(output) <= RESULT_LIMIT:
            output += chunk
            if len(output) > RESULT_LIMIT:
                _kill(running)
    return bytes(output)


async def _tail(running: Running) -> bytes:
    """The end of what it says on standard error."""
    assert running.stderr is not None
    tail = b""
    while chunk := await running.stderr.read(8192):
        tail = (tail + chunk)[-TAIL:]
    return tail


def _kill(running: Running) -> None:
    """Kill it and whatever it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            running.kill()
        else:
            os.killpg(running.pid, signal.SIGKILL)


async def _end(running: Running) -> None:
    """Kill it and wait until nothing of it is left."""
    _kill(running)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REAP):
            await asyncio.gather(_read(running), _tail(running))
            await running.wait()
