"""Three nats-servers as processes, configured by nats/cluster.conf, each of which can be harmed.

Their routes may pass through this process, so that a node can be cut off from the others while
its clients still reach it.
"""

import os
import signal
import socket
import subprocess
from contextlib import AsyncExitStack, ExitStack
from itertools import permutations
from pathlib import Path
from typing import Any

from runtime.store.server import die_with_parent
from tests.integration.waiting import until
from tests.proxy import Pipe

CONFIGURATION = Path(__file__).parents[1] / "nats"
NODES = 3
PASSWORDS = {"edge": "0123456789", "host": "12e4", "admin": "$word", "system": "s y s"}
"""They are odd on purpose: each would be read as something else if it were not quoted."""
ROUTE_PASSWORD = "r0ute"
READY_WITHIN = 30.0
ENDED_WITHIN = 20.0


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


class Node:
    """One nats-server, which keeps its name, its store and its ports however often it starts."""

    def __init__(self, name: str, folder: Path, binary: str, settings: dict[str, str]) -> None:
        self.name = name
        self.settings = settings
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self.settings["CLIENT_LISTEN"].rpartition(":")[2])

    @property
    def monitor(self) -> str:
        """Where its health and figures are."""
        return f"http://{self.settings['MONITOR_LISTEN']}"

    @property
    def running(self) -> bool:
        """Whether it runs, or stands still at least."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Run it; what it says is appended to its log."""
        quoted = {name: f'"{value}"' for name, value in self.settings.items() if name != "ROUTES"}
        environment = {**os.environ, **quoted, "ROUTES": self.settings["ROUTES"]}
        command = [self._binary, "--config", str(self._folder / "cluster.conf")]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent(),
            )

    @property
    def log(self) -> Path:
        """What it has said."""
        return self._folder / f"{self.name}.log"

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    async def end(self, number: int) -> None:
        """End it by a signal, and wait until it is gone; SIGKILL if that takes too long."""
        self.send(number)
        try:
            await until(lambda: not self.running, ENDED_WITHIN)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await until(lambda: not self.running, ENDED_WITHIN)

    async def say(self, words: str, timeout: float = READY_WITHIN) -> None:
        """Wait until it has said something."""
        try:
            await until(lambda: words in self.log.read_text(errors="replace"), timeout)
        except TimeoutError:
            last = self.log.read_text(errors="replace")[-2000:]
            raise TimeoutError(f"{self.name} did not say {words!r}: {last}") from None


class Cluster:
    """Three nodes. If they are `piped` they reach each other through this process's loop.

    By a `Sieve` a node can be kept from hearing of some things only.
    """

    def __init__(
        self, folder: Path, binary: str, *, piped: bool = False, pipe: type[Pipe] = Pipe
    ) -> None:
        self._folder = folder
        self._piped = piped
        self._pipe = pipe
        clients, self._routes, monitors = (free_ports(NODES) for _ in range(3))
        self.nodes = [
            Node(
                f"node-{n}", folder, binary, self._settings(f"node-{n}", folder, n, client, monitor)
            )
            for n, (client, monitor) in enumerate(zip(clients, monitors, strict=True))
        ]
        self._pipes: dict[tuple[int, int], Pipe] = {}
        self._stack = AsyncExitStack()

    def _settings(
        self, name: str, folder: Path, number: int, client: int, monitor: int
    ) -> dict[str, str]:
        return {
            "SERVER_NAME": name,
            "CLIENT_LISTEN": f"127.0.0.1:{client}",
            "ROUTE_LISTEN": f"127.0.0.1:{self._routes[number]}",
            "MONITOR_LISTEN": f"127.0.0.1:{monitor}",
            "STORE_DIR": (folder / name).as_posix(),
            "STORE_LIMIT": "4G",
            "ROUTE_PASSWORD": ROUTE_PASSWORD,
            **{f"{user.upper()}_PASSWORD": word for user, word in PASSWORDS.items()},
        }

    @property
    def urls(self) -> list[str]:
        """Where clients connect, node by node."""
        return [f"nats://127.0.0.1:{node.port}" for node in self.nodes]

    async def start(self) -> None:
        """Start all nodes, and wait until they have chosen a leader among them."""
        self._write_configuration()
        for pair in permutations(range(NODES if self._piped else 0), 2):
            pipe = self._pipe(self._routes[pair[1]])
            self._pipes[pair] = await self._stack.enter_async_context(pipe)
        for number, node in enumerate(self.nodes):
            node.settings["ROUTES"] = self._routes_of(number)
            node.start()
        for node in self.nodes:
            await node.say("metadata leader")

    def _write_configuration(self) -> None:
        """The configuration as it is, but for where nodes tell others to find them.

        They tell of a port where nobody listens, or they would go round the pipes.
        """
        text = (CONFIGURATION / "cluster.conf").read_text(encoding="utf-8")
        (nowhere,) = free_ports(1)
        told = f'  advertise: "127.0.0.1:{nowhere}"\n  no_advertise: true\n  routes:'
        assert text.count("\n  routes:") == 1, "nats/cluster.conf has no line of routes any more"
        text = text.replace("  routes:", told) if self._piped else text
        (self._folder / "cluster.conf").write_text(text, encoding="utf-8")
        accounts = (CONFIGURATION / "accounts.conf").read_text(encoding="utf-8")
        (self._folder / "accounts.conf").write_text(accounts, encoding="utf-8")

    def _routes_of(self, number: int) -> str:
        ports = [pipe.port for (one, _), pipe in self._pipes.items() if one == number]
        ports = ports or self._routes
        urls = [f'"nats-route://route:{ROUTE_PASSWORD}@127.0.0.1:{port}"' for port in ports]
        return f"[{', '.join(urls)}]"

    async def stop(self) -> None:
        """End all of them."""
        for node in self.nodes:
            node.send(signal.SIGCONT)
            await node.end(signal.SIGKILL)
        await self._stack.aclose()

    def isolate(self, number: int, *, hard: bool) -> None:
        """Let nothing through between a node and the others: held back, or refused if `hard`."""
        for pipe in self._pipes_of(number):
            if hard:
                pipe.refuse()
                pipe.cut()
            else:
                pipe.hold()

    def starve(self, number: int, group: str) -> None:
        """Let a node and the others tell each other nothing of one raft group."""
        words = f".{group} ".encode()
        for pipe in self._pipes_of(number):
            pipe.lose(lambda message: words in message.partition(b"\r\n")[0])

    def join(self, number: int) -> None:
        """Let the others reach a node again."""
        for pipe in self._pipes_of(number):
            pipe.heal()

    def _pipes_of(self, number: int) -> list[Pipe]:
        return [pipe for pair, pipe in self._pipes.items() if number in pair]


def login(user: str) -> dict[str, Any]:
    """How a kind of process connects."""
    return {"inbox": f"_INBOX_{user}", "user": user, "password": PASSWORDS[user]}
