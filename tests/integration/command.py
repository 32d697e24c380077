"""A running `callboard up`: real processes, and what they say."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path
from queue import Empty, Queue
from typing import Any

ROOT = Path(__file__).parents[2]
KEY = {"X-Relay-API-Key": "lynker_relay_secret_2025"}
PATIENCE = 20.0

CONFIG = """
[nats]
data = "{data}"
port = 0
[edge]
listen = ["127.0.0.1:{port}"]
{edge}
[log]
format = "json"
[[actor]]
name = "master"
type = "actors.master:Master"
[[actor]]
name = "child"
type = "actors.child:Child"
options = {{ kind = "callable", call = "actors.commands:run" }}
"""


def find_free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Callboard:
    """A running `callboard up`, and what it says."""

    def __init__(self, folder: Path, *more: str, port: int = 0, edge: str = "") -> None:
        """`more` are further arguments."""
        config = folder / "callboard.toml"
        config.write_text(
            CONFIG.format(data=folder / "data", port=port or find_free_port(), edge=edge)
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runtime", "up", "--config", str(config), *more],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.errors: list[dict[str, Any]] = []
        """What was logged as an error."""
        self._lines: defaultdict[str, Queue[dict[str, Any]]] = defaultdict(Queue)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def close(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self._listener.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said.get("level") == "error":
                    self.errors.append(said)
                self._lines[said["event"]].put(said)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next line that says `event`, of those not waited for yet."""
        try:
            return self._lines[event].get(timeout=PATIENCE)
        except Empty:
            raise AssertionError(f"{event} was not said; said were {list(self._lines)}") from None

    def children(self) -> list[int]:
        """Its processes, by the kernel's own list."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in tasks.read_text().split()]

    def find(self, word: str) -> int:
        """The child whose command line has a word in it."""
        for pid in self.children():
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        raise AssertionError(f"no child runs {word!r}")
