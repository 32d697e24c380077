"""A small application behind the gate, and requests to it as bytes."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from edge.limits import Limits
from tests.unit.serving import PATIENCE, Answer, Peer

HOST = b"Host: localhost\r\n"
SHORT = Limits(
    header_time=timedelta(milliseconds=300),
    body_time=timedelta(milliseconds=300),
    linger=timedelta(milliseconds=200),
)


# More than the system keeps for somebody who does not read.
LARGE = 32_000_000


class Lobby:
    """An application that remembers what reached it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bodies: list[bytes] = []
        self.left = threading.Event()
        self.waiting = threading.Event()
        self.loop: asyncio.AbstractEventLoop
        self.released: asyncio.Event

    async def echo(self, request: Request) -> Response:
        self.seen.append(f"{request.method} {request.url.path}")
        self.bodies.append(await request.body())
        return JSONResponse(
            {
                "method": request.method,
                "path": request.url.path,
                "query": request.url.query,
                "body": self.bodies[-1].decode("latin-1"),
                "headers": dict(request.headers),
            }
        )

    async def early(self, request: Request) -> Response:
        """Answers without reading the body."""
        return JSONResponse({"early": True}, 413)

    async def late(self, request: Request) -> Response:
        """Reads the body when it is released."""
        self._wait_for_release()
        await self.released.wait()
        return await self.echo(request)

    async def poll(self, request: Request) -> Response:
        """Asks for more all the time, until it is released."""
        self._wait_for_release()
        while not self.released.is_set():
            await request.is_disconnected()
            await asyncio.sleep(0.001)
        return Response("")

    async def stream(self, request: Request) -> Response:
        """Says hello, and goodbye when it is released or left."""
        self._wait_for_release()

        async def words() -> AsyncIterator[bytes]:
            yield b"hello"
            try:
                await self.released.wait()
                yield b"goodbye"
            finally:
                self.left.set()

        return StreamingResponse(words(), media_type="text/event-stream")

    def _wait_for_release(self) -> None:
        self.loop, self.released = asyncio.get_running_loop(), asyncio.Event()
        self.waiting.set()

    def release(self) -> None:
        assert self.waiting.wait(PATIENCE)
        self.loop.call_soon_threadsafe(self.released.set)

    async def large(self, request: Request) -> Response:
        self.seen.append("GET /large")
        return Response(b"x" * LARGE)

    async def converse(self, websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(2):
            await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/early", self.early, methods=["POST"]),
                Route("/late", self.late, methods=["POST"]),
                Route("/poll", self.poll),
                Route("/stream", self.stream, methods=["GET", "POST"]),
                Route("/large", self.large),
                WebSocketRoute("/ws", self.converse),
                Route("/{rest:path}", self.echo, methods=["GET", "POST", "PUT"]),
            ]
        )


def get(path: bytes = b"/x", more: bytes = b"", host: bytes = HOST) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + host + more + b"\r\n"


def post(more: bytes, body: bytes = b"hello", path: bytes = b"/x") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + more + b"\r\n" + body


def refused(port: int, raw: bytes) -> Answer:
    """Send what must be refused, and read until the server has ended the connection."""
    with Peer(port) as peer:
        answer = peer.ask(raw)
        assert peer.rest() == b""
    return answer
