"""A served application and a peer that speaks to it in raw bytes, for tests of the edge."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import msgspec
import uvicorn

from edge.server import serve_config

PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    """A response, as it came over the wire. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> Any:
        return self.json["code"]


class Peer:
    """One connection to a server. Every wait ends after `PATIENCE` seconds, in an error."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes, *, content: bool = True) -> Answer:
        self.send(data)
        return self.answer(content=content)

    def answer(self, *, content: bool = True) -> Answer:
        """Read the next response. One to a HEAD has no content."""
        status = int(self._line().split(" ")[1])
        headers = dict(self._headers())
        if not content or status in {100, 204, 304}:
            return Answer(status, headers, b"")
        if "transfer-encoding" in headers:
            return Answer(status, headers, b"".join(iter(self.chunk, b"")))
        return Answer(status, headers, self._file.read(int(headers["content-length"])))

    def begun(self) -> tuple[int, dict[str, str]]:
        """Read the status and the headers of the next response, and leave its body."""
        return int(self._line().split(" ")[1]), dict(self._headers())

    def chunk(self) -> bytes:
        """Read the next chunk of a body, empty at its end."""
        data = self._file.read(int(self._line(), 16))
        self._file.readline()
        return data

    def read(self, size: int) -> bytes:
        """Read that many bytes, fewer only at the end of the connection."""
        return self._file.read(size)

    def rest(self) -> bytes:
        """Read until the server ends the connection."""
        return self._file.read()

    def _line(self) -> str:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), f"the connection ended in {line!r}"
        return line[:-2].decode("latin-1")

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._line():
            name, _, value = line.partition(": ")
            yield name.lower(), value


class Started(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def served(app: Any, **options: Any) -> Iterator[int]:
    """Serve an application in a thread, with the options of `serve_config`. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Started(serve_config(app, **options))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert server.ready.wait(PATIENCE)
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
        assert not thread.is_alive()
