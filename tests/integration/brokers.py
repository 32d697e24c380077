"""nats-servers with a configuration of a test's own, as processes that can be told to change."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.conftest import port_to_come_back_to
from tests.integration.waiting import until_known


class Broker:
    """One nats-server on loopback."""

    def __init__(self, binary: str, folder: Path, *, port: int = 0, settings: str = "") -> None:
        self.port = port or port_to_come_back_to()
        self._binary = binary
        self._config = folder / f"{self.port}.conf"
        self._process: asyncio.subprocess.Process | None = None
        self.write(settings)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def write(self, settings: str) -> None:
        """Write its configuration; it is read at the next start, or by `reload`."""
        listen = f"listen: 127.0.0.1:{self.port}\nserver_name: n{self.port}\n"
        self._config.write_text(listen + settings)

    async def start(self) -> None:
        """Run it, and return once it greets."""
        self._process = await asyncio.create_subprocess_exec(
            self._binary, "-c", str(self._config), stderr=asyncio.subprocess.DEVNULL
        )
        await until_known(self._greets)

    async def _greets(self) -> bool:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                return (await reader.readline()).startswith(b"INFO")
            finally:
                writer.close()
        return False

    def reload(self, settings: str) -> None:
        """Have it read another configuration."""
        self.write(settings)
        self._signal(signal.SIGHUP)

    def retire(self) -> None:
        """Tell it to go into lame-duck mode: it says that it will leave, and stays a while."""
        self._signal(signal.SIGUSR2)

    async def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@asynccontextmanager
async def broker(binary: str, folder: Path, settings: str = "") -> AsyncIterator[Broker]:
    """One server of its own configuration."""
    one = Broker(binary, folder, settings=settings)
    await one.start()
    try:
        yield one
    finally:
        await one.kill()


@asynccontextmanager
async def cluster(binary: str, folder: Path, count: int = 2) -> AsyncIterator[list[Broker]]:
    """Servers that know each other; what is said on one is heard on the others."""
    routes = [port_to_come_back_to() for _ in range(count)]
    known = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
    text = "cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{known}] }}\n"
    nodes = [
        Broker(binary, folder, settings=text.format(port=port, known=known)) for port in routes
    ]
    try:
        for node in nodes:
            await node.start()
        yield nodes
    finally:
        for node in nodes:
            await node.kill()
