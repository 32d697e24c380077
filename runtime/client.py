"""The one module that imports the NATS client: one connection to one server, until it ends.

It uses nats-py for the handshake, TLS, credentials and the protocol parser, and reaches into it
where that has no say. Who rebuilds it is runtime/connection.py.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog
from nats.aio.client import Client as NatsClient

log = structlog.get_logger()

DIAL_WITHIN = 2.0
CONGESTED = 16 * 1024 * 1024


class Holder(Protocol):
    """Who is told what happens to a client."""

    def hand_on(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        """A message has come."""
        ...

    def complain(self, client: "Client", words: str) -> None:
        """The server, or the client, reports an error."""
        ...

    def leave(self, client: "Client") -> None:
        """The server says that it will soon go."""
        ...

    def end(self, client: "Client") -> None:
        """It reads no more."""
        ...


class Client(NatsClient):  # type: ignore[misc]  # nats-py ships no types we check against
    """nats-py's client to one server, with each delivery handed on at once instead of queued."""

    def __init__(self, url: str, holder: Holder) -> None:
        super().__init__()
        self.url = url
        self._holder = holder
        self._hand_on: Callable[..., None] = holder.hand_on

    @property
    def ended(self) -> bool:
        """Whether it reads no more: whatever ends a client ends its reader."""
        return bool(self._reading_task.done())

    @property
    def server_version(self) -> str:
        """The version of the server."""
        return str(self._server_info.get("version", ""))

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        writer = self._writer()
        return int(writer.transport.get_write_buffer_size()) if writer else 0

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket. Raises OSError or RuntimeError if it is closed."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Cut the socket, so that nothing half-sent leaves later."""
        if writer := self._writer():
            writer.transport.abort()

    def retire(self) -> None:
        """Hand nothing on any more: another one has taken its place."""
        self._hand_on = _ignore

    def _writer(self) -> asyncio.StreamWriter | None:
        return getattr(self._transport, "_io_writer", None)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self._hand_on(sid, subject, reply, data, headers)

    async def _select_next_server(self) -> None:
        # Once, and no other: who is tried next is not for nats-py to say.
        self._current_server = self._server_pool[0]
        await self._connect_to_server(self._current_server)

    async def report(self, error: Exception) -> None:
        """Pass on an error of nats-py."""
        self._holder.complain(self, str(error))

    async def announce_leaving(self) -> None:
        """Pass on that the server is about to go."""
        self._holder.leave(self)


def _ignore(*_: object) -> None:
    return


async def dial(url: str, holder: Holder, options: Mapping[str, Any]) -> Client:
    """Connect to one server; whatever it raises, no socket is left."""
    client = Client(url, holder)
    try:
        async with asyncio.timeout(DIAL_WITHIN):
            await client.connect(
                [url],
                allow_reconnect=False,
                connect_timeout=DIAL_WITHIN,
                ping_interval=20,
                error_cb=client.report,
                lame_duck_mode_cb=client.announce_leaving,
                pending_size=CONGESTED,
                **options,
            )
    except BaseException:
        # nats-py leaves the socket open when a server takes it and then says nothing.
        client.abort()
        raise
    # Some things end only its reader.
    client._reading_task.add_done_callback(lambda _: holder.end(client))
    return client


async def drop(client: Client | None, *, flush: bool) -> None:
    """End a client within a second, after what it has to send if `flush`."""
    if client is None:
        return
    if not flush:
        client.abort()
    try:
        async with asyncio.timeout(1):
            await client.close()
    except Exception as error:  # a half-dead client may fail in any way; it is gone either way
        log.debug("client_close_failed", error=repr(error))
        client.abort()
