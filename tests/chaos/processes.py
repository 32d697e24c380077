"""Processes of the chaos test: hosts, edges and askers that are killed, frozen, started again."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.waiting import until

ROOT = Path(__file__).parents[2]

NATS = """
[nats]
url = "nats://127.0.0.1:1"
replicas = {replicas}
{login}

[log]
format = "json"
"""

LOGIN = """user = "{user}"
password_env = "{variable}"
"""

ACTORS = """
[[actor]]
name = "ledger"
type = "tests.chaos.ledger:Ledger"

[[actor]]
name = "squarer"
type = "tests.chaos.ledger:Squarer"
attempts = 100

[[actor]]
name = "singer"
type = "tests.chaos.ledger:Singer"
attempts = 100

[[actor]]
name = "master"
type = "actors.master:Master"

[[actor]]
name = "child"
type = "actors.child:Child"
options = {{ kind = "callable", call = "actors.commands:run" }}
attempts = 100
"""

EDGE = """
[edge]
listen = ["127.0.0.1:{port}"]

[[edge.key]]
id = "chaos"
secret_env = "CHAOS_KEY"
"""
KEY = secrets.token_hex(16)

EXPECTED = ("message_dead",)
"""The only errors that this test may bring about: of entries that always fail."""


class Process:
    """One run of a Python module, with its log in a file."""

    def __init__(
        self,
        name: str,
        log: Path,
        arguments: list[str],
        *,
        crash: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.crash = crash
        """Where it is to kill itself: `point:nth`, or nothing."""
        self.ended_by_us = False
        self._arguments = arguments
        self._environment = {**(environment or {}), "CRASH_AT": crash, "CHAOS_KEY": KEY}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Run it; what it says is appended to its log."""
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._arguments,
                cwd=ROOT,
                env={**os.environ, **self._environment, "CALLBOARD_CHILD": "1"},
                # A child of ours ends when this does, and so with us, however we end.
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        """Its process; 0 if it does not run."""
        return self._process.pid if self._process and self.code is None else 0

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def crashed(self) -> bool:
        """Whether it killed itself where it was told to."""
        return self.code == -signal.SIGKILL and not self.ended_by_us and bool(self.crash)

    async def wait(self) -> int:
        """Wait until it has ended; returns its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        """Ask it to leave; returns its exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> int:
        if self.code is None:
            self.ended_by_us = True
            self.send(number)
        return await self.wait()

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def say(self, event: str, *, timeout: float = 20) -> None:
        """Wait until it has logged an event."""
        try:
            await until(lambda: any(one["event"] == event for one in read_lines(self.log)), timeout)
        except TimeoutError:
            last = [str(line) for line in read_lines(self.log)[-1:]] or ["nothing at all"]
            raise TimeoutError(f"{self.name} did not say {event}, but {last[0]}") from None


def read_lines(log: Path) -> list[dict[str, Any]]:
    """Every line of a log; what is not JSON becomes an event of its own."""
    lines = []
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            lines.append({"event": line})
    return lines


@dataclass(frozen=True)
class Setting:
    """What processes have in common: their folder, and how they find and log in to servers."""

    folder: Path
    replicas: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    def configure(self, name: str, user: str, rest: str) -> Path:
        """Write a configuration; returns its path."""
        variable = f"{user.upper()}_PASSWORD"
        login = LOGIN.format(user=user, variable=variable) if variable in self.environment else ""
        path = self.folder / f"{name}.toml"
        path.write_text(NATS.format(replicas=self.replicas, login=login) + rest)
        return path

    def host(self, name: str, url: str, *, crash: str = "") -> Process:
        """A host that runs the accounts, their workers, and relayed tasks."""
        config = self.configure("host", "host", ACTORS.format())
        return self._process("host", name, config, url, crash)

    def edge(self, name: str, url: str, port: int) -> Process:
        """An edge on a port of loopback."""
        config = self.configure(f"edge-{port}", "edge", EDGE.format(port=port))
        return self._process("edge", name, config, url, "")

    def _process(self, kind: str, name: str, config: Path, url: str, crash: str) -> Process:
        arguments = ["runtime", kind, "--config", str(config), "--nats", url]
        log = self.folder / f"{name}.log"
        return Process(name, log, arguments, crash=crash, environment=self.environment)


def count_events(logs: list[Path]) -> Counter[str]:
    """How often each event was logged, and each outcome of a message."""
    counts: Counter[str] = Counter()
    for log in logs:
        for line in read_lines(log):
            counts[line["event"]] += 1
            if line.get("level") in ("error", "critical") or "level" not in line:
                counts[f"error {line['event']}"] += 1
            if line["event"] == "message_settled":
                counts[f"message {line['outcome']}"] += 1
    return counts


def unexpected(counts: Counter[str]) -> list[str]:
    """What was logged as an error, or by no logger, and should not have been."""
    return [
        f"logged {count} times: {event}"
        for event, count in counts.items()
        if event.startswith("error ") and event.removeprefix("error ") not in EXPECTED
    ]
